"""Finds a file again after it was rotated: by inode and by how it begins, under its old name or a new one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import attrs

MARK_BYTES = 1_024
ROTATED_FILES = 100  # ours: beside the file itself, the newest
LISTINGS = 10  # until two that follow each other are equal
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_NUMBER = re.compile(r"\.(\d{1,6})$")


class BeingRotated(OSError):
    """The names changed while they were looked at."""


@attrs.frozen(kw_only=True)
class Mark:
    """What a file is recognised by.

    Attributes:
        written_ns: when it was last written, as far as it was read.
        length, digest: of its first bytes, at most 1,024 and never more than were read.
    """

    device: int
    inode: int
    written_ns: int
    length: int
    digest: str

    @property
    def identity(self) -> tuple[int, int]:
        """What the system knows it by."""
        return (self.device, self.inode)


def mark(file: BinaryIO, upto: int) -> Mark:
    """The mark of an open file of which the first `upto` bytes were read. Moves its position."""
    length = min(upto, MARK_BYTES)
    stat = os.fstat(file.fileno())
    file.seek(0)
    return Mark(
        device=stat.st_dev,
        inode=stat.st_ino,
        written_ns=stat.st_mtime_ns,
        length=length,
        digest=_digest(file.read(length)),
    )


@attrs.frozen(kw_only=True)
class Name:
    """A file as it was listed."""

    path: Path
    identity: tuple[int, int]
    written_ns: int

    @property
    def start(self) -> Mark:
        """The mark of the file when nothing of it was read."""
        device, inode = self.identity
        return Mark(device=device, inode=inode, written_ns=0, length=0, digest=_digest(b""))


@attrs.frozen
class Rotation:
    """A file and what it was renamed or copied to: files beside it whose names begin with its name.

    Rotated files are ordered by the time they were last written; packed ones are not looked at.
    """

    path: Path

    def names(self) -> Sequence[Name]:
        """All of them, the oldest first and the file itself last.

        Raises: OSError, BeingRotated.
        """
        before = self._list()
        for _ in range(LISTINGS):
            now = self._list()
            if [(name.path, name.identity) for name in now] == [(name.path, name.identity) for name in before]:
                return now
            before = now
        raise BeingRotated(16, "is being rotated again and again", str(self.path))

    def open(self, names: Sequence[Name], sought: Mark, offset: int) -> tuple[Name, BinaryIO] | None:
        """The file of this mark that has at least `offset` bytes, or a copy of it; None when there is none.

        Raises: OSError, BeingRotated.
        """
        # The same inode first: only when it begins otherwise was it truncated, and its content is in a copy.
        same = [name for name in names if name.identity == sought.identity]
        copies = [name for name in names if name.identity != sought.identity] if sought.length else []
        for name in (*same, *copies):
            try:
                file = name.path.open("rb")
            except FileNotFoundError:
                raise BeingRotated(16, "is being rotated", str(name.path)) from None
            if _is(file, sought, offset):
                stat = os.fstat(file.fileno())
                if (stat.st_dev, stat.st_ino) == name.identity:
                    return name, file
            file.close()
        return None

    def after_lost(self, names: Sequence[Name], lost: Mark) -> Name | None:
        """Where to go on when nothing is left of a file: the oldest that was written after it."""
        later = [name for name in names if name.written_ns > lost.written_ns or name.path == self.path]
        return later[0] if later else None

    def _list(self) -> list[Name]:
        found: list[tuple[bool, int, int, Name]] = []
        own = self.path.name
        with os.scandir(self.path.parent) as entries:
            for entry in entries:
                if not entry.name.startswith(own) or entry.name.endswith(_PACKED):
                    continue
                if entry.name != own and entry.name[len(own)].isalnum():
                    continue  # app.jsonlines is not a rotated app.json
                try:
                    if not entry.is_file():
                        continue
                    stat = Path(entry.path).stat()
                except FileNotFoundError:
                    continue  # the next listing shows where it is now
                number = _NUMBER.search(entry.name)
                name = Name(path=Path(entry.path), identity=(stat.st_dev, stat.st_ino), written_ns=stat.st_mtime_ns)
                # Of two that were last written at the same time, the one with the higher number is older.
                found.append((entry.name == own, stat.st_mtime_ns, -int(number[1]) if number else 0, name))
        found.sort(key=lambda entry: (*entry[:3], entry[3].path.name))
        return [name for *_, name in found[-ROTATED_FILES - 1 :]]


def _is(file: BinaryIO, sought: Mark, offset: int) -> bool:
    return os.fstat(file.fileno()).st_size >= offset and _digest(file.read(sought.length)) == sought.digest


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
