"""Conditions on signals written as Python expressions: `F("/data/pct") >= 2.5` builds the tree of `where`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import attrs

from actors.filters.where import Tree, canonical_where

Scalar = str | int | float | bool | None

_NO_TRUTH = (
    "a condition is for the server and has no truth value here: use & | ~ for and, or, not, and one comparison each"
)


@attrs.frozen(repr=False)
class Condition:
    """What `F` makes: combine it with `&`, `|` and `~`, and give it to `where=`.

    Attributes:
        tree: the JSON tree of `where`.
    """

    tree: Tree

    def __and__(self, other: Condition) -> Condition:
        """Both hold. Raises: InvalidFilter, when that is larger than a filter may be."""
        return _joined("all", self, other)

    def __or__(self, other: Condition) -> Condition:
        """At least one of them holds. Raises: InvalidFilter, as `&`."""
        return _joined("any", self, other)

    def __invert__(self) -> Condition:
        """It does not hold. Raises: InvalidFilter, as `&`."""
        return _checked({"not": self.tree})

    def __bool__(self) -> NoReturn:
        raise TypeError(_NO_TRUTH)

    def __repr__(self) -> str:
        return f"Condition({self.tree!r})"


class F:
    """A place in a signal, to be compared: `F("/data/price") > 100`, `F("/tags/venue").is_in(["X", "Y"])`.

    What the operators mean, above all where there is nothing at that place, is in the protocol's table of filters.

    Args:
        pointer: a JSON Pointer (RFC 6901) into the signal: `/type`, `/entity`, `/ts`, `/data/…`, `/tags/…`.

    Raises: InvalidFilter, here when the text is no pointer, and where a value cannot be compared with.
    """

    __slots__ = ("pointer",)
    __hash__ = None  # type: ignore[assignment]  # `==` builds a condition

    def __init__(self, pointer: str) -> None:
        _checked({"f": pointer, "op": "exists"})
        self.pointer = pointer

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return self._condition("eq", value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return self._condition("ne", value)

    def __gt__(self, value: float) -> Condition:
        return self._condition("gt", value)

    def __ge__(self, value: float) -> Condition:
        return self._condition("gte", value)

    def __lt__(self, value: float) -> Condition:
        return self._condition("lt", value)

    def __le__(self, value: float) -> Condition:
        return self._condition("lte", value)

    def is_in(self, values: Iterable[Scalar]) -> Condition:
        """It is one of these, 1 to 256."""
        return self._condition("in", list(values))

    def not_in(self, values: Iterable[Scalar]) -> Condition:
        """It is none of these, 1 to 256, or is not there."""
        return self._condition("nin", list(values))

    def exists(self) -> Condition:
        """There is something, null too."""
        return _checked({"f": self.pointer, "op": "exists"})

    def prefix(self, text: str) -> Condition:
        """It is a text that begins so."""
        return self._condition("prefix", text)

    def suffix(self, text: str) -> Condition:
        """It is a text that ends so."""
        return self._condition("suffix", text)

    def contains(self, value: Scalar) -> Condition:
        """It is a text with this in it, or an array with this among its members."""
        return self._condition("contains", value)

    def __bool__(self) -> NoReturn:
        raise TypeError(f"F({self.pointer!r}) is only a place; compare it, or ask for .exists()")

    def __repr__(self) -> str:
        return f"F({self.pointer!r})"

    def _condition(self, operator: str, value: Any) -> Condition:
        if isinstance(value, F | Condition):
            raise TypeError(f"{self!r} is compared with a value, not with {value!r}")
        return _checked({"f": self.pointer, "op": operator, "v": value})


def _joined(joint: str, one: Condition, other: Condition) -> Condition:
    """Side by side instead of nested, so that a chain does not use up the levels."""
    if not isinstance(other, Condition):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{other!r} is no condition; put each comparison in parentheses")
    parts: list[Tree] = []
    for condition in (one, other):
        parts += condition.tree.get(joint, [condition.tree])
    return _checked({joint: parts})


def _checked(tree: Tree) -> Condition:
    canonical_where(tree)
    return Condition(tree)
