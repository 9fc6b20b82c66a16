"""Makes a program that differs smaller, as long as it differs: without parts of it, many such programs at a time.

A run is nearly all waiting, so that forty programs take no longer than one. What is smaller than a program is found
in its text: without a part of a body, or with the body of a block, transaction or task in place of it. What then has
nothing to refer to goes too, and what random programs have between their steps is put back: a smaller program says as
much as a drawn one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import attrs
import trio

from tests.conformance.programs import GAP, GAP_MS, HALF_GAP, TURN, UNIT_MS

Json = Any
AT_ONCE = 40
_WITH_GAP = {"wsSend", "wsClose", "wsDrop", "evict"}
_BODIES = {"block", "txn", "txnSync", "try", "spawn", "timer"}
_PAUSES = {"sleep", "timer", "setAlarm"}


@attrs.frozen
class Edit:
    """One part of a program left out.

    Attributes:
        path: to the list or object it is in.
        start, stop: the items of the list; `start` is the name in an object.
        inner: where in the item the body is that takes its place; empty for nothing.
    """

    path: tuple[Any, ...]
    start: Any
    stop: int = 0
    inner: tuple[int, ...] = ()

    def touches(self, other: Edit) -> bool:
        """Both change the same items, or one changes what is within an item of the other."""
        outer, inner = sorted((self, other), key=lambda one: len(one.path))
        if inner.path[: len(outer.path)] != outer.path:
            return False
        if isinstance(outer.start, str):
            return outer.start == (*inner.path, inner.start)[len(outer.path)]
        if inner.path == outer.path:
            return max(inner.start, outer.start) < min(inner.stop, outer.stop)
        return outer.start <= inner.path[len(outer.path)] < outer.stop

    @property
    def place(self) -> tuple[str, ...]:
        """Edits in the order of their places do not move each other when the last is done first."""
        return tuple(f"{one:06}" if isinstance(one, int) else one for one in (*self.path, self.start))


def without(program: Json, edits: Sequence[Edit]) -> Json:
    """The program without some parts, of which the first counts where two are of the same part."""
    smaller = copy.deepcopy(program)
    chosen: list[Edit] = []
    for edit in edits:
        if not any(edit.touches(other) for other in chosen):
            chosen.append(edit)
    for edit in sorted(chosen, key=lambda one: one.place, reverse=True):
        target = _at(smaller, edit.path)
        if isinstance(target, dict):
            del target[edit.start]
        elif edit.inner:
            target[edit.start : edit.stop] = _at(target[edit.start], edit.inner)
        else:
            del target[edit.start : edit.stop]
    return tidied(smaller)


def edits(program: Json) -> list[Edit]:
    """Every part that could be left out, large ones first."""
    found = list(_edits_of_body(program["steps"], ("steps",)))
    for name, actor in program["actors"].items():
        found += [Edit(("actors", name), key) for key in actor if key != "methods"]
        for key, value in (actor | actor.get("methods", {})).items():
            path = ("actors", name, "methods") if key in actor.get("methods", {}) else ("actors", name)
            if isinstance(value, list):
                found += _edits_of_body(value, (*path, key))
    return found


def _edits_of_body(body: list[Json], path: tuple[int | str, ...]) -> Iterator[Edit]:
    size = len(body)
    while size:
        yield from (Edit(path, at, min(at + size, len(body))) for at in range(0, len(body), size))
        size //= 2
    for index, operation in enumerate(body):
        for inner in _bodies(operation):
            if inner and operation[0] != "driveBg" and operation[0] != "drive":
                yield Edit(path, index, index + 1, inner)
            yield from _edits_of_body(_at(operation, inner), (*path, index, *inner))


def _bodies(operation: Json) -> Iterator[tuple[int, ...]]:
    """Where the bodies of an operation are, looking through what shows its value."""
    for index, item in enumerate(operation):
        if isinstance(item, list) and item and isinstance(item[0], str):
            yield from ((index, *rest) for rest in _bodies(item))
        elif isinstance(item, list):
            yield (index,)


def _at(value: Json, path: Sequence[int | str]) -> Json:
    for step in path:
        value = value[step]
    return value


# ── what remains is a program ──


def tidied(program: Json) -> Json:
    """The same program, if it is one: without what refers to nothing, with the gaps that keep its events apart."""
    text = ""
    while text != json.dumps(program):
        text = json.dumps(program)
        named = set(_named(program))
        actors = {
            name: {key: _actor_part(key, value, named) for key, value in actor.items() if value != []}
            for name, actor in program["actors"].items()
            if name in named
        }
        program = {**program, "actors": actors, "steps": _steps(program["steps"], named)}
    total = sum(_pauses(program["steps"])) + sum(_pauses(program["actors"]))
    return {**program, "settleMs": total + GAP_MS}


def _actor_part(key: str, value: Json, named: set[str]) -> Json:
    if key == "methods":
        return {name: _body(body, named) for name, body in value.items() if name in named}
    return _body(value, named) if isinstance(value, list) else value


def _named(value: Json) -> Iterator[str]:
    """What something refers to or can be referred to: `signal latch`, `spawn t`, the name of an actor or a method."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        if value[0] in {"signal", "spawn", "stub", "wsOpen", "driveBg"}:
            yield f"{value[0]} {value[1]}"
        if value[0] in {"call", "stub", "scall", "wsOpen", "evict"}:
            yield from (item for item in value[1:] if isinstance(item, str))
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _named(item)


