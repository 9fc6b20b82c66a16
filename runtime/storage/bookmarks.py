"""Bookmarks: points of a store's history as texts that compare in the order of the commits.

A bookmark has the form of Durable Objects': 8, 8, 8 and 32 hex digits. The first 16 are the point's number, the next 8
are zero, and the last are the lineage of the data, because points of another copy of the data have the same numbers and
other contents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from runtime.errors import InvalidBookmark

HISTORY_S = 30 * 86_400.0  # Durable Objects: any point of the last 30 days
HISTORY_BYTES = 1 << 30

NO_HISTORY = "the actor's class kept no history then (history = False)"

_TEXT = re.compile(r"([0-9a-f]{8})-([0-9a-f]{8})-0{8}-(.+)")


@attrs.frozen
class Retention:
    """How much history is kept: both bounds hold, the oldest goes first.

    Attributes:
        age_s: seconds. total_bytes: of the old keys and values of all actors, 20 more for each.
    """

    age_s: float = HISTORY_S
    total_bytes: int = HISTORY_BYTES

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self.age_s > 0 and self.total_bytes > 0


def point_text(point: int) -> str:
    """A point as bookmarks begin."""
    return f"{point >> 32:08x}-{point & 0xFFFF_FFFF:08x}"


def bookmark_text(point: int, lineage: str) -> str:
    """The bookmark of a point."""
    return f"{point_text(point)}-00000000-{lineage}"


def bookmark_point(text: str, lineage: str, ancestors: Mapping[str, int]) -> int:
    """The point of a bookmark.

    Args:
        text: the bookmark.
        lineage: of the data.
        ancestors: of what the data is a copy: by lineage, the newest point that bookmarks of it may have.

    Raises:
        InvalidBookmark: it is no bookmark, or one of other data.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise InvalidBookmark(
            f"{text!r:.80} is no bookmark: it must be 8, 8 and 8 hex digits and the lineage of the data, with hyphens"
        )
    point = int(match[1] + match[2], 16)
    if match[3] != lineage and point > ancestors.get(match[3], -1):
        raise InvalidBookmark(
            f"bookmark {text!r:.80} is of other data, or from after the backup was made that is in place; "
            f"here bookmarks end in {lineage}"
        )
    return point


def check_point(point: int, *, oldest: int, newest: int) -> None:
    """Refuse a point that is not, or not any more, in the history.

    Raises:
        InvalidBookmark: it is too old, or was never reached.
    """
    if point > newest:
        raise InvalidBookmark(f"bookmark {point_text(point)} is unknown: the newest is {point_text(newest)}")
    if point < oldest:
        raise InvalidBookmark(
            f"bookmark {point_text(point)} is too old: the history that is kept begins at {point_text(oldest)} "
            "(server.history_days, server.history_bytes)"
        )
