"""Bookmarks: points of a store's history as texts that compare in the order of the commits.

A bookmark is the point's number in 16 hex digits, a hyphen, and the lineage of the data, because points of another
copy of the data have the same numbers and other contents.
"""

from __future__ import annotations

import re

import attrs

from runtime.errors import InvalidBookmark

HISTORY_S = 30 * 86_400.0  # Durable Objects: any point of the last 30 days
HISTORY_BYTES = 1 << 30

NO_HISTORY = "the actor's class kept no history then (history = False)"

_TEXT = re.compile(r"([0-9a-f]{16})-(.+)")


@attrs.frozen
class Retention:
    """How much history is kept: both bounds hold, the oldest goes first.

    Attributes:
        age_s: seconds. total_bytes: of the old keys and values of all actors, 20 more for each.
    """

    age_s: float = HISTORY_S
    total_bytes: int = HISTORY_BYTES


def bookmark_text(point: int, lineage: str) -> str:
    """The bookmark of a point."""
    return f"{point:016x}-{lineage}"


def bookmark_point(text: str, lineage: str) -> int:
    """The point of a bookmark.

    Raises:
        InvalidBookmark: it is no bookmark, or one of other data.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise InvalidBookmark(
            f"{text!r:.80} is no bookmark: it must be 16 hex digits, a hyphen, and the lineage of the data"
        )
    if match[2] != lineage:
        raise InvalidBookmark(
            f"bookmark {text!r:.80} is of other data, or from before a backup was put in place; "
            f"here bookmarks end in {lineage}"
        )
    return int(match[1], 16)


def check_point(point: int, *, oldest: int, newest: int) -> None:
    """Refuse a point that is not, or not any more, in the history.

    Raises:
        InvalidBookmark: it is too old, or was never reached.
    """
    if point > newest:
        raise InvalidBookmark(f"bookmark {point:016x} is unknown: the newest is {newest:016x}")
    if point < oldest:
        raise InvalidBookmark(
            f"bookmark {point:016x} is too old: the history that is kept begins at {oldest:016x} "
            "(server.history_days, server.history_bytes)"
        )
