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
        length, digest: of its first bytes, at most 1,024 and never more than were read. Before anything was read it
            is the mark of the file before this one, with no length.
    """

    device: int
    inode: int
    written_ns: int
    length: int = 0
    digest: str = ""

    @classmethod
    def of_none(cls, written_ns: int) -> Mark:
        """Before a first file; what was last written until then is not looked at."""
        return cls(device=-1, inode=-1, written_ns=written_ns)

    @property
    def ended(self) -> Mark:
        """The mark of whatever comes after this file."""
        return attrs.evolve(self, length=0, digest="")

    @classmethod
    def of(cls, file: BinaryIO, content: bytes) -> Mark:
        """The mark of an open file that began with this content when it was read."""
        stat = os.fstat(file.fileno())
        known = content[:MARK_BYTES]
        return cls(
            device=stat.st_dev,
            inode=stat.st_ino,
            written_ns=stat.st_mtime_ns,
            length=len(known),
            digest=_digest(known),
        )

    def fits(self, file: BinaryIO, offset: int) -> bool:
        """Whether this open file begins so, and has as many bytes. Moves its position."""
        file.seek(0)
        return os.fstat(file.fileno()).st_size >= offset and _digest(file.read(self.length)) == self.digest


@attrs.frozen(kw_only=True)
class Name:
    """A file as it was listed."""

    path: Path
    identity: tuple[int, int]
    written_ns: int


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
            if places(now) == places(before):
                return now
            before = now
        raise BeingRotated(16, "is being rotated again and again", str(self.path))

    def open(self, names: Sequence[Name], sought: Mark, offset: int) -> tuple[Name, BinaryIO] | None:
        """The file of this mark that has at least `offset` bytes, or a copy of it; None when there is none.

        Raises: OSError, BeingRotated.
        """
        identity = (sought.device, sought.inode)
        if not sought.length:
            # Nothing of it was read, so it cannot be told from others by its content; but by its time.
            files = [name] if (name := self.following(names, sought)) is not None else []
        else:
            # The same inode first: only when it begins otherwise was it truncated, and its content is in a copy.
            files = sorted(names, key=lambda name: name.identity != identity)
        for name in files:
            try:
                file = name.path.open("rb")
            except FileNotFoundError:
                raise BeingRotated(16, "is being rotated", str(name.path)) from None
            stat = os.fstat(file.fileno())
            if (stat.st_dev, stat.st_ino) != name.identity:
                file.close()
                raise BeingRotated(16, "is being rotated", str(name.path))
            if not sought.length or sought.fits(file, offset):
                return name, file
            file.close()
        return None

    def following(self, names: Sequence[Name], before: Mark) -> Name | None:
        """The oldest that was written after another one, or the file itself."""
        for name in names:
            # A late line of its writer makes the one before newer, and no other file of it.
            later = name.written_ns > before.written_ns and name.identity != (before.device, before.inode)
            if later or name.path == self.path:
                return name
        return None

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


def places(names: Sequence[Name]) -> list[tuple[Path, tuple[int, int]]]:
    """Which file is where."""
    return [(name.path, name.identity) for name in names]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
