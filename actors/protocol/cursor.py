"""Where a subscription begins: the cursor `<epoch>:<offset>`, and the other values of `from`."""

from __future__ import annotations

import re
from typing import Literal

import attrs

from actors.protocol.ijson import INTEGER_MAX

_EPOCH = re.compile(r"[A-Za-z0-9_-]{1,32}")
_CURSOR = re.compile(r"([A-Za-z0-9_-]{1,32}):(0|[1-9][0-9]{0,15})")


class InvalidCursor(ValueError):
    """The text is no cursor."""


def check_epoch(text: str) -> str:
    """The text itself when it is an epoch: 1–32 of `A-Za-z0-9_-`.

    Raises: InvalidCursor.
    """
    if _EPOCH.fullmatch(text) is None:
        raise InvalidCursor(f"epoch {text[:64]!r} is not 1–32 of A-Z a-z 0-9 _ -")
    return text


@attrs.frozen
class Cursor:
    """Everything that matches up to and including `offset` is there; offset 0 is before the first signal.

    It is only meaningful for the filter it was earned with. `str(cursor)` is its text in storage, URLs, logs.
    """

    epoch: str
    offset: int

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read `<epoch>:<offset>`. Raises: InvalidCursor."""
        found = _CURSOR.fullmatch(text)
        if found is None or (offset := int(found[2])) > INTEGER_MAX:
            raise InvalidCursor(f"cursor {text[:64]!r} is not <epoch>:<offset>, such as k3F9:1041")
        return cls(found[1], offset)

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"


@attrs.frozen
class Last:
    """The newest `count` matching signals, then what follows."""

    count: int


@attrs.frozen
class Ago:
    """The matching signals of the last `ms` milliseconds, by the server's clock, then what follows."""

    ms: int


Since = Literal["now", "earliest", "snapshot"] | Last | Ago | Cursor
