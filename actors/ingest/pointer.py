"""JSON Pointers (RFC 6901) into what a source offers."""

from __future__ import annotations

import re
from typing import Any, cast

import attrs

_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")


class InvalidPointer(ValueError):
    """The text is no JSON Pointer."""


class NothingThere(LookupError):
    """The document has nothing at the pointer."""


@attrs.frozen
class Pointer:
    """A place in a JSON document; "" is the whole of it."""

    text: str
    tokens: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Pointer:
        """Read it. Raises: InvalidPointer."""
        if _POINTER.fullmatch(text) is None:
            raise InvalidPointer(f'{text!r} is no JSON Pointer; write "" for the whole or "/name/0/name"')
        return cls(text, tuple(token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:]))

    def read(self, document: object) -> Any:
        """What is there. Raises: NothingThere."""
        value = document
        for token in self.tokens:
            if isinstance(value, dict) and token in value:
                value = cast("dict[str, object]", value)[token]
            elif isinstance(value, list) and _INDEX.fullmatch(token) and int(token) < len(cast("list[object]", value)):
                value = cast("list[object]", value)[int(token)]
            else:
                raise NothingThere(f"nothing at {self.text}")
        return value
