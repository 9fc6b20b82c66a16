"""The filter: which signals a subscriber wants; parsed, canonical, and compiled to a fast test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import attrs

from actors.filters.invalid import CANONICAL_BYTES, InvalidFilter
from actors.filters.patterns import NameTest, canonical_patterns, compile_patterns
from actors.filters.where import Test, canonical_where, compile_where
from actors.protocol import ijson

__all__ = ["Filter", "InvalidFilter"]

_KEYS = ("types", "entities", "where")


@attrs.frozen
class Filter:
    """A compiled filter; two are equal when their canonical forms are.

    It holds closures: what passes between actors and into storage is `canonical` (see `from_canonical`).

    Attributes:
        canonical: the RFC 8785 text; equal text means the same group.
        source: the JSON text as it was given, which a client sends.
        has_where: the names alone do not decide; `matches` needs the signal's parsed JSON.
    """

    canonical: str
    source: str = attrs.field(eq=False, repr=False)
    has_where: bool = attrs.field(eq=False)
    _type_test: NameTest | None = attrs.field(eq=False, repr=False)
    _entity_test: NameTest | None = attrs.field(eq=False, repr=False)
    _where_test: Test | None = attrs.field(eq=False, repr=False)

    @classmethod
    def parse(cls, value: object) -> Filter:
        """Check and compile a filter's parsed JSON; `{}` lets every signal pass.

        An unknown key is refused: to ignore a condition would deliver what was not asked for.

        Raises: InvalidFilter, with `at` = JSON Pointer to the offending part.
        """
        if not isinstance(value, dict):
            raise InvalidFilter("a filter is an object with types, entities and where, each optional", at="")
        parts = cast("dict[str, object]", value)
        for key in parts:
            if key not in _KEYS:
                raise InvalidFilter(f"unknown key {key!r}; a filter has {', '.join(_KEYS)}", at="")
        tree: dict[str, Any] = {}
        types = canonical_patterns(parts["types"], "/types") if "types" in parts else []
        entities = canonical_patterns(parts["entities"], "/entities") if "entities" in parts else []
        if types:
            tree["types"] = types
        if entities:
            tree["entities"] = entities
        if "where" in parts:
            tree["where"] = canonical_where(parts["where"])
        text = ijson.canonical(tree)
        if len(text.encode()) > CANONICAL_BYTES:
            raise InvalidFilter(f"canonical form of {len(text.encode()):,} bytes; at most {CANONICAL_BYTES:,}", at="")
        return cls._compiled(text, ijson.dump(parts), tree)

    @classmethod
    def from_canonical(cls, text: str) -> Filter:
        """The filter whose canonical form this is; it must be one that `parse` made, nothing is checked again."""
        tree = json.loads(text)
        return cls._compiled(text, text, tree)

    @classmethod
    def _compiled(cls, canonical: str, source: str, tree: Mapping[str, Any]) -> Filter:
        return cls(
            canonical,
            source,
            "where" in tree,
            compile_patterns(tree.get("types", [])),
            compile_patterns(tree.get("entities", [])),
            compile_where(tree["where"]) if "where" in tree else None,
        )

    def matches_names(self, type: str, entity: str) -> bool:  # noqa: A002 - the protocol's word
        """Whether `types` and `entities` let a signal of these names pass; `where` is not looked at."""
        return (self._type_test is None or bool(self._type_test(type))) and (
            self._entity_test is None or bool(self._entity_test(entity))
        )

    def matches(self, signal: Mapping[str, Any]) -> bool:
        """Whether the signal (its parsed JSON) passes."""
        return self.matches_names(signal["type"], signal["entity"]) and self.matches_where(signal)

    def matches_where(self, signal: Mapping[str, Any]) -> bool:
        """Whether `where` lets the signal (its parsed JSON) pass; the names are not looked at."""
        return self._where_test is None or self._where_test(signal)
