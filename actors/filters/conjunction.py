"""Two filters at once as one filter: what somebody wants, and what they may have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from actors.filters import Filter
from actors.filters.invalid import CANONICAL_BYTES, DEPTH, NODES, PATTERNS, InvalidFilter
from actors.protocol import ijson

_NAME_BYTES = 128
_KEPT = 256

Tree = dict[str, Any]


@lru_cache(maxsize=_KEPT)
def conjunction(wanted: str, allowed: str) -> Filter | None:
    """What both canonical filters let pass; None when their names have nothing in common.

    The patterns of one are intersected with those of the other, so nothing but patterns is left, and a filter that is
    within the other one stays what it is but for patterns that others of it cover.

    Raises: InvalidFilter, when the two together are over a limit of the language.
    """
    one, other = json.loads(wanted), json.loads(allowed)
    tree: Tree = {}
    for key in ("types", "entities"):
        patterns = _patterns(one.get(key, []), other.get(key, []), f"/{key}")
        if patterns is None:
            return None
        if patterns:
            tree[key] = patterns
    conditions = [part["where"] for part in (one, other) if "where" in part]
    if conditions:
        tree["where"] = _all(conditions)
    text = ijson.canonical(tree)
    if len(text.encode()) > CANONICAL_BYTES:
        raise InvalidFilter(f"canonical form of {len(text.encode()):,} bytes; at most {CANONICAL_BYTES:,}", at="")
    return Filter.from_canonical(text)


def _patterns(one: list[str], other: list[str], at: str) -> list[str] | None:
    """Patterns for the names that both let pass; empty when that is any name, None when it is none."""
    # Without a positive pattern any name passes that is not excluded.
    positive = [[p for p in patterns if not p.startswith("!")] or [">"] for patterns in (one, other)]
    excluded = {pattern for pattern in (*one, *other) if pattern.startswith("!")}
    common = set(_intersections(positive[0], positive[1], at))
    common = {p for p in common if not any(p != q and _covers(q, p) for q in common)}
    common = {p for p in common if not any(_covers(q[1:], p) for q in excluded)}
    if not common:
        return None
    found = {q for q in excluded if any(_intersection(q[1:], p) for p in common)} | (common - {">"})
    if len(found) > PATTERNS:
        raise InvalidFilter(f"{len(found)} patterns; at most {PATTERNS}", at=at)
    return sorted(found)


def _intersections(one: list[str], other: list[str], at: str) -> Iterator[str]:
    for p in one:
        for q in other:
            both = _intersection(p, q)
            if both is None or len(both.replace("*", "")) > _NAME_BYTES:
                continue  # no name is both, or so long
            if len(both) > _NAME_BYTES:
                raise InvalidFilter(f"{p!r} and {q!r} at once are a pattern of {len(both)} characters", at=at)
            yield both


def _intersection(p: str, q: str) -> str | None:
    """The pattern of the names that both patterns let pass; there is always one, unless there are none such."""
    tokens = _tokens(p.split("."), q.split("."))
    return None if tokens is None else ".".join(tokens)


def _tokens(p: Sequence[str], q: Sequence[str]) -> list[str] | None:
    both: list[str] = []
    for position in range(max(len(p), len(q))):
        rest = p[position:], q[position:]
        if not all(rest):
            return None
        for mine, theirs in (rest, rest[::-1]):
            if mine == [">"]:
                return [*both, *theirs]
        token = _token(p[position], q[position])
        if token is None:
            return None
        both.append(token)
    return both


def _token(x: str, y: str) -> str | None:
    for one, other in ((x, y), (y, x)):
        if one in {"*", other} or (one.endswith("*") and other != "*" and other.startswith(one[:-1])):
            return other
    return None


def _covers(p: str, q: str) -> bool:
    """Whether `p` lets everything pass that `q` does."""
    return _intersection(p, q) == q


def _all(conditions: list[Tree]) -> Tree:
    parts = [part for condition in conditions for part in condition.get("all", [condition])]
    unique = {ijson.canonical(part): part for part in parts}
    ordered = [unique[text] for text in sorted(unique)]
    tree: Tree = ordered[0] if len(ordered) == 1 else {"all": ordered}
    nodes, depth = _size(tree)
    if nodes > NODES:
        raise InvalidFilter(f"{nodes} nodes; at most {NODES}", at="/where")
    if depth > DEPTH:
        raise InvalidFilter(f"nested {depth} deep; at most {DEPTH}", at="/where")
    return tree


def _size(tree: Tree) -> tuple[int, int]:
    """How many nodes a condition has, and how deep it is."""
    children = tree.get("all") or tree.get("any") or ([tree["not"]] if "not" in tree else [])
    sizes = [_size(child) for child in children]
    return 1 + sum(nodes for nodes, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
