"""Typed access to the fields of a parsed message; a mistake names the field, what was seen, what is allowed."""

from __future__ import annotations

import re
from typing import cast

import attrs

from actors.protocol.codes import BAD_MESSAGE, ErrorCode
from actors.protocol.ijson import INTEGER_MAX

_KINDS: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}
_SHOWN = 64  # characters of a wrong value that a message repeats


class Refused(ValueError):
    """A message, or a part of one, was not accepted.

    Attributes:
        error: the row of the error table.
        at: JSON Pointer to the offending part.
    """

    def __init__(self, message: str, *, at: str, error: ErrorCode = BAD_MESSAGE) -> None:
        super().__init__(message)
        self.error = error
        self.at = at


@attrs.frozen
class Fields:
    """The fields of one JSON object; every getter raises `Refused`."""

    values: dict[str, object]
    at: str = ""

    @classmethod
    def of(cls, value: object, at: str = "") -> Fields:
        """The fields of a value that must be an object."""
        if not isinstance(value, dict):
            raise Refused(f"{at or 'a message'} is {kind(value)}; it is an object", at=at)
        return cls(cast("dict[str, object]", value), at)

    def has(self, name: str) -> bool:
        """Whether the field is there; null counts as absent, because every optional field means the same then."""
        return self.values.get(name) is not None

    def where(self, name: str) -> str:
        """The JSON Pointer of a field."""
        return f"{self.at}/{name}"

    def required(self, name: str) -> object:
        """The field's value, whatever it is."""
        if name not in self.values:
            raise Refused(f"{name} is missing", at=self.where(name))
        return self.values[name]

    def text(self, name: str, *, length_max: int = 1_000_000, pattern: re.Pattern[str] | None = None) -> str:
        """A string."""
        value = self.required(name)
        if not isinstance(value, str):
            raise Refused(f"{name} is {kind(value)}; it is a string", at=self.where(name))
        if len(value) > length_max:
            raise Refused(f"{name} has {len(value):,} characters; at most {length_max:,}", at=self.where(name))
        if pattern is not None and pattern.fullmatch(value) is None:
            raise Refused(f"{name} is {value[:_SHOWN]!r}; allowed: {pattern.pattern}", at=self.where(name))
        return value

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        """One of a few words."""
        value = self.values.get(name, default)
        if not isinstance(value, str) or value not in allowed:
            seen = repr(value[:_SHOWN]) if isinstance(value, str) else kind(value)
            raise Refused(f"{name} is {seen}; this server knows {', '.join(allowed)}", at=self.where(name))
        return value

    def integer(self, name: str, least: int = 0, most: int = INTEGER_MAX) -> int:
        """An integer within bounds. A number without fraction (`1.0`) is one, as it is in JavaScript."""
        value = self.required(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            seen = str(value) if isinstance(value, int | float) else kind(value)
            raise Refused(f"{name} is {seen}; it is an integer, {least} … {most}", at=self.where(name))
        return value

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self.required(name)
        if not isinstance(value, bool):
            raise Refused(f"{name} is {kind(value)}; it is a boolean", at=self.where(name))
        return value

    def array(self, name: str) -> list[object]:
        """An array."""
        value = self.required(name)
        if not isinstance(value, list):
            raise Refused(f"{name} is {kind(value)}; it is an array", at=self.where(name))
        return cast("list[object]", value)

    def object(self, name: str) -> Fields:
        """An object inside this one."""
        return Fields.of(self.required(name), self.where(name))


def kind(value: object) -> str:
    """The JSON type of a value, for messages."""
    return "null" if value is None else _KINDS.get(type(value), "no JSON value")
