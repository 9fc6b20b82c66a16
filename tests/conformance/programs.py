"""Random programs in the scenario language, for two runtimes to be compared on.

A program has two or three actors. The outside world starts calls, opens sockets and sends messages without waiting,
so that events overlap. What a program does is drawn so that its outcome says something: calls go down a fixed order
of actors (but for a call back from outside a critical section), so nothing waits in a circle. Time is coarse, so that
what happens first is not left to a few microseconds: every pause of a program is another power of two of a unit, the
outside world's starts are a gap apart, and all the gaps of a program together are less than a unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs
from hypothesis import strategies as st

Json = Any
UNIT_MS = 240
GAP_MS = 12
PAUSES = 4
KEYS = ("k", "l", "m")
ACTORS = ("A", "B", "C")
OVERLAPPING = 3
GAP: Json = ["sleep", GAP_MS]
HALF_GAP: Json = ["sleep", GAP_MS / 2]  # between two calls of one caller: not when another begins
TURN: Json = ["turn"]  # after a wait for one's own actor: there it is no wait, but JavaScript's microtasks

KINDS = {
    "storage": {"get", "put", "delete", "list", "deleteAll", "kvPut", "kvGet", "sql"},
    "waits": {"sleep", "join", "wait"},
    "calls": {"call", "scall"},
    "critical sections": {"block"},
    "transactions": {"txn", "txnSync"},
    "alarms": {"setAlarm", "deleteAlarm", "getAlarm"},
    "aborts": {"abort"},
    "evictions": {"evict"},
    "sockets": {"wsOpen"},
}


@attrs.frozen
class Where:
    """Which operations make sense at a place in a program.

    Attributes:
        actor: whose program it is; calls go to those after it.
        free: outside every critical section and transaction, where a call may come back to its caller.
        handle: inside a transaction.
        calls: whether it may call at all.
        deep: how many levels of nesting are left.
    """

    actor: int
    actors: int
    free: bool = True
    handle: bool = False
    calls: bool = True
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
    actors = {ACTORS[index]: draw(_actor(index, count, pauses)) for index in range(count)}
    return {"name": "random", "actors": actors, "steps": draw(_steps(count, pauses)), "settleMs": pauses.settle_ms}


# ── the outside world ──


@st.composite
def _steps(draw: st.DrawFn, count: int, pauses: Pauses) -> list[Json]:
    steps: list[Json] = []
    sockets: dict[str, int] = {}
    if draw(st.integers(0, 2)) > 0:
        for name in ("s1", "s2")[: draw(st.integers(1, 2))]:
            sockets[name] = draw(st.integers(0, count - 1))
            steps.append(["wsOpen", name, ACTORS[sockets[name]]])
    for round_ in range(draw(st.integers(1, 2))):
        started: list[str] = []
        for number in range(draw(st.sampled_from((1, 3, 3, 3, 4, 4, 5)))):
            if sockets and draw(st.integers(0, 3)) == 0:
                name = draw(st.sampled_from(sorted(sockets)))
                steps += [["wsSend", name, f"m{round_}{number}"], GAP]
            else:
                name = f"r{round_}{number}"
                started.append(name)
                pause = pauses.take() if draw(st.integers(0, 4)) == 0 else None
                steps.append(["driveBg", name, draw(_caller(name, count)), pause or GAP_MS])
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


@st.composite
def _caller(draw: st.DrawFn, name: str, count: int) -> list[Json]:
    calls = []
    for index in range(draw(st.sampled_from((1, 1, 1, 2)))):
        actor = ACTORS[draw(st.integers(0, count - 1))]
        method = draw(st.sampled_from(("go", "go", "run", "leaf")))
        calls += [["show", f"{name}.{index}", ["call", actor, method, index]], HALF_GAP]
    return calls[:-1]


# ── an actor ──


@st.composite
def _actor(draw: st.DrawFn, index: int, count: int, pauses: Pauses) -> dict[str, Json]:
    where = Where(index, count)
    actor: dict[str, Json] = {}
    if draw(st.integers(0, 7)) == 0:
        actor["class"] = "ScriptedKv"
    if draw(st.integers(0, 5)) == 0:
        actor["ctorBlock"] = draw(_body(Where(index, count, free=False, calls=False, deep=1), pauses, 1, 3))
    actor["methods"] = {
        "go": draw(_body(where, pauses, 1, 6)) + draw(_ending),
        "run": draw(_body(where, pauses, 1, 4)) + draw(_ending),
        "leaf": draw(_body(Where(index, count, free=False, calls=False, deep=1), pauses, 1, 3)) + draw(_ending),
        "look": [["show", "storage", ["list"]], ["show", "alarm", ["getAlarm"]]],
    }
    leaf = Where(index, count, free=False, calls=False)
    actor["alarm"] = [["log", "alarm"], *draw(_body(leaf, pauses, 0, 3))]
    actor["message"] = [
        ["log", "message", {"$var": "msg"}],
        *draw(_body(where, pauses, 0, 4)),
        ["wsSend", "self", {"$var": "msg"}],
    ]
    return actor


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


@st.composite
def _body(draw: st.DrawFn, where: Where, pauses: Pauses, least: int, most: int) -> list[Json]:
    return [op for _ in range(draw(st.integers(least, most))) for op in draw(_operation(where, pauses))]


@st.composite
def _operation(draw: st.DrawFn, where: Where, pauses: Pauses) -> list[Json]:
    kinds = ["write", "write", "read", "memory", "pause", "pause", "alarm"]
    if not where.handle:
        kinds += ["sockets", "timer", "spawn"]
    if where.calls:
        kinds += ["call", "call", "together"]
    if where.deep:
        kinds += ["try"]
        kinds += ["nested"] if where.handle else ["block", "block", "txn", "txn", "txnSync"]
    if where.handle:
        kinds += ["rollback"]
    return draw(_OPERATIONS[draw(st.sampled_from(kinds))](where, pauses))


def _write(_: Where, __: Pauses) -> st.SearchStrategy[list[Json]]:
    key = st.sampled_from(KEYS)
    value = st.integers(0, 9)
    return st.one_of(
        st.builds(lambda k, v: [["put", k, v]], key, value),
        st.builds(lambda k, v: [["put", k, v]], key, value),
        st.builds(lambda k: [["show", "delete", ["delete", k]]], key),
        st.builds(lambda v: [["put", {"k": v, "m": 1}]], value),
        st.builds(lambda k, v: [["put", k, v, {"allowUnconfirmed": True}]], key, value),
    )


def _read(_: Where, __: Pauses) -> st.SearchStrategy[list[Json]]:
    return st.one_of(
        st.builds(lambda k: [["show", k, ["get", k]]], st.sampled_from(KEYS)),
        st.just([["show", "list", ["list"]]]),
    )


def _memory(_: Where, __: Pauses) -> st.SearchStrategy[list[Json]]:
    return st.just([["show", "n", ["memIncr", "n"]]])


@st.composite
def _pause(draw: st.DrawFn, _: Where, pauses: Pauses) -> list[Json]:
    pause = pauses.take()
    if pause is None:
        return [["show", "n", ["memIncr", "n"]]]
    return [["sleep", pause], ["log", draw(st.sampled_from(("woke", "went on")))]]


@st.composite
def _alarm(draw: st.DrawFn, _: Where, pauses: Pauses) -> list[Json]:
    what = draw(st.integers(0, 3))
    if what == 0:
        return [["show", "alarm", ["getAlarm"]]]
    if what == 1:
        return [["deleteAlarm"]]
    pause = pauses.take()
    return [["show", "alarm", ["getAlarm"]]] if pause is None else [["setAlarm", pause]]


@st.composite
def _call(draw: st.DrawFn, where: Where, pauses: Pauses) -> list[Json]:
    after = range(where.actor + 1, where.actors)
    if where.free and draw(st.integers(0, 3)) == 0:
        return [["show", "back", ["call", ACTORS[where.actor], "leaf"]]]  # to itself
    if not after:
        return draw(_write(where, pauses))
    actor = ACTORS[draw(st.sampled_from(after))]
    method = draw(st.sampled_from(("leaf", "run"))) if where.free else "leaf"
    return [["show", f"to {actor}", ["call", actor, method]]]


@st.composite
def _together(draw: st.DrawFn, where: Where, pauses: Pauses) -> list[Json]:
    """Two calls on one stub, of which neither waits for the other."""
    after = range(where.actor + 1, where.actors)
    if not after:
        return draw(_write(where, pauses))
    actor = ACTORS[draw(st.sampled_from(after))]
    between = draw(_write(where, pauses))
    return [
        ["stub", "s", actor],
        ["spawn", "one", [["show", "one", ["scall", "s", "leaf"]]]],
        *between,
        ["spawn", "two", [["show", "two", ["scall", "s", "leaf"]]]],
        ["join", "one"],
        ["join", "two"],
        TURN,
    ]


@st.composite
def _block(draw: st.DrawFn, where: Where, pauses: Pauses) -> list[Json]:
    inner = attrs.evolve(where, free=False, deep=where.deep - 1)
    body = draw(_body(inner, pauses, 1, 4))
    if draw(st.integers(0, 7)) == 0:
        body = [*body, ["throw", "section failed"]]
    block: Json = ["block", [["log", "section"], *body, ["log", "section ends"]]]
    return [["show", "block", block]]


@st.composite
def _txn(draw: st.DrawFn, where: Where, pauses: Pauses) -> list[Json]:
    inner = attrs.evolve(where, free=False, handle=True, calls=False, deep=where.deep - 1)
    body = draw(_body(inner, pauses, 1, 4))
    if draw(st.integers(0, 4)) == 0:
        body = [*body, ["throw", "undone"]]
    return [["show", "txn", ["txn", body]], *draw(_read(where, pauses))]


@st.composite
def _txn_sync(draw: st.DrawFn, where: Where, pauses: Pauses) -> list[Json]:
    body = [["kvPut", draw(st.sampled_from(KEYS)), draw(st.integers(0, 9))], ["show", "in sync", ["kvGet", "k"]]]
    if draw(st.integers(0, 3)) == 0:
        body.append(["throw", "undone"])
    return [["show", "txnSync", ["txnSync", body]], *draw(_read(where, pauses))]


@st.composite
def _nested(draw: st.DrawFn, where: Where, pauses: Pauses) -> list[Json]:
    body = [["kvPut", draw(st.sampled_from(KEYS)), draw(st.integers(0, 9))]]
    if draw(st.booleans()):
        body.append(["throw", "inner undone"])
    return [["show", "txnSync", ["txnSync", body]], *draw(_read(where, pauses))]


def _rollback(_: Where, __: Pauses) -> st.SearchStrategy[list[Json]]:
    return st.just([["show", "rollback", ["rollback"]]])


@st.composite
def _try(draw: st.DrawFn, where: Where, pauses: Pauses) -> list[Json]:
    body = draw(_body(attrs.evolve(where, deep=where.deep - 1), pauses, 1, 2))
    return [["try", [*body, ["throw", "caught here"]]]]


@st.composite
def _timer(draw: st.DrawFn, where: Where, pauses: Pauses) -> list[Json]:
    pause = pauses.take()
    if pause is None:
        return [["show", "n", ["memIncr", "n"]]]
    body = draw(_body(attrs.evolve(where, free=False, calls=False, deep=0), pauses, 1, 2))
    wait = [["wait", "latch"], TURN, ["log", "signalled"]] if draw(st.booleans()) and where.free else []
    return [["timer", pause, [["signal", "latch"], ["log", "timer"], *body]], *wait]


@st.composite
def _spawn(draw: st.DrawFn, where: Where, pauses: Pauses) -> list[Json]:
    pause = pauses.take()
    if pause is None:
        return [["show", "n", ["memIncr", "n"]]]
    # Without a wait of its own its order would be that of JavaScript's microtasks.
    body = draw(_body(attrs.evolve(where, deep=0), pauses, 1, 2))
    between = draw(_body(attrs.evolve(where, deep=0), pauses, 0, 2))
    name = f"t{pause}"
    return [["spawn", name, [["log", "task"], ["sleep", pause], *body]], *between, ["join", name], TURN]


def _sockets(_: Where, __: Pauses) -> st.SearchStrategy[list[Json]]:
    return st.sampled_from(
        (
            [["show", "sockets", ["wsCount"]]],
            [["wsSend", "all", "to all"]],
            [["put", "k", 5], ["wsSend", "all", "after a put"]],
            [["wsClose", "all", 4001, "closed"]],
        )
    )


_OPERATIONS = {
    "write": _write,
    "read": _read,
    "memory": _memory,
    "pause": _pause,
    "alarm": _alarm,
    "call": _call,
    "together": _together,
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


# ── what a program is made of ──


def operations(program: Json) -> Iterator[str]:
    """The name of every operation of a program, wherever it stands, and of what the outside world does to its actors.

    Without what all programs have: the pauses between steps, and the look at what is stored.
    """
    if isinstance(program, dict) and "steps" in program:
        yield from operations([program["actors"], *(step for step in program["steps"] if step != GAP)])
    elif isinstance(program, dict):
        for name, value in program.items():
            if name != "look":
                yield from operations(value)
    elif isinstance(program, list):
        if program and isinstance(program[0], str):
            yield program[0]
        for item in program:
            yield from operations(item)


def overlapping(program: Json) -> int:
    """The most events that the outside world starts without waiting for one of them."""
    most = now = 0
    for name, *_ in program["steps"]:
        if name in {"driveBg", "wsSend"}:
            now += 1
        elif name in {"joinBg", "drive", "evict"}:
            now = 0
        most = max(most, now)
    return most


@attrs.define
class Tally:
    """What the programs of a run had in them."""

    programs: int = 0
    overlapping: int = 0
    kinds: Counter[str] = attrs.field(factory=Counter)

    def add(self, program: Json) -> None:
        """Count one program."""
        names = set(operations(program))
        self.programs += 1
        self.overlapping += overlapping(program) >= OVERLAPPING
        self.kinds.update(kind for kind, those in KINDS.items() if names & those)

    def lacking(self) -> list[str]:
        """What there was too little of: half with overlapping events, and a tenth of each kind."""
        found = [kind for kind in KINDS if self.kinds[kind] * 10 < self.programs]
        return found + ([f"{OVERLAPPING} overlapping events"] if self.overlapping * 2 < self.programs else [])

    def __str__(self) -> str:
        shares = {f"{OVERLAPPING}+ overlapping": self.overlapping} | {kind: self.kinds[kind] for kind in KINDS}
        return ", ".join(f"{name} {100 * count // max(self.programs, 1)} %" for name, count in shares.items())
