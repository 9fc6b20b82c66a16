"""Random programs in the scenario language, for two runtimes to be compared on.

A program has two or three actors. The outside world starts calls, opens sockets and sends messages without waiting,
so that events overlap. What a program does is drawn so that its outcome says something: calls go down a fixed order
of actors (but for a call back from outside a critical section), so nothing waits in a circle. Time is coarse, so that
what happens first is not left to a few microseconds: every pause of a program is another power of two of a unit, the
outside world's starts are a gap apart, and all the gaps of a program together are less than a unit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import attrs
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

Json = Any
UNIT_MS = 240
GAP_MS = 12
PAUSES = 4
KEYS = ("k", "l", "m")
ACTORS = ("A", "B", "C")
Draw = st.DrawFn
GAP: Json = ["sleep", GAP_MS]
HALF_GAP: Json = ["sleep", GAP_MS / 2]  # between two calls of one caller
TURN: Json = ["turn"]  # after a wait for one's own actor: there it is no wait, but JavaScript's microtasks


@attrs.frozen
class Where:
    """Which operations make sense at a place in a program.

    Attributes:
        actor: whose program it is; calls go to those after it.
        free: outside every critical section and transaction, where a call may come back to its caller.
        handle: inside a transaction.
        calls: whether it may call at all.
        alarms: whether it may set or delete the alarm. fails: whether a section of it may fail.
        deep: how many levels of nesting are left.
    """

    actor: int
    actors: int
    free: bool = True
    handle: bool = False
    calls: bool = True
    alarms: bool = True
    fails: bool = True
    deep: int = 2


class Pauses:
    """Hands out the pauses of one program: the drawn order of powers of two."""

    def __init__(self, order: list[int]) -> None:
        self._order = order
        self._used = 0

    @property
    def settle_ms(self) -> int:
        """How long nothing but pauses can go on for; what goes on forever is cut off between two units."""
        return UNIT_MS * sum(2**one for one in self._order[: self._used]) + GAP_MS

    def take(self) -> int | None:
        """The next pause in ms; None when there is none left."""
        if self._used == len(self._order):
            return None
        self._used += 1
        return UNIT_MS * 2 ** self._order[self._used - 1]


@st.composite
def programs(draw: st.DrawFn) -> dict[str, Json]:
    """A scenario, but for its name."""
    pauses = Pauses(draw(st.permutations(range(PAUSES))))
    count = draw(st.integers(2, 3))
    actors = {ACTORS[index]: _actor(draw, index, count, pauses) for index in range(count)}
    return {"name": "random", "actors": actors, "steps": _steps(draw, count, pauses), "settleMs": pauses.settle_ms}


# ── the outside world ──


def _steps(draw: Draw, count: int, pauses: Pauses) -> list[Json]:
    steps: list[Json] = []
    sockets: dict[str, int] = {}
    if draw(st.integers(0, 2)) > 0:
        for name in ("s1", "s2")[: draw(st.integers(1, 2))]:
            sockets[name] = draw(st.integers(0, count - 1))
            steps.append(["wsOpen", name, ACTORS[sockets[name]]])
    for round_ in range(draw(st.integers(1, 2))):
        started: list[str] = []
        numbers = range(draw(st.sampled_from((1, 3, 3, 3, 4, 4, 5))))
        for number in numbers:
            if sockets and draw(st.integers(0, 3)) == 0:
                name = draw(st.sampled_from(sorted(sockets)))
                steps += [["wsSend", name, f"m{round_}{number}"], GAP]
            else:
                name = f"r{round_}{number}"
                started.append(name)
                pause = pauses.take() if draw(st.integers(0, 4)) == 0 else None
                calls = draw(st.sampled_from((1, 2))) if number == numbers[-1] else 1
                steps.append(["driveBg", name, _caller(draw, name, count, calls), pause or GAP_MS])
        steps += [*(["joinBg", name] for name in started), GAP]
        if sockets and draw(st.integers(0, 3)) == 0:
            name = draw(st.sampled_from(sorted(sockets)))
            del sockets[name]
            steps += [draw(st.sampled_from((["wsClose", name, 1000, "bye"], ["wsDrop", name]))), GAP]
        if draw(st.integers(0, 2)) == 0:
            steps += [["evict", ACTORS[draw(st.integers(0, count - 1))]], GAP]
    if draw(st.booleans()):
        look = [["show", f"end {ACTORS[index]}", ["call", ACTORS[index], "look"]] for index in range(count)]
        steps.append(["drive", look])
    return steps


def _caller(draw: Draw, name: str, count: int, calls: int) -> list[Json]:
    """Calls one after another: only the last caller of a round makes more than one.

    A reply comes whenever the real runtime is done, so that nothing else may begin at a time of its own meanwhile.
    """
    program = []
    for index in range(calls):
        actor = ACTORS[draw(st.integers(0, count - 1))]
        method = draw(st.sampled_from(("go", "go", "run", "leaf")))
        program += [["show", f"{name}.{index}", ["call", actor, method, index]], HALF_GAP]
    return program[:-1]


# ── an actor ──


def _actor(draw: Draw, index: int, count: int, pauses: Pauses) -> dict[str, Json]:
    where = Where(index, count)
    actor: dict[str, Json] = {}
    if draw(st.integers(0, 7)) == 0:
        actor["class"] = "ScriptedKv"
    if draw(st.integers(0, 5)) == 0:
        actor["ctorBlock"] = _body(
            draw, Where(index, count, free=False, calls=False, alarms=False, deep=1), pauses, 1, 3
        )
    actor["methods"] = {
        "go": _body(draw, where, pauses, 1, 6) + draw(_ending),
        "run": _body(draw, where, pauses, 1, 4) + draw(_ending),
        "leaf": _body(draw, Where(index, count, free=False, calls=False, deep=1), pauses, 1, 3) + draw(_ending),
        "look": [["show", "storage", ["list"]], ["show", "alarm", ["getAlarm"]]],
    }
    leaf = Where(index, count, free=False, calls=False, fails=False)
    actor["alarm"] = [["log", "alarm"], *_body(draw, leaf, pauses, 0, 3)]
    actor["message"] = [
        ["log", "message", {"$var": "msg"}],
        *_body(draw, where, pauses, 0, 4),
        ["wsSend", "self", {"$var": "msg"}],
    ]
    return actor


_key = st.sampled_from(KEYS)
_value = st.integers(0, 9)
_write_kind = st.integers(0, 4)
_ending = st.sampled_from(
    (
        [],
        [["return", {"$mem": "n"}]],
        [["return", "ok"]],
        [["throw", "wrong"]],
        [["abort", "over"]],
        [["wsSend", "all", "last words"], ["abort", "over"]],
    )
)


def _body(draw: Draw, where: Where, pauses: Pauses, least: int, most: int) -> list[Json]:
    return [op for _ in range(draw(st.integers(least, most))) for op in _operation(draw, where, pauses)]


def _operation(draw: Draw, where: Where, pauses: Pauses) -> list[Json]:
    return _OPERATIONS[draw(st.sampled_from(_kinds(where)))](draw, where, pauses)


@cache
def _kinds(where: Where) -> tuple[str, ...]:
    kinds = ["write", "write", "read", "memory", "pause", "pause"]
    if where.alarms:
        kinds += ["alarm"]
    if not where.handle:
        kinds += ["sockets", "timer", "spawn"]
    if where.calls:
        kinds += ["call", "call", "together", "again"]
    if where.deep:
        kinds += ["try"]
        kinds += ["nested"] if where.handle else ["block", "block", "txn", "txn", "txnSync"]
    if where.handle:
        kinds += ["rollback"]
    return tuple(kinds)


def _write(draw: Draw, _: Where, __: Pauses) -> list[Json]:
    key, value = draw(_key), draw(_value)
    writes: tuple[Json, ...] = (
        ["put", key, value],
        ["put", key, value],
        ["show", "delete", ["delete", key]],
        ["put", {"k": value, "m": 1}],
        ["put", key, value, {"allowUnconfirmed": True}],
    )
    return [writes[draw(_write_kind)]]


def _read(draw: Draw, _: Where, __: Pauses) -> list[Json]:
    return [["show", "list", ["list"]]] if draw(st.booleans()) else [["show", key := draw(_key), ["get", key]]]


def _memory(_: Draw, __: Where, ___: Pauses) -> list[Json]:
    return [["show", "n", ["memIncr", "n"]]]


def _pause(draw: Draw, _: Where, pauses: Pauses) -> list[Json]:
    pause = pauses.take()
    if pause is None:
        return [["show", "n", ["memIncr", "n"]]]
    return [["sleep", pause], ["log", draw(st.sampled_from(("woke", "went on")))]]


def _alarm(draw: Draw, _: Where, pauses: Pauses) -> list[Json]:
    what = draw(st.integers(0, 3))
    if what == 0:
        return [["show", "alarm", ["getAlarm"]]]
    if what == 1:
        return [["deleteAlarm"]]
    pause = pauses.take()
    return [["show", "alarm", ["getAlarm"]]] if pause is None else [["setAlarm", pause]]


def _call(draw: Draw, where: Where, pauses: Pauses) -> list[Json]:
    after = range(where.actor + 1, where.actors)
    if where.free and draw(st.integers(0, 3)) == 0:
        return [["show", "back", ["call", ACTORS[where.actor], "leaf"]]]  # to itself
    if not after:
        return _write(draw, where, pauses)
    actor = ACTORS[draw(st.sampled_from(after))]
    method = draw(st.sampled_from(("leaf", "run"))) if where.free else "leaf"
    return [["show", f"to {actor}", ["call", actor, method]]]


def _together(draw: Draw, where: Where, pauses: Pauses) -> list[Json]:
    """Two calls on one stub, of which neither waits for the other."""
    after = range(where.actor + 1, where.actors)
    if not after:
        return _write(draw, where, pauses)
    actor = ACTORS[draw(st.sampled_from(after))]
    between = _write(draw, where, pauses)
    return [
        ["stub", "s", actor],
        ["spawn", "one", [["show", "one", ["scall", "s", "leaf"]]]],
        *between,
        ["spawn", "two", [["show", "two", ["scall", "s", "leaf"]]]],
        ["join", "one"],
        ["join", "two"],
        TURN,
    ]


def _again(draw: Draw, where: Where, pauses: Pauses) -> list[Json]:
    """Two calls on one stub, one after the other: the second one fails when the first destroyed its target."""
    after = range(where.actor + 1, where.actors)
    if not after:
        return _write(draw, where, pauses)
    actor = ACTORS[draw(st.sampled_from(after))]
    methods = ("leaf", "run") if where.free else ("leaf",)
    calls = [["show", name, ["scall", "u", draw(st.sampled_from(methods))]] for name in ("first", "second")]
    return [["stub", "u", actor], *calls]


def _block(draw: Draw, where: Where, pauses: Pauses) -> list[Json]:
    inner = attrs.evolve(where, free=False, deep=where.deep - 1)
    body = _body(draw, inner, pauses, 1, 4)
    if where.fails and draw(st.integers(0, 7)) == 0:
        body = [*body, ["throw", "section failed"]]
    block: Json = ["block", [["log", "section"], *body, ["log", "section ends"]]]
    return [["show", "block", block]]


def _txn(draw: Draw, where: Where, pauses: Pauses) -> list[Json]:
    inner = attrs.evolve(where, free=False, handle=True, calls=False, deep=where.deep - 1)
    body = _body(draw, inner, pauses, 1, 4)
    if draw(st.integers(0, 4)) == 0:
        body = [*body, ["throw", "undone"]]
    return [["show", "txn", ["txn", body]], *_read(draw, where, pauses)]


def _txn_sync(draw: Draw, where: Where, pauses: Pauses) -> list[Json]:
    body = [["kvPut", draw(st.sampled_from(KEYS)), draw(st.integers(0, 9))], ["show", "in sync", ["kvGet", "k"]]]
    if draw(st.integers(0, 3)) == 0:
        body.append(["throw", "undone"])
    return [["show", "txnSync", ["txnSync", body]], *_read(draw, where, pauses)]


def _nested(draw: Draw, where: Where, pauses: Pauses) -> list[Json]:
    body = [["kvPut", draw(st.sampled_from(KEYS)), draw(st.integers(0, 9))]]
    if draw(st.booleans()):
        body.append(["throw", "inner undone"])
    return [["show", "txnSync", ["txnSync", body]], *_read(draw, where, pauses)]


def _rollback(_: Draw, __: Where, ___: Pauses) -> list[Json]:
    return [["show", "rollback", ["rollback"]]]


def _try(draw: Draw, where: Where, pauses: Pauses) -> list[Json]:
    body = _body(draw, attrs.evolve(where, deep=where.deep - 1), pauses, 1, 2)
    return [["try", [*body, ["throw", "caught here"]]]]


def _timer(draw: Draw, where: Where, pauses: Pauses) -> list[Json]:
    pause = pauses.take()
    if pause is None:
        return [["show", "n", ["memIncr", "n"]]]
    body = _body(draw, attrs.evolve(where, free=False, calls=False, deep=0), pauses, 1, 2)
    return [["timer", pause, [["log", "timer"], *body]]]


def _spawn(draw: Draw, where: Where, pauses: Pauses) -> list[Json]:
    pause = pauses.take()
    if pause is None:
        return [["show", "n", ["memIncr", "n"]]]
    # Without a wait of its own its order would be that of JavaScript's microtasks.
    body = _body(draw, attrs.evolve(where, deep=0), pauses, 1, 2)
    between = _body(draw, attrs.evolve(where, deep=0), pauses, 0, 2)
    name = f"t{pause}"
    return [["spawn", name, [["log", "task"], ["sleep", pause], *body]], *between, ["join", name], TURN]


_on_sockets = st.sampled_from(
    (
        [["show", "sockets", ["wsCount"]]],
        [["wsSend", "all", "to all"]],
        [["put", "k", 5], ["wsSend", "all", "after a put"]],
        [["wsClose", "all", 4001, "closed"]],
    )
)


def _sockets(draw: Draw, _: Where, __: Pauses) -> list[Json]:
    return draw(_on_sockets)


_OPERATIONS: dict[str, Callable[[Draw, Where, Pauses], list[Json]]] = {
    "write": _write,
    "read": _read,
    "memory": _memory,
    "pause": _pause,
    "alarm": _alarm,
    "call": _call,
    "together": _together,
    "again": _again,
    "block": _block,
    "txn": _txn,
    "txnSync": _txn_sync,
    "nested": _nested,
    "rollback": _rollback,
    "try": _try,
    "timer": _timer,
    "spawn": _spawn,
    "sockets": _sockets,
}


# ── a program by its number ──


def drawn(start: int, number: int) -> dict[str, Json]:
    """The program of this number of a seed: the same every time, and like no other but by chance."""
    found: list[dict[str, Json]] = []

    @seed(start * 1_000_000 + number)
    @_one_at_random
    @given(programs())
    def take(program: dict[str, Json]) -> None:
        found.append(program)

    take()
    return {**found[-1], "name": f"random-{start}-{number}"}


# The first example is always the simplest one, and later ones are often mixed from those before: the second is neither.
_one_at_random = settings(
    max_examples=2,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
