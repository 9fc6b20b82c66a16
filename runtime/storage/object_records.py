"""The records of an object's history as files: segments of at most a few MiB, added to at the end of the newest.

A record is a head, the numbers of some pages, their contents (zlib), and the record's length. A change of more pages
than a record has room for is in several; it counts when the one that is marked as the last is there.

No whole record has a sector of zeros, which tells one that a power cut took a part of from one that is damaged: what
is not deflated is in stored blocks (RFC 1951, 3.2.4) that are shorter than a sector and begin with a length.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import attrs

from runtime.storage.database_file import sync_path
from runtime.storage.object_log import PAGE_BYTES, Change

SEGMENT_BYTES = 4 << 20
RECORD_PAGES = 256
_MAGIC = b"HGo1"
# magic; CRC-32 of all that follows; number, start, end; salts, checksum; time; size of the database; number of pages,
# bytes of their contents; place among the records of its change, and whether it is the last of them
_HEAD = struct.Struct("<4sIQQQ8s8sdIIIHB")
_CHECKED_FROM = 8
_LENGTH = struct.Struct("<I")
_SECTOR_BYTES = 512  # what a disk writes at a time, at least
_STORED_HEAD = struct.Struct("<BHH")  # whether it is the last block; its length, and that inverted
_STORED_BYTES = 500


@attrs.frozen(kw_only=True)
class Record:
    """A record without what the pages held, and where it is.

    Attributes:
        start, end, log, check, time_s, size, pages: as of `Change`; the pages are those of this record.
        number: of the change in the history; without gaps. place: among the records of the change. is_last: of them.
        path, at, length: where it is, in bytes.
    """

    number: int
    start: int
    end: int
    log: bytes
    check: bytes
    time_s: float
    size: int
    pages: tuple[int, ...]
    place: int
    is_last: bool
    path: Path
    at: int
    length: int

    @property
    def next_at(self) -> int:
        """Where the next record of the segment begins."""
        return self.at + self.length

    @property
    def has_log(self) -> bool:
        """It is of commits in a log; else of a restore or a removal."""
        return any(self.log)

    def verify(self) -> None:
        """Look at every byte. Raises: OSError: it cannot be read, or is damaged."""
        self._data()

    def contents(self) -> list[bytes]:
        """What the pages held. Raises: OSError: it cannot be read, or is damaged."""
        data = self._data()
        raw = zlib.decompress(data[_HEAD.size + 4 * len(self.pages) : -_LENGTH.size])
        return [raw[at : at + PAGE_BYTES] for at in range(0, len(raw), PAGE_BYTES)]

    def _data(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.at)
            data = file.read(self.length)
        if len(data) < self.length or not _is_whole(data):
            raise OSError(f"{self.path} is damaged at {self.at}")
        return data


def segments(folder: Path) -> list[Path]:
    """The files of a history, the oldest first."""
    return sorted(path for path in folder.glob("?" * 16)) if folder.is_dir() else []


def read_records(path: Path, *, verified: bool) -> Iterator[Record]:
    """The records of a segment, up to the first that is not whole. Raises: OSError.

    Args:
        verified: look at the contents, too.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while True:
            file.seek(at)
            record = _read(path, at, file.read(_HEAD.size + 4 * RECORD_PAGES))
            if record is None or record.next_at > size:
                return
            if verified:
                file.seek(at)
                if not _is_whole(file.read(record.length)):
                    return
            yield record
            at = record.next_at


def is_damaged_after(path: Path, at: int, *, generation: int | None) -> bool:
    """Whether a segment has, behind its whole records, more than a record that was never finished. Raises: OSError.

    One that a process did not finish ends early; one that a power cut took a part of has sectors of zeros. What is
    there to its end and not whole was finished, and what it replaces may be in the database.

    Args:
        at: where the whole records end.
        generation: of the log that there is: what was recorded of earlier ones was finished. None: there is none.
    """
    with path.open("rb") as file:
        file.seek(at)
        rest = file.read()
    if not rest:
        return False
    first = _read(path, at, rest)
    if generation is None:
        if first is None or first.has_log:
            return True
    elif first is not None and first.start >> 32 < generation:
        return True
    # Several records are written before one sync: a whole one behind the place does not say that a part of it that is
    # missing was there.
    behind = _next_whole(path, at, rest)
    is_there = behind is not None or _is_there_to_its_end(first, rest)
    return is_there and not _lacks_a_sector(at, rest[:behind])


def _next_whole(path: Path, at: int, rest: bytes) -> int | None:
    """Where in the rest of a segment a whole record begins, after its first byte."""
    place = rest.find(_MAGIC, 1)
    while place >= 0:
        record = _read(path, at + place, rest[place:])
        end = len(rest) + 1 if record is None else place + record.length
        if end <= len(rest) and _is_whole(rest[place:end]):
            return place
        place = rest.find(_MAGIC, place + 1)
    return None


def _is_there_to_its_end(first: Record | None, rest: bytes) -> bool:
    # Either the length in its head is right, or the one at its end.
    by_its_end = int.from_bytes(rest[-_LENGTH.size :], "little")
    return len(rest) in {by_its_end, None if first is None else first.length}


