"""Why a filter lets a signal pass or does not: each of its conditions with what it says, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from actors.filters import Filter
from actors.filters.patterns import compile_patterns
from actors.filters.where import MISSING, Tree, compile_pointer, compile_where

SHOWN_CHARACTERS = 80  # of a value
_WORDS = {
    "eq": "=",
    "ne": "!=",
    "in": "in",
    "nin": "not in",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
    "prefix": "begins with",
    "suffix": "ends with",
    "contains": "contains",
}


@attrs.frozen
class Verdict:
    """What one condition says of a signal.

    Attributes:
        node: the condition in words; of several at once `and`, `or` or `not`. why: the reason in words.
    """

    node: str
    matches: bool
    why: str
    children: tuple[Verdict, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        children = [child.to_json() for child in self.children]
        return {"node": self.node, "matches": self.matches, "why": self.why, "children": children}


def explain(filter_: Filter, signal: Mapping[str, Any]) -> Verdict:
    """What a filter says of a signal (its parsed JSON), as `Filter.matches` does, with what each condition says."""
    tree = json.loads(filter_.canonical)
    parts = [
        _patterns(key, tree[key], signal[name])
        for key, name in (("types", "type"), ("entities", "entity"))
        if key in tree
    ]
    if "where" in tree:
        conditions = tree["where"].get("all", [tree["where"]])
        parts += [_condition(one, signal) for one in conditions]
    if not parts:
        return Verdict("everything", True, "it has no condition")
    return parts[0] if len(parts) == 1 else _all(parts)


def in_words(canonical: str) -> str:
    """A canonical filter as one line."""
    tree = json.loads(canonical)
    parts = [f"{key} {', '.join(tree[key])}" for key in ("types", "entities") if key in tree]
    if "where" in tree:
        parts.append(_words(tree["where"], within="all"))
    return " and ".join(parts) or "everything"


def _words(tree: Tree, within: str = "") -> str:
    for joint, word in (("all", " and "), ("any", " or ")):
        if joint in tree:
            text = word.join(_words(child, joint) for child in tree[joint])
            return text if joint == within else f"({text})"
    return f"not {_words(tree['not'], 'not')}" if "not" in tree else _leaf(tree)


def _leaf(tree: Tree) -> str:
    pointer = tree["f"] or "the signal"
    return f"{pointer} exists" if tree["op"] == "exists" else f"{pointer} {_WORDS[tree['op']]} {_shown(tree['v'])}"


def _patterns(key: str, patterns: list[str], name: str) -> Verdict:
    test = compile_patterns(patterns)
    hits = [one for one in patterns if (passes := compile_patterns([one.removeprefix("!")])) is None or passes(name)]
    excluded = [one for one in hits if one.startswith("!")]
    if excluded:
        why = f"{name} is excluded by {excluded[0]}"
    elif hits:
        why = f"{name} is one of {hits[0]}"
    elif all(one.startswith("!") for one in patterns):
        why = f"{name} is not excluded"
    else:
        why = f"{name} is none of them"
    return Verdict(f"{key} {', '.join(patterns)}", test is None or bool(test(name)), why)


def _condition(tree: Tree, signal: Mapping[str, Any]) -> Verdict:
    if "all" in tree:
        return _all([_condition(child, signal) for child in tree["all"]])
    if "any" in tree:
        children = [_condition(child, signal) for child in tree["any"]]
        yes = sum(child.matches for child in children)
        return Verdict("or", yes > 0, f"{yes} of {len(children)} say yes", tuple(children))
    if "not" in tree:
        child = _condition(tree["not"], signal)
        return Verdict("not", not child.matches, f"it says {_yes_or_no(child.matches)}", (child,))
    value = compile_pointer(tree["f"])(signal)
    why = "it is not there" if value is MISSING else f"it is {_shown(value)}"
    return Verdict(_leaf(tree), compile_where(tree)(signal), why)


def _all(children: Sequence[Verdict]) -> Verdict:
    no = sum(not child.matches for child in children)
    why = f"{no} of {len(children)} say no" if no else f"all {len(children)} say yes"
    return Verdict("and", not no, why, tuple(children))


def _yes_or_no(said: bool) -> str:
    return "yes" if said else "no"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
