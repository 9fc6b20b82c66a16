"""The files of one run of a process, and what a power cut leaves of their contents and of their names.

They are real files in a folder. What is written to a file lasts when it was synced; that a file was made, renamed or
removed lasts when its folder was. Of everything else a power cut keeps any part: sector by sector, and name by name.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import apsw
import attrs

from runtime.storage.object_history import HISTORY_SUFFIX

SECTOR_BYTES = 512
PAGE_BYTES = 4_096
_UNCOPIED = ("-shm", "lock")

Step = Callable[[str, str], None]
Kept = Callable[[], bool]


@attrs.define(eq=False)
class FileModel:
    """What is known of the content of a file that SQLite writes.

    Attributes:
        durable: its content after a power cut.
        unsynced: what was done since, in order: (offset, bytes), or (size, None) for a truncation.
    """

    durable: bytearray
    unsynced: list[tuple[int, bytes | None]] = attrs.field(factory=list)

    def sync(self, count: int) -> None:
        """The first `count` operations become durable."""
        for at, data in self.unsynced[:count]:
            _do(self.durable, at, data)
        del self.unsynced[:count]

    def forget(self) -> None:
        """A sync failed: the kernel takes the pages for clean, and no later sync writes them (Linux, ext4)."""
        self.unsynced.clear()

    def after_power_cut(self, kept: Kept) -> bytes:
        """The content then: of each unsynced write any sectors."""
        content = bytearray(self.durable)
        for at, data in self.unsynced:
            if data is None:
                if kept():
                    _do(content, at, None)
                continue
            begin = at
            while begin < at + len(data):
                end = min(begin - begin % SECTOR_BYTES + SECTOR_BYTES, at + len(data))
                if kept():
                    _do(content, begin, data[begin - at : end - at])
                begin = end
        return bytes(content)


def _do(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del content[at:]
        return
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data


def _mixed(durable: bytes, written: bytes, kept: Kept) -> bytes:
    """Of a file that others than SQLite write: any sectors of what was written since the last sync, and any length."""
    if durable == written:
        return durable
    size = len(written) if kept() else len(durable)
    old, new = durable.ljust(size, b"\0"), written.ljust(size, b"\0")
    sectors = range(0, size, SECTOR_BYTES)
    return b"".join((new if kept() else old)[at : min(at + SECTOR_BYTES, size)] for at in sectors)


@attrs.frozen
class Damage:
    """A bit of a file that has flipped while nobody used it.

    Attributes:
        file: relative to the folder. at: the byte. was: what was written around it, from `begin` on.
        bit: which has flipped, as a mask.
    """

    file: Path
    at: int
    begin: int
    was: bytes
    bit: int

    @property
    def found(self) -> bytes:
        """What is there instead."""
        place = self.at - self.begin
        return self.was[:place] + bytes((self.was[place] ^ self.bit,)) + self.was[place + 1 :]


class Image:
    """The files of one run of a process.

    Attributes:
        folder: where they are.
        frozen: the process is dead: what it still does here as it unwinds, nobody will ever see.
        full: there is no room.
        failing: how many of the next syncs fail. refuses: it has refused something in this life.
        damages: bits that have flipped. met: how often SQLite read a place with one.
    """

    def __init__(self, folder: Path, step: Step) -> None:
        self.folder = folder
        self.frozen = False
        self.full = False
        self.failing = 0
        self.refuses = False
        self.damages: list[Damage] = []
        self.met = 0
        self._step = step
        # By inode, so that a renamed file is the same one; a file that is gone and may come back has a number below 0.
        self._models: dict[int, FileModel] = {}
        self._synced: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        self._gone = count(-1, -1)

    # Bits that flip.

    def flip(self, rng: random.Random) -> Damage | None:
        """Let a bit of a database or history flip, which nobody has open now; None: there is none."""
        files = [path for path in sorted(self.folder.rglob("*")) if _is_checked(path) and path.stat().st_size]
        if not files:
            return None
        path = rng.choice(files)
        content = path.read_bytes()
        page = rng.randrange(-(-len(content) // PAGE_BYTES)) * PAGE_BYTES
        # Zeros are mostly room that nobody uses.
        used = [at for at, byte in enumerate(content[page : page + PAGE_BYTES], page) if byte]
        if not used:
            return None
        at = rng.choice(used)
        begin, end = max(page, at - 16), min(page + PAGE_BYTES, at + 16)  # other pages may be written anew
        damage = Damage(path.relative_to(self.folder), at, begin, content[begin:end], 1 << rng.randrange(8))
        self.damages.append(damage)
        self._write_over(damage, damage.was, damage.found)
        return damage

    def repair(self) -> None:
        """Somebody puts right what has flipped, where nothing else was written in its place since."""
        for damage in reversed(self.damages):  # a later one is in what an earlier one left
            self._write_over(damage, damage.found, damage.was)
        self.damages.clear()

    @contextmanager
    def whole(self) -> Generator[None, None, None]:
        """While the block runs nothing has flipped."""
        damages, self.damages = self.damages, []
        right = [damage for damage in reversed(damages) if self._write_over(damage, damage.found, damage.was)]
        try:
            yield
        finally:
            self.damages = damages
            for damage in reversed(right):
                self._write_over(damage, damage.was, damage.found)

    def _write_over(self, damage: Damage, found: bytes, data: bytes) -> bool:
        path = self.folder / damage.file
        if not path.is_file():
            return False
        number, end = path.stat().st_ino, damage.begin + len(data)
        with path.open("r+b") as file:
            file.seek(damage.begin)
            if file.read(len(found)) != found:
                return False
            file.seek(damage.begin)
            file.write(data)
        model, synced = self._models.get(number), self._synced.get(number)
        if model is not None and bytes(model.durable[damage.begin : end]) == found:
            model.durable[damage.begin : end] = data
        elif synced is not None and synced[damage.begin : end] == found:
            self._synced[number] = synced[: damage.begin] + data + synced[end:]
        return True

    def read(self, path: Path, data: bytes, at: int) -> None:
        """SQLite has read from a file."""
        for damage in self.damages:
            # Where the page was written anew since, nothing is damaged any more.
            wrong = at <= damage.at < at + len(data) and data[damage.at - at] == damage.found[damage.at - damage.begin]
            if wrong and self.folder / damage.file == path:
                self.met += 1

    # What the process does.

    def before(self, what: str, path: Path) -> None:
        """Something is about to be done to a file. Raises: apsw.FullError: there is no room."""
        if not self.frozen:
            self._step(what, path.name)
        if self.full and what == "write" and not self.frozen:
            self.refuses = True
            raise disk_error(apsw.SQLITE_FULL, "no space left on the simulated disk")

    def opened(self, path: Path) -> FileModel:
        """SQLite has opened a file."""
        number = path.stat().st_ino
        model = self._models.get(number)
        if model is None:
            model = self._models[number] = FileModel(bytearray(self._synced.pop(number, b"")))
        return model

    def sync(self, model: FileModel, count: int | None = None) -> None:
        """Make a file's first operations durable. Raises: OSError."""
        if self._fails():
            model.forget()
            raise OSError(5, "the simulated disk failed to sync")
        model.sync(len(model.unsynced) if count is None else count)

    def sync_path(self, path: Path) -> None:
        """Make the content of a file, or the names in a folder, durable. Raises: OSError."""
        self.before("sync", path)
        if path.is_dir():
            if self._fails():
                raise OSError(5, "the simulated disk failed to sync")
            self.sync_names(path)
        elif (model := self.model(path)) is not None:
            self.sync(model)
        elif path.exists():
            if self._fails():
                raise OSError(5, "the simulated disk failed to sync")
            self._synced[path.stat().st_ino] = path.read_bytes()

    def sync_names(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        self._names[folder] = _entries(folder)

    def _fails(self) -> bool:
        if self.failing and not self.frozen:
            self.failing -= 1
            self.refuses = True
            return True
        return False

    def model(self, path: Path) -> FileModel | None:
        """What is known of a file that SQLite writes."""
        try:
            return self._models.get(path.stat().st_ino)
        except FileNotFoundError:
            return None

    def unsynced(self, path: Path) -> int:
        """How many operations on a file would not survive."""
        model = self.model(path)
        return 0 if model is None else len(model.unsynced)

    # What the next process finds.

    def leave(self, after: Image, kept: Kept | None) -> None:
        """End the process and give the next one its files.

        Args:
            kept: decides about each part that is not durable; None: the kernel lives and has everything, though it is
                no more durable than before.
        """
        self.frozen = True
        after.damages = list(self.damages)
        if kept is None:
            self._leave_all(self.folder, after.folder, after)
        else:
            self._leave_durable(self.folder, after.folder, after, kept)

    def _leave_all(self, folder: Path, target: Path, after: Image) -> None:
        numbers: dict[int, int] = {}
        for name, number in _entries(folder).items():
            path = target / name
            if (folder / name).is_dir():
                path.mkdir()
                self._leave_all(folder / name, path, after)
                numbers[number] = path.stat().st_ino
                continue
            path.write_bytes((folder / name).read_bytes())
            numbers[number] = path.stat().st_ino
            self._hand_on(number, after, numbers[number])
        names = after._names[target] = {}
        for name, number in self._names.get(folder, {}).items():
            if number not in numbers:
                numbers[number] = next(after._gone)
                self._hand_on(number, after, numbers[number])
            names[name] = numbers[number]

    def _hand_on(self, number: int, after: Image, as_number: int) -> None:
        model = self._models.get(number)
        if model is not None:
            after._models[as_number] = FileModel(bytearray(model.durable), list(model.unsynced))
        elif number in self._synced:
            after._synced[as_number] = self._synced[number]

    def _leave_durable(self, folder: Path, target: Path, after: Image, kept: Kept) -> None:
        now, then = _entries(folder), self._names.get(folder, {})
        left: dict[str, int] = {}
        for name, number in now.items():
            before = [old for old, which in then.items() if which == number]
            if name in before or kept():
                left[name] = number
            elif before:
                left[before[0]] = number  # it has its old name
        for name, number in then.items():
            if name not in left and number not in left.values() and (name in now or kept()):
                left[name] = number  # it is still there
        current = {number: folder / name for name, number in now.items()}
        for name, number in sorted(left.items()):
            source, path = current.get(number), target / name
            if source is not None and source.is_dir():
                path.mkdir()
                self._leave_durable(source, path, after, kept)
            elif source is None and number not in self._models and number not in self._synced:
                continue  # a folder that was removed
            else:
                content = self._content(number, source, kept)
                path.write_bytes(content)
                after._synced[path.stat().st_ino] = content
        after.sync_names(target)

    def _content(self, number: int, source: Path | None, kept: Kept) -> bytes:
        model = self._models.get(number)
        if model is not None:
            return model.after_power_cut(kept)
        durable = self._synced.get(number, b"")
        return durable if source is None else _mixed(durable, source.read_bytes(), kept)


def _is_checked(path: Path) -> bool:
    """Whether its content is: databases and the segments of histories."""
    if path.suffix in {".db", ".sqlite"}:
        return True
    return path.parent.suffix == HISTORY_SUFFIX and len(path.name) == 16


def _entries(folder: Path) -> dict[str, int]:
    """Names and inodes, in an order that is always the same."""
    if not folder.is_dir():
        return {}
    return {path.name: path.stat().st_ino for path in sorted(folder.iterdir()) if not path.name.endswith(_UNCOPIED)}


def disk_error(code: int, text: str) -> Exception:
    """An error of SQLite, with the codes that one of its own has."""
    error: Any = apsw.exception_for(code)
    error.args = (text,)
    error.error_offset = -1  # of no place in a statement
    refused: Exception = error
    return refused
