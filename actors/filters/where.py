"""The `where` tree: checked, brought to canonical form, and compiled to a closure (Centrifugo's FilterNode).

There is no expression text, so nothing can be injected and nothing backtracks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any, cast

import attrs

from actors.filters.invalid import CHILDREN, DEPTH, MEMBERS, NODES, InvalidFilter, check_size
from actors.protocol import ijson

Tree = dict[str, Any]
Test = Callable[[Mapping[str, Any]], bool]
Read = Callable[[Mapping[str, Any]], Any]

MISSING = object()
_ORDER = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
OPERATORS = (
    "eq",
    "ne",
    "in",
    "nin",
    "gt",
    "gte",
    "lt",
    "lte",
    "exists",
    "prefix",
    "suffix",
    "contains",
)
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")
_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")


def canonical_where(value: object) -> Tree:
    """The checked tree: equal `all`/`any` flattened, single children unwrapped, children sorted and unique.

    Flattening may join more children than the limits allow a client to send.

    Raises: InvalidFilter.
    """
    return _Checker().node(value, "/where", 1)


def compile_where(tree: Tree) -> Test:
    """A test of a signal's parsed JSON, from a canonical tree."""
    if "all" in tree:
        return _compile_all([compile_where(child) for child in tree["all"]])
    if "any" in tree:
        return _compile_any([compile_where(child) for child in tree["any"]])
    if "not" in tree:
        inner = compile_where(tree["not"])
        return lambda signal: not inner(signal)
    return _compile_leaf(compile_pointer(tree["f"]), tree["op"], tree.get("v"))


def equal(x: object, v: object) -> bool:
    """Equality of JSON values: the types must be equal, 1 equals 1.0, true does not equal 1."""
    if isinstance(x, bool) or isinstance(v, bool):
        return x is v
    if isinstance(x, int | float):
        return isinstance(v, int | float) and x == v
    if isinstance(x, list):
        return (
            isinstance(v, list) and len(x) == len(v) and all(equal(one, other) for one, other in zip(x, v, strict=True))
        )
    if isinstance(x, dict):
        return isinstance(v, dict) and x.keys() == v.keys() and all(equal(x[key], v[key]) for key in x)
    return x == v  # strings, and null, which Python's None equals alone


@attrs.define(eq=False)
class _Checker:
    """One pass over a tree: it counts nodes and hands back the canonical form."""

    nodes: int = 0

    def node(self, value: object, at: str, depth: int) -> Tree:
        if not isinstance(value, dict):
            raise InvalidFilter("a condition is an object: all, any, not, or f with op and v", at=at)
        tree = cast("Tree", value)
        self.nodes += 1
        if self.nodes > NODES:
            raise InvalidFilter(f"more than {NODES} nodes", at=at)
        if depth > DEPTH:
            raise InvalidFilter(f"nested deeper than {DEPTH}", at=at)
        for joint in ("all", "any"):
            if joint in tree:
                _only(tree, (joint,), at)
                return self._joined(joint, tree[joint], f"{at}/{joint}", depth)
        if "not" in tree:
            _only(tree, ("not",), at)
            return {"not": self.node(tree["not"], f"{at}/not", depth + 1)}
        return _leaf(tree, at)

    def _joined(self, joint: str, value: object, at: str, depth: int) -> Tree:
        children = cast("list[object]", list(value)) if isinstance(value, list | tuple) else None
        if children is None or not children or len(children) > CHILDREN:
            seen = "not an array" if children is None else f"{len(children)} children"
            raise InvalidFilter(f"{seen}; {joint} is an array of 1–{CHILDREN} conditions", at=at)
        unique: dict[str, Tree] = {}
        for index, child in enumerate(children):
            tree = self.node(child, f"{at}/{index}", depth + 1)
            for part in tree.get(joint, [tree]):
                unique[ijson.canonical(part)] = part
        ordered = [unique[text] for text in sorted(unique)]
        return ordered[0] if len(ordered) == 1 else {joint: ordered}


def _only(tree: Tree, allowed: tuple[str, ...], at: str) -> None:
    for key in tree:
        if key not in allowed:
            raise InvalidFilter(f"key {key!r} beside {allowed[0]!r}; allowed here: {', '.join(allowed)}", at=at)