def _lacks_a_sector(at: int, rest: bytes) -> bool:
    """Whether a sector is empty, which no record has."""
    begins = [0, *range(-at % _SECTOR_BYTES or _SECTOR_BYTES, len(rest), _SECTOR_BYTES)]
    parts = (rest[begin:end] for begin, end in zip(begins, [*begins[1:], len(rest)], strict=True))
    # A length ends with zeros, too.
    return any(len(part) > _LENGTH.size and not any(part) for part in parts)


def read_last(path: Path) -> Record | None:
    """The last record of a segment, if it is whole and the last of its change."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < _HEAD.size + _LENGTH.size:
            return None
        file.seek(size - _LENGTH.size)
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        if not _HEAD.size <= length <= size:
            return None
        file.seek(size - length)
        data = file.read(length)
    record = _read(path, size - length, data)
    if record is None or record.length != length or not record.is_last or not _is_whole(data):
        return None
    return record


def _read(path: Path, at: int, data: bytes | bytearray) -> Record | None:
    if len(data) < _HEAD.size:
        return None
    magic, _, number, start, end, log, check, time_s, size, count, length, place, is_last = _HEAD.unpack_from(data)
    whole = _HEAD.size + 4 * count + length + _LENGTH.size
    if magic != _MAGIC or count > RECORD_PAGES or len(data) < _HEAD.size + 4 * count:
        return None
    return Record(
        number=number,
        start=start,
        end=end,
        log=log,
        check=check,
        time_s=time_s,
        size=size,
        pages=struct.unpack_from(f"<{count}I", data, _HEAD.size),
        place=place,
        is_last=bool(is_last),
        path=path,
        at=at,
        length=whole,
    )


def _is_whole(data: bytes) -> bool:
    check = int.from_bytes(data[4:_CHECKED_FROM], "little")
    return zlib.crc32(memoryview(data)[_CHECKED_FROM:]) == check


def _stored(data: bytes) -> bytes:
    """As zlib's level 0, in short blocks."""
    end = len(data) - len(data) % _STORED_BYTES
    head, blocks = _stored_head(_STORED_BYTES), [data[at : at + _STORED_BYTES] for at in range(0, end, _STORED_BYTES)]
    last = data[end:]
    check = zlib.adler32(data).to_bytes(4, "big")
    return b"".join((head.join([b"\x78\x01", *blocks]), _stored_head(len(last), is_last=True), last, check))


def _stored_head(length: int, *, is_last: bool = False) -> bytes:
    return _STORED_HEAD.pack(is_last, length, length ^ 0xFFFF)


class RecordWriter:
    """Writes behind a record; what it has written counts after `finish`.

    Args:
        folder: of the segments; made when it is not there.
        last: the record to write behind.
    """

    def __init__(self, folder: Path, last: Record | None) -> None:
        self._folder = folder
        self._path = None if last is None else last.path
        self._at = 0 if last is None else last.next_at
        self._file: int | None = None
        self._time_s = 0.0
        self.written = 0
        """Bytes."""

    def add(self, change: Change, number: int) -> Record:
        """Write a change; its last record. Raises: OSError."""
        self._time_s = change.time_s
        record: Record | None = None
        firsts = range(0, max(1, len(change.pages)), RECORD_PAGES)
        for place, first in enumerate(firsts):
            pages = change.pages[first : first + RECORD_PAGES]
            held = b"".join(map(change.read, pages))
            contents = zlib.compress(held, change.level) if change.level else _stored(held)
            is_last = place == len(firsts) - 1
            data = bytearray(
                _HEAD.pack(
                    _MAGIC,
                    0,
                    number,
                    change.start,
                    change.end,
                    change.log,
                    change.check,
                    change.time_s,
                    change.size,
                    len(pages),
                    len(contents),
                    place,
                    is_last,
                )
                + struct.pack(f"<{len(pages)}I", *pages)
                + contents
            )
            data += _LENGTH.pack(len(data) + _LENGTH.size)
            data[4:_CHECKED_FROM] = zlib.crc32(memoryview(data)[_CHECKED_FROM:]).to_bytes(4, "little")
            path, at = self._write(data, f"{number:012x}{place:04x}")
            record = _read(path, at, data)
        assert record is not None
        return record

    def finish(self) -> None:
        """Make everything last. Raises: OSError."""
        self._end_segment()

    def abandon(self) -> None:
        """Something failed: let go of the files; `ObjectHistory.recover` cuts off what they have."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, data: bytearray, name: str) -> tuple[Path, int]:
        if self._path is None or self._at >= SEGMENT_BYTES or not self._path.exists():
            self._end_segment()
            self._begin_segment(name)
        assert self._path is not None
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            os.lseek(self._file, self._at, os.SEEK_SET)
        view, at = memoryview(data), self._at
        while view:
            view = view[os.write(self._file, view) :]
        self._at += len(data)
        self.written += len(data)
        return self._path, at

    def _begin_segment(self, name: str) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir()
            sync_path(self._folder.parent)
        self._path, self._at = self._folder / name, 0
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        sync_path(self._folder)

    def _end_segment(self) -> None:
        if self._file is not None:
            os.utime(self._file, (self._time_s, self._time_s))  # from which its age is told
            os.fsync(self._file)
            os.close(self._file)
            self._file = None
