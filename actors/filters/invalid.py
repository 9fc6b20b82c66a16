"""What is refused in a filter, and the limits of the language."""

from __future__ import annotations

NODES = 64
DEPTH = 6
CHILDREN = 16
PATTERNS = 32
MEMBERS = 256
STRING_BYTES = 256
CANONICAL_BYTES = 8_192


class InvalidFilter(ValueError):
    """The value is no filter, or is over a limit of the language.

    Attributes:
        at: JSON Pointer to the offending part of the filter.
    """

    def __init__(self, message: str, *, at: str) -> None:
        super().__init__(message)
        self.at = at


def check_size(text: str, at: str) -> None:
    """Refuse a string of more than 256 bytes. Raises: InvalidFilter."""
    size = len(text.encode(errors="replace"))
    if size > STRING_BYTES:
        raise InvalidFilter(f"string of {size:,} bytes; at most {STRING_BYTES}", at=at)
