"""Remembers, inside a cursor, which items of a source that repeats itself were published."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from typing import Self

from actors.ingest.source import InvalidCursor

SEEN_ITEMS = 5_000  # ours: some 54 KB of a stored cursor
_DIGEST_BYTES = 8


class Seen:
    """Digests of item keys, oldest first.

    An item that is still offered must not be forgotten, so whatever is offered again is renewed.
    """

    def __init__(self, digests: Iterable[bytes] = ()) -> None:
        self._digests = dict.fromkeys(digests)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `text` wrote. Raises: InvalidCursor."""
        try:
            raw = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise InvalidCursor(f"published items: {error}") from None
        if len(raw) % _DIGEST_BYTES:
            raise InvalidCursor(f"published items: {len(raw)} bytes")
        return cls(raw[at : at + _DIGEST_BYTES] for at in range(0, len(raw), _DIGEST_BYTES))

    @property
    def text(self) -> str:
        """For a cursor."""
        return base64.b64encode(b"".join(self._digests)).decode()

    def __contains__(self, key: str) -> bool:
        return _digest(key) in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, key: str) -> None:
        """It is offered: keep it as the newest; the oldest of more than 5,000 is forgotten."""
        digest = _digest(key)
        self._digests.pop(digest, None)
        self._digests[digest] = None
        if len(self._digests) > SEEN_ITEMS:
            del self._digests[next(iter(self._digests))]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]
