"""The history of an object's database: what its pages held before they were changed, in a folder beside the database.

Before commits are moved from the log into the database, what they replace is recorded, a second of commits in one
change; what was changed again within it, once. Going back to a point takes, of every page that was changed since, what
the oldest change after the point has. Nothing is needed from before the point: the oldest segments can be removed at
any time, and what nobody changes has no history. A change that is missing ends what can be restored.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from runtime.errors import InvalidBookmark
from runtime.storage.ancestry import LINEAGES, read_ancestors
from runtime.storage.bookmarks import point_text
from runtime.storage.object_log import Change, Mark
from runtime.storage.object_records import (
    Record,
    RecordWriter,
    is_damaged_after,
    read_last,
    read_records,
    segments,
)

HISTORY_SUFFIX = ".history"


def history_path(database: Path) -> Path:
    """Where the history of a database is."""
    return database.with_suffix(HISTORY_SUFFIX)


class ObjectHistory:
    """The history of one object. Everything here blocks; one thread at a time adds to it, any number may read it.

    Args:
        database: beside which it is.
    """

    def __init__(self, database: Path) -> None:
        self.folder = history_path(database)
        self.last: Record | None = None
        """The newest record, since `recover`."""
        self.failed = False
        """The last `add` left something behind: `recover` comes before the next."""
        self.added = 0
        """Bytes; for whoever sweeps, who sets it back."""

    def recover(self, *, crashed: bool, generation: int = 0) -> bool:
        """Find the newest record, and cut off what was not finished after it; whether it is damaged, and all gone.

        Args:
            crashed: look at every byte of the newest segment, not only at its end.
            generation: of the log that a crash left behind, or an earlier one.

        Raises:
            OSError: the disk refuses.
        """
        self.last, self.failed = None, False
        for path in reversed(segments(self.folder)):
            last = None if crashed else read_last(path)
            if last is None:
                whole_to = 0
                for record in read_records(path, verified=True):
                    last, whole_to = record if record.is_last else last, record.next_at
                if is_damaged_after(path, whole_to, generation=generation if crashed else None):
                    # What changed after the damaged place cannot be undone, so nothing before it can be restored.
                    self.forget()
                    return True
            if last is not None:
                if path.stat().st_size > last.next_at:
                    os.truncate(path, last.next_at)
                self.last = last
                return False
            path.unlink()
        return False

    def add(self, changes: Iterable[Change]) -> None:
        """Add changes and make them last, or add none. Raises: OSError, or as `Change.read`."""
        before = last = self.last
        writer = RecordWriter(self.folder, before)
        try:
            for change in changes:
                last = writer.add(change, 1 if last is None else last.number + 1)
            if last is not before and last is not None:
                writer.finish()
                self.last = last
                self.added += writer.written
        except BaseException:
            self.failed = True
            writer.abandon()
            raise

    def forget(self) -> None:
        """Remove all of it. Raises: OSError."""
        for path in segments(self.folder):
            path.unlink()
        (self.folder / LINEAGES).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it has a note, or is not there
            self.folder.rmdir()
        self.last = None

    def records(self) -> list[Record]:
        """Those that lead back from the newest without a gap, the oldest first.

        Raises:
            OSError: it cannot be read, or its newest part is damaged.
        """
        found: list[Record] = []
        for path in segments(self.folder):
            for record in read_records(path, verified=False):
                if found and not _follows(found[-1], record):
                    found.clear()
                if found or record.place == 0:
                    found.append(record)
        while found and not found[-1].is_last:
            found.pop()
        if self.last is not None and (not found or found[-1].number < self.last.number):
            raise OSError(f"the history in {self.folder} is damaged: it ends before its change {self.last.number:,}")
        return found

    def marks(self) -> list[Mark]:
        """The points that can be restored, and when what follows them began. Raises: OSError."""
        return [Mark(record.start, record.time_s) for record in self.records() if record.place == 0]

    def ancestors(self) -> Mapping[str, int]:
        """Of what this is a copy, see `ancestry`. Raises: OSError."""
        return read_ancestors(self.folder)

    def check(self, point: int) -> None:
        """Refuse what is no point of the history. Raises: InvalidBookmark, OSError."""
        records_after(self.records(), point)


def records_after(records: list[Record], point: int) -> list[Record]:
    """The part of a history after a point. Raises: InvalidBookmark: the point is none of it."""
    for place, record in enumerate(records):
        if record.start == point and record.place == 0:
            return records[place:]
        if record.end == point and record.is_last:
            return records[place + 1 :]
    if records and point < records[0].start:
        raise InvalidBookmark(
            f"bookmark {point_text(point)} is too old: the history that is kept of this object begins at "
            f"{point_text(records[0].start)} (server.history_days, server.history_bytes)"
        )
    raise InvalidBookmark(
        f"bookmark {point_text(point)} is unknown: this object was never given it, or keeps no history"
    )


def pages_then(records: Iterable[Record], size: int) -> Iterator[tuple[int, bytes]]:
    """What the pages of a database held before a part of its history, each once. Raises: OSError.

    Args:
        records: the part, the oldest first. size: of the database then, in pages.
    """
    seen = bytearray(size + 1)
    for record in records:
        wanted = [place for place, page in enumerate(record.pages) if page <= size and not seen[page]]
        if not wanted:
            continue
        contents = record.contents()
        for place in wanted:
            seen[record.pages[place]] = 1
            yield record.pages[place], contents[place]


def _follows(before: Record, record: Record) -> bool:
    if before.is_last:
        continues = record.start in {before.end, (record.start >> 32) << 32}
        return continues and record.number == before.number + 1 and record.place == 0
    return record.number == before.number and record.place == before.place + 1
