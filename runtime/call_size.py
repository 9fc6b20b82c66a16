"""How much a call may carry: 32 MiB encoded, of its arguments or of its result.

Values are not encoded on their way between two actors, and frozen ones are not even copied, so a size is first
estimated from above, from the lengths of texts and bytes. Only what may be over the bound is encoded to be measured.
(Durable Objects: the limit of serialized RPC arguments and return values.)
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any

from runtime import codec, limits
from runtime.errors import LimitExceeded

SMALL = frozenset({int, float, bool, type(None), datetime})
"""Classes whose values count for next to nothing; ask before `check_call_size`, which costs a call."""

_PART = 64  # bytes: more than a number, a time or the header of anything takes
_LETTER = 4  # bytes of UTF-8 for one character, at most


def check_call_size(value: Any) -> None:
    """Refuse arguments or a result over 32 MiB; a copy, so that it is known to be a tree.

    Raises:
        LimitExceeded: with the encoded size.
    """
    if value.__class__ in SMALL or _at_most(value, _LETTER) <= limits.RPC_BYTES:
        return
    try:
        size = len(codec.encode(value))
    except TypeError:  # references are in it, which count for nothing
        size = _at_most(value, 1)
    if size > limits.RPC_BYTES:
        raise LimitExceeded(
            "Serialized RPC arguments or return values are limited to 32MiB, "
            f"but the size of this value was: {size} bytes.",
            limit=limits.RPC_BYTES,
            actual=size,
        )


def _at_most(value: Any, letter: int) -> int:
    """The bytes of an encoded value, estimated from above if a letter takes no more than given."""
    total = 0
    parts = [value]
    for part in parts:
        total += _PART
        cls = part.__class__
        if cls is str:
            total += letter * len(part)
        elif cls is bytes or cls is bytearray:
            total += len(part)
        elif cls is tuple or cls is list or cls is set or cls is frozenset:
            parts += part
        elif cls is dict:
            parts += part
            parts += part.values()
        elif cls not in SMALL and not isinstance(part, Enum) and not getattr(cls, "passes_by_reference", False):
            for name in codec.field_names(cls):
                total += len(name)
                parts.append(getattr(part, name))
    return total