_NEEDS = {"wait": "signal", "join": "spawn", "scall": "stub", "joinBg": "driveBg"}
_NEEDS |= dict.fromkeys(("wsSend", "wsClose", "wsDrop"), "wsOpen")


def _refers(operation: Json, named: set[str], *, step: bool = False) -> bool:
    name = operation[0]
    if name == "show":
        return _refers(operation[2], named)
    if name in _NEEDS and (step or not name.startswith("ws")):
        return f"{_NEEDS[name]} {operation[1]}" in named
    return True


def _body(body: Json, named: set[str], *, handle: bool = False) -> list[Json]:
    found: list[Json] = []
    left = [one for one in body if one != TURN and _refers(one, named) and (handle or _bare(one) != "rollback")]
    for operation, following in zip(left, [*left, None][1:], strict=True):
        found.append(_with_bodies(operation, named, handle=handle or _bare(operation) == "txn"))
        if operation[0] == "wait" or (operation[0] == "join" and (following is None or following[0] != "join")):
            found.append(TURN)
    return found


def _bare(operation: Json) -> str:
    name: str = operation[2][0] if operation[0] == "show" else operation[0]
    return name


def _with_bodies(operation: Json, named: set[str], *, handle: bool) -> Json:
    changed = copy.copy(operation)
    for index, item in enumerate(operation):
        if isinstance(item, list) and item and isinstance(item[0], str):
            changed[index] = _with_bodies(item, named, handle=handle)
        elif isinstance(item, list):
            changed[index] = _body(item, named, handle=handle)
    return changed


def _steps(steps: Json, named: set[str]) -> list[Json]:
    found: list[Json] = []
    real = [step for step in steps if step != GAP and _refers(step, named, step=True)]
    for step, following in zip(real, [*real, None][1:], strict=True):
        if step[0] in {"driveBg", "drive"}:
            at = 2 if step[0] == "driveBg" else 1
            calls = [one for one in _body(step[at], named) if one != HALF_GAP]
            spaced = [one for call in calls for one in (call, HALF_GAP)][:-1] if at == 2 else calls
            if not calls:
                continue
            step = [*step[:at], spaced, *step[at + 1 :]]
        found.append(step)
        last_join = step[0] == "joinBg" and (following is None or following[0] != "joinBg")
        if step[0] in _WITH_GAP or last_join:
            found.append(GAP)
    return found


def _pauses(value: Json) -> Iterator[int]:
    if isinstance(value, list) and value and isinstance(value[0], str):
        at = 1 if value[0] in _PAUSES else 3 if value[0] == "driveBg" else len(value)
        yield from (item for item in value[at : at + 1] if item >= UNIT_MS)
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _pauses(item)


# ── the search ──


async def shrunk(
    program: Json, differ: Callable[[Sequence[Json]], Awaitable[Sequence[bool]]], seconds: float
) -> list[Json]:
    """Ever smaller programs that differ, the smallest last; the first is the one given.

    Args:
        program: one that differs.
        differ: which of several programs do.
        seconds: when to stop, however small it is by then.
    """
    found, tried = [program], {json.dumps(program)}

    async def those_that_differ(candidates: Sequence[Json]) -> list[bool]:
        tried.update(map(json.dumps, candidates))
        return list(await differ(candidates))

    with trio.move_on_after(seconds):
        while some := _untried(found[-1], tried):
            differing = await those_that_differ([one for _, one in some])
            good = [(edit, one) for (edit, one), does in zip(some, differing, strict=True) if does]
            if not good:
                continue
            smallest = min((one for _, one in good), key=_size)
            half = len(good) // 2
            together = [without(found[-1], [edit for edit, _ in part]) for part in (good, good[:half], good[half:])]
            found.append(smallest)
            together = [one for one in together if _size(one) < _size(smallest) and json.dumps(one) not in tried]
            differing = await those_that_differ(together)
            found += sorted((one for one, does in zip(together, differing, strict=True) if does), key=_size)[:1]
    return found


def _untried(program: Json, tried: set[str]) -> list[tuple[Edit, Json]]:
    found: dict[str, tuple[Edit, Json]] = {}
    for edit in edits(program):
        smaller = without(program, [edit])
        text = json.dumps(smaller)
        if text not in tried and len(text) < _size(program):
            found.setdefault(text, (edit, smaller))
    return [found[text] for text in sorted(found, key=len)[:AT_ONCE]]


def _size(program: Json) -> int:
    return len(json.dumps(program))