def _leaf(tree: Tree, at: str) -> Tree:
    for required in ("f", "op"):
        if required not in tree:
            raise InvalidFilter(f"{required!r} is missing; a condition is all, any, not, or f with op and v", at=at)
    pointer, operator = tree["f"], tree["op"]
    if not isinstance(pointer, str) or _POINTER.fullmatch(pointer) is None:
        raise InvalidFilter(f"{pointer!r} is no JSON Pointer, such as /data/price", at=f"{at}/f")
    check_size(pointer, f"{at}/f")
    _check_value(pointer, f"{at}/f")
    if operator not in OPERATORS:
        raise InvalidFilter(f"unknown operator {operator!r}; known: {', '.join(OPERATORS)}", at=f"{at}/op")
    if operator == "exists":
        _only(tree, ("f", "op"), at)
        return {"f": pointer, "op": operator}
    _only(tree, ("f", "op", "v"), at)
    if "v" not in tree:
        raise InvalidFilter(f"'v' is missing; {operator} compares with it", at=at)
    operand = _json(tree["v"])
    if operator in ("in", "nin"):
        _check_members(operand, operator, f"{at}/v")
    _check_value(operand, f"{at}/v")
    return {"f": pointer, "op": operator, "v": operand}


def _check_members(operand: object, operator: str, at: str) -> None:
    if not isinstance(operand, list) or not 1 <= len(operand) <= MEMBERS:
        seen = f"{len(operand)} members" if isinstance(operand, list) else "no array"
        raise InvalidFilter(f"{seen}; {operator} takes an array of 1–{MEMBERS} scalars", at=at)
    for index, member in enumerate(operand):
        if isinstance(member, list | dict):
            raise InvalidFilter(f"{operator} compares with scalars", at=f"{at}/{index}")


def _json(value: object) -> object:
    """Tuples as lists, so that a tree written in Python compares as JSON does."""
    if isinstance(value, list | tuple):
        return [_json(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: _json(item) for key, item in cast("dict[str, object]", value).items()}
    return value


def _check_value(value: object, at: str) -> None:
    try:
        ijson.check(value)
    except ijson.InvalidJson as error:
        raise InvalidFilter(str(error), at=at) from None
    _check_parts(value, at)


def _check_parts(value: object, at: str) -> None:
    if isinstance(value, str):
        check_size(value, at)
    elif isinstance(value, float) and abs(value) > ijson.INTEGER_MAX:
        # RFC 8785 writes 1e20 as an integer, which I-JSON then refuses: the canonical form could not be read back.
        raise InvalidFilter(f"number {value} is beyond ±(2^53−1)", at=at)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_parts(item, f"{at}/{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_size(key, at)
            _check_parts(item, f"{at}/{key.replace('~', '~0').replace('/', '~1')}")


def _compile_all(tests: list[Test]) -> Test:
    def test(signal: Mapping[str, Any]) -> bool:
        for one in tests:  # noqa: SIM110 - a loop is faster than all() over a generator, and this runs per signal
            if not one(signal):
                return False
        return True

    return test


def _compile_any(tests: list[Test]) -> Test:
    def test(signal: Mapping[str, Any]) -> bool:
        for one in tests:  # noqa: SIM110 - as above
            if one(signal):
                return True
        return False

    return test


def compile_pointer(pointer: str) -> Read:
    """A reader of the value at a JSON Pointer (RFC 6901), or `MISSING`."""
    tokens = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
    steps = [(token, int(token) if _INDEX.fullmatch(token) else -1) for token in tokens]

    def read(signal: Mapping[str, Any]) -> Any:
        value: Any = signal
        for key, index in steps:
            if isinstance(value, dict):
                if key not in value:
                    return MISSING
                value = value[key]
            elif isinstance(value, list) and 0 <= index < len(value):
                value = value[index]
            else:
                return MISSING
        return value

    return read


def _compile_leaf(read: Read, operator: str, v: Any) -> Test:
    match operator:
        case "eq":
            return lambda signal: (x := read(signal)) is not MISSING and equal(x, v)
        case "ne":
            return lambda signal: (x := read(signal)) is MISSING or not equal(x, v)
        case "in":
            return lambda signal: (x := read(signal)) is not MISSING and any(equal(x, member) for member in v)
        case "nin":
            return lambda signal: (x := read(signal)) is MISSING or not any(equal(x, member) for member in v)
        case "exists":
            return lambda signal: read(signal) is not MISSING
        case "gt" | "gte" | "lt" | "lte":
            compare = _ORDER[operator]
            return _never if not _is_number(v) else lambda signal: _is_number(x := read(signal)) and compare(x, v)
        case "prefix" | "suffix" if not isinstance(v, str):
            return _never
        case "prefix":
            return lambda signal: isinstance(x := read(signal), str) and x.startswith(v)
        case "suffix":
            return lambda signal: isinstance(x := read(signal), str) and x.endswith(v)
        case _:
            assert operator == "contains", operator
            return lambda signal: _contains(read(signal), v)


def _contains(x: object, v: object) -> bool:
    if isinstance(x, str):
        return isinstance(v, str) and v in x
    return isinstance(x, list) and any(equal(item, v) for item in x)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _never(signal: Mapping[str, Any]) -> bool:
    return False
