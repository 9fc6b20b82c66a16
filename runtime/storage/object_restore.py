"""Bringing an object's database back to a point: its pages are overwritten in place, and what they held is recorded.

First a note says what is to be done, then the history gets what the pages hold, then they are overwritten. Whatever is
cut short is done again from the note when the database is opened the next time, which comes to the same: what the
pages held at the point is in the history, and what they held before was recorded before they were touched.
"""

from __future__ import annotations

from pathlib import Path

import apsw
import attrs

from runtime.storage.checksums import CHECKSUM_VFS, load_checksums
from runtime.storage.database_file import sync_path
from runtime.storage.object_history import ObjectHistory, history_path, pages_then, records_after
from runtime.storage.object_log import PAGE_BYTES, Change, open_pages, read_page
from runtime.storage.object_records import Record

_TO_DO, _DONE = "restoring", "restored"
_HEAD = (b"SQLite format 3\0" + bytes(4) + b"\x08").ljust(PAGE_BYTES, b"\0")  # says that pages have checksums
_RAW_PAGES = 2_048  # from so many on, what a restore replaces is not compressed, which takes longer than writing it


@attrs.frozen(kw_only=True)
class ObjectRestored:
    """What bringing a database back changes.

    Attributes:
        undo: the point from before; bringing it back there undoes it.
        pages: how many are overwritten or cut off. size, size_then: of the database in pages.
    """

    undo: int
    pages: int
    size: int
    size_then: int


def last_restore(database: Path) -> int | None:
    """The point that the last restore left behind; another one after every restore. Raises: OSError."""
    noted = _read(history_path(database) / _DONE)
    return None if noted is None else noted[1]


def restores_noted(database: Path) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """The restore that was begun and the last one that ended: the point that each goes to, and the one from before.

    Raises:
        OSError: the notes cannot be read.
    """
    folder = history_path(database)
    return _read(folder / _TO_DO), _read(folder / _DONE)


def is_being_restored(history: Path) -> bool:
    """Whether a restore was begun that needs what is in this folder."""
    return (history / _TO_DO).exists()


def bring_back(database: Path, point: int, now: float, *, keep: bool = True) -> ObjectRestored:
    """Bring a closed database, all of which is in the history, back to a point of it. Blocks.

    Args:
        database: may be gone.
        point: where to.
        now: wall clock, seconds.
        keep: do it; else only say what it would change.

    Raises:
        InvalidBookmark: the point is none of the history.
        OSError, apsw.Error: the disk refuses; the next `finish_restore` carries on.
    """
    load_checksums()
    history = ObjectHistory(database)
    if keep:
        history.recover(crashed=False)
    records = history.records()
    after = records_after(records, point)
    undo = ((records[-1].end >> 32) + 1) << 32
    for record in records[max(0, len(records) - len(after) - 1) :]:  # with the one that ends at the point
        record.verify()  # before anything is changed
    pages, size, size_then = _extent(database, after)
    if keep:
        sync_path(database.parent)  # the log is gone for good: it would be read into what is written now
        note = history.folder / f"{_TO_DO}.new"
        note.write_text(f"{point:016x} {undo:016x}\n", "ascii")
        sync_path(note)
        note.rename(history.folder / _TO_DO)
        sync_path(history.folder)
        finish_restore(database, now)
    return ObjectRestored(undo=undo, pages=len(pages), size=size, size_then=size_then)


def finish_restore(database: Path, now: float) -> None:
    """Carry out the restore that is noted, if there is one. Raises: as `bring_back`."""
    noted = _read(history_path(database) / _TO_DO)
    if noted is None:
        return
    point, undo = noted
    history = ObjectHistory(database)
    history.recover(crashed=True)
    if history.last is None:
        raise OSError(
            f"the history in {history.folder} is damaged, and the restore from it was cut short: the database may be "
            "of two moments; put a backup of both in their place"
        )
    if history.last.start != undo:
        pages, size, _ = _extent(database, records_after(history.records(), point))
        _record(history, database, undo, now, size, pages)
    after = records_after(history.records(), point)
    _overwrite(database, after)
    (history.folder / _TO_DO).rename(history.folder / _DONE)
    sync_path(history.folder)


def record_removal(history: ObjectHistory, database: Path, point: int, now: float) -> None:
    """Record what a closed database holds, which is about to be removed. Raises: OSError, apsw.Error.

    Args:
        history: of it. point: the last one that it was at. now: wall clock, seconds.
    """
    size = _size(database)
    _record(history, database, ((point >> 32) + 1) << 32, now, size, tuple(range(1, size + 1)))


def _extent(database: Path, after: list[Record]) -> tuple[tuple[int, ...], int, int]:
    """The pages that going back before some records changes, and the size of the database before and after."""
    size = _size(database)
    size_then = after[0].size if after else size
    pages = {page for record in after for page in record.pages if page <= size}
    return tuple(sorted(pages.union(range(size_then + 1, size + 1)))), size, size_then


def _size(database: Path) -> int:
    return database.stat().st_size // PAGE_BYTES if database.exists() else 0


def _record(history: ObjectHistory, database: Path, start: int, now: float, size: int, pages: tuple[int, ...]) -> None:
    """Record a change that no log has, as if it were all of a generation."""
    file = open_pages(database) if pages else None
    last = history.last
    try:
        history.add(
            [
                Change(
                    start=start,
                    end=start | 1,
                    time_s=now if last is None else max(now, last.time_s),
                    log=b"",
                    check=b"",
                    size=size,
                    pages=pages,
                    read=lambda page: b"" if file is None else read_page(file, page),
                    level=1 if len(pages) < _RAW_PAGES else 0,
                )
            ]
        )
    finally:
        if file is not None:
            file.xClose()


def _overwrite(database: Path, after: list[Record]) -> None:
    if not after:
        return
    flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    file = apsw.VFSFile(CHECKSUM_VFS, str(database), [flags, 0])
    try:
        # The log's pages get their checksums when they are moved; so do these, once the layer has seen a head.
        if any(1 in record.pages for record in after):
            file.xWrite(_HEAD, 0)
        else:
            file.xRead(PAGE_BYTES, 0)
        for page, content in pages_then(after, after[0].size):
            file.xWrite(content, (page - 1) * PAGE_BYTES)
        file.xTruncate(after[0].size * PAGE_BYTES)
        file.xSync(apsw.SQLITE_SYNC_FULL)
    finally:
        file.xClose()
    sync_path(database.parent)


def _read(path: Path) -> tuple[int, int] | None:
    try:
        point, undo = path.read_text("ascii").split()
    except FileNotFoundError:
        return None
    return int(point, 16), int(undo, 16)
