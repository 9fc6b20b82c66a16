"""Points in the life of an object's database, kept while it is open: where its log stands, and when it stood where.

A point is a number: the generation of the log in the upper half, the number of the last frame in the lower one. The
generation grows with every use of the log, so that points grow with every commit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence

import attrs

from runtime.errors import InvalidBookmark
from runtime.storage.object_log import Mark, read_salts

INTERVAL_S = 1.0  # between points that nobody asked for
LOGS_MOST = 1 << 20  # more than one opening of a database begins


@attrs.define(eq=False)
class Points:
    """Told of every commit, on the loop.

    Attributes:
        marks: one for every second with commits, and one wherever somebody asked; what is in the archive is forgotten.
        asked: somebody asked for a bookmark. opened_s: when the database was opened.
    """

    _log: int
    _now: Callable[[], float]
    _generation: int
    _frame: int
    _time_s: float
    _salts: bytes = b""
    marks: deque[Mark] = attrs.field(factory=deque)
    asked: bool = False
    opened_s: float = 0.0
    _marked_s: float = float("-inf")

    def __attrs_post_init__(self) -> None:
        self._salts = read_salts(self._log)
        self.opened_s = max(self._time_s, self._now())

    @property
    def newest(self) -> int:
        """The point after the last commit."""
        return self._generation << 32 | self._frame

    @property
    def generation(self) -> int:
        """Of the log."""
        return self._generation

    def committed(self, frames: int) -> None:
        """There was a commit, and the log has so many frames now."""
        salts = read_salts(self._log)
        if salts != self._salts:  # it began anew: all of it was in the database
            self._salts = salts
            self._generation += 1
            self._frame = 0
            self.divide()
        before, self._frame = self.newest, frames
        time_s = max(self._time_s, self._now())
        if time_s >= self._marked_s + INTERVAL_S:
            self._mark(before, time_s)
            self._marked_s = time_s

    def ask(self) -> int:
        """Make now a point of the history."""
        self.asked = True
        self._mark(self.newest, max(self._time_s, self._now()))
        self.divide()
        return self.newest

    def divide(self) -> None:
        """Let the next commit begin another stretch of the history."""
        self._marked_s = float("-inf")

    def forget(self, upto: int) -> None:
        """The archive has what was before a point."""
        while self.marks and self.marks[0].point < upto:
            self.marks.popleft()

    def _mark(self, point: int, time_s: float) -> None:
        if len(self.marks) > 1 and self.marks[-2].point == point:
            self.marks.pop()  # when it was first asked for is known, and that nothing came until now
        self.marks.append(Mark(point, time_s))
        self._time_s = time_s


def point_at(marks: Sequence[Mark], newest: int, time_s: float) -> int:
    """The newest point that has nothing from after a time; one second may be missing.

    Args:
        marks: in order. newest: the point after the last commit.

    Raises:
        InvalidBookmark: the history begins later.
    """
    place = bisect_right(marks, time_s, key=lambda mark: mark.time_s) - 1
    if place < 0:
        raise InvalidBookmark(f"{time_s!r} is too early: the history that is kept begins later")
    if time_s < marks[place].time_s + INTERVAL_S:
        return marks[place].point
    return marks[place + 1].point if place + 1 < len(marks) else newest
