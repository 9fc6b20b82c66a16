"""The write-ahead log of an object's database, read as a file: which commit changed which pages, and what they held.

SQLite's format: 32 bytes of header, the salts of this use of the log at 16; then frames of 24 bytes and a page, with
the page's number at 0, the size of the database in pages at 4 (0: the transaction goes on), a checksum of all that came
before at 16.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import apsw
import attrs

PAGE_BYTES = 4_096
_HEADER_BYTES = 32
_FRAME_BYTES = 24 + PAGE_BYTES
_FRAME = struct.Struct(">II8x8s")
_SALTS_AT, SALT_BYTES = 16, 8


@attrs.frozen
class Mark:
    """A point at which the history is divided, and a time (wall clock, seconds): nothing came between the two."""

    point: int
    time_s: float


@attrs.frozen(kw_only=True)
class Change:
    """What a stretch of commits changed.

    Attributes:
        start, end: the points (`object_points`) before the first commit and after the last. time_s: of the first.
        log, check: the salts of the log, and the checksum of its frame at `end`: that log and no other.
        size: of the database at `start`, in pages. pages: those that were changed and existed then.
        read: what one of them held at `start`. level: of compression, 0 to 9.
    """

    start: int
    end: int
    time_s: float
    log: bytes
    check: bytes
    size: int
    pages: tuple[int, ...]
    read: Callable[[int], bytes]
    level: int = 1


class LogReader:
    """A log, and the database that it is moved into bit by bit. Everything here blocks.

    Raises:
        OSError, apsw.Error: it cannot be read.
    """

    def __init__(self, descriptor: int, database: Path) -> None:
        # SQLite's own file layer, because closing another descriptor of a database would drop SQLite's locks on it.
        self._log = descriptor
        self._database = open_pages(database)

    def close(self) -> None:
        """Close the database; the descriptor of the log is the caller's."""
        self._database.xClose()

    def changes(
        self, begin: int, upto: int, marks: Sequence[Mark], generation: int, *, time_s: float, every: bool
    ) -> Iterator[Change]:
        """The changes of the frames after `begin`, divided at marks; `read` them before asking for the next one.

        No page that only frames after `begin` have may have been moved into the database.

        Args:
            begin, upto: numbers of frames that end a commit; 0 is before the first.
            marks: in this log.
            generation: of the log, see `object_points`.
            time_s: of what follows `begin` if that is not marked.
            every: divide after every commit, all of which have this time.
        """
        salts = read_salts(self._log)
        times: dict[int, list[float]] = {}
        for mark in marks:
            times.setdefault(mark.point & 0xFFFF_FFFF, []).append(mark.time_s)
        newest: dict[int, int] = {}  # of each page, the frame that has what it held at `start`
        changed: dict[int, int] = {}
        size = low = self._database.xFileSize() // PAGE_BYTES
        start, started_s = begin, time_s
        for frame in range(1, upto + 1):
            page, pages, check = self._frame(frame)
            if frame <= begin:
                newest[page] = frame
                size = low = pages or size
                continue
            changed[page] = frame
            if not pages:
                continue
            low = min(low, pages)
            if frame == upto or every or frame in times:
                gone = range(low + 1, size + 1)
                *earlier_s, started_s = times.get(start, [started_s])
                change = Change(
                    start=generation << 32 | start,
                    end=generation << 32 | frame,
                    time_s=started_s,
                    log=salts,
                    check=check,
                    size=size,
                    pages=tuple(sorted({page for page in changed if page <= size}.union(gone))),
                    read=partial(self._page, newest),
                )
                for time_s in earlier_s:  # nothing came until `started_s`
                    yield attrs.evolve(change, end=change.start, check=self.check(start), time_s=time_s, pages=())
                yield change
                newest |= changed
                changed.clear()
                size = low = pages
                start = frame

    def check(self, frame: int) -> bytes:
        """The checksum of a frame, zeros before the first; nothing if the log does not reach so far."""
        if frame == 0:
            return bytes(8)
        header = os.pread(self._log, _FRAME.size, _HEADER_BYTES + (frame - 1) * _FRAME_BYTES)
        return _FRAME.unpack(header)[2] if len(header) == _FRAME.size else b""

    def _frame(self, frame: int) -> tuple[int, int, bytes]:
        header = os.pread(self._log, _FRAME.size, _HEADER_BYTES + (frame - 1) * _FRAME_BYTES)
        if len(header) < _FRAME.size:
            raise OSError(f"the write-ahead log ends before frame {frame}")
        page, pages, check = _FRAME.unpack(header)
        return page, pages, check

    def _page(self, newest: Mapping[int, int], page: int) -> bytes:
        frame = newest.get(page)
        if frame is None:
            return read_page(self._database, page)
        return os.pread(self._log, PAGE_BYTES, frame * _FRAME_BYTES - PAGE_BYTES + _HEADER_BYTES)


def log_bytes(pages: int) -> int:
    """The size of a log of so many pages."""
    return _HEADER_BYTES + pages * _FRAME_BYTES


def log_pages(size: int) -> int:
    """How many pages a log of so many bytes has room for."""
    return max(0, size - _HEADER_BYTES) // _FRAME_BYTES


def read_salts(log: int) -> bytes:
    """What tells this use of the log from others; nothing before its first frame."""
    return os.pread(log, SALT_BYTES, _SALTS_AT)


def open_pages(database: Path) -> apsw.VFSFile:
    """A database as a file of pages, as they are."""
    return apsw.VFSFile("unix", str(database), [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0])


def read_page(database: apsw.VFSFile, page: int) -> bytes:
    """A page; zeros where the file has none."""
    return database.xRead(PAGE_BYTES, (page - 1) * PAGE_BYTES).ljust(PAGE_BYTES, b"\0")
