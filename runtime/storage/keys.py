"""Keys as UTF-8 bytes, ranges of them, and the bounds on what one call may carry."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.errors import LimitExceeded
from runtime.limits import StorageLimits

PRIVATE = b"\xff"
"""What keys of the runtime's own begin with: no byte of UTF-8, and after every key of an app."""


def key_bytes(key: object, limits: StorageLimits) -> bytes:
    """A key as stored. Raises: TypeError when it is no text, LimitExceeded when it is too long."""
    if not isinstance(key, str):
        raise TypeError(f"a key is text; got {type(key).__name__} {key!r:.60}")
    data = key.encode("utf-8", "surrogatepass")
    if len(data) > limits.key_bytes:
        raise LimitExceeded(
            f"key is {len(data):,} bytes; at most {limits.key_bytes:,} (limits.KEY_BYTES)",
            limit=limits.key_bytes,
            actual=len(data),
        )
    return data


def keys_bytes(keys: Iterable[object], limits: StorageLimits) -> list[bytes]:
    """The keys of one call as stored. Raises: as `key_bytes`, and LimitExceeded when there are too many."""
    if isinstance(keys, str):
        raise TypeError(f"expected several keys, got the text {keys!r:.60}")
    data = [key_bytes(key, limits) for key in keys]
    if len(data) > limits.keys_per_call:
        raise LimitExceeded(
            f"{len(data):,} keys in one call; at most {limits.keys_per_call:,} (limits.KEYS_PER_CALL)",
            limit=limits.keys_per_call,
            actual=len(data),
        )
    return data


def check_value(key: str, data: bytes, limits: StorageLimits) -> None:
    """Refuse an encoded value that is too large. Raises: LimitExceeded."""
    if len(data) > limits.value_bytes:
        raise LimitExceeded(
            f"value of {key!r:.60} is {len(data):,} bytes; at most {limits.value_bytes:,} (limits.VALUE_BYTES)",
            limit=limits.value_bytes,
            actual=len(data),
        )
    if len(data) + 4 * len(key) > limits.row_bytes and (together := len(data) + len(_bytes(key))) > limits.row_bytes:
        raise LimitExceeded(
            f"value of {key!r:.60} with its key is {together:,} bytes; at most {limits.row_bytes:,} (limits.ROW_BYTES)",
            limit=limits.row_bytes,
            actual=together,
        )


def key_text(data: bytes) -> str:
    """A stored key as the actor wrote it."""
    return data.decode("utf-8", "surrogatepass")


def key_range(start: str | None, start_after: str | None, end: str | None, prefix: str | None) -> tuple[bytes, bytes]:
    """The half-open range of an app's stored keys that all bounds allow.

    Raises:
        TypeError: start and start_after together.
    """
    if start is not None and start_after is not None:
        raise TypeError("list() cannot be called with both start and start_after values.")
    low, high = b"", PRIVATE
    if start is not None:
        low = _bytes(start)
    if start_after is not None:
        low = _bytes(start_after) + b"\0"
    if end is not None:
        high = min(high, _bytes(end))
    if prefix:
        first = _bytes(prefix)
        low = max(low, first)
        high = min(high, first[:-1] + bytes((first[-1] + 1,)))  # UTF-8 never holds 0xFF
    return low, high


def check_list_limit(limit: object) -> None:
    """Refuse a limit that is no positive whole number. Raises: TypeError."""
    if limit is not None and (not isinstance(limit, int) or limit <= 0):
        raise TypeError(f"List limit must be positive; got {limit!r}.")


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")
