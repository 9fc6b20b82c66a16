"""A disk that loses what was not synced: SQLite's own file layer, inherited, with a memory of what would survive.

Real SQLite runs on real files of a folder in memory; they are what the process sees. Beside each file the disk keeps
what is durable, and every write and truncation since the last sync. A power cut keeps any part of the latter, sector by
sector, in a folder of its own, so that nothing that the dead process still does reaches the next one.
"""

from __future__ import annotations

import gc
import random
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import attrs

from runtime.storage.checksums import CHECKSUM_VFS, load_checksums

SECTOR_BYTES = 512
_VFS = "heliograph-sim"
_UNCOPIED = ("-shm", "lock")

Step = Callable[[str, str], None]


@attrs.define(eq=False)
class _Model:
    """What is known of one file.

    Attributes:
        durable: its content after a power cut; None: it does not exist then.
        unsynced: what was done since, in order: (offset, bytes), or (size, None) for a truncation.
    """

    durable: bytearray | None
    unsynced: list[tuple[int, bytes | None]] = attrs.field(factory=list)

    def sync(self, count: int) -> None:
        """The first `count` operations become durable."""
        content = self.durable = self.durable if self.durable is not None else bytearray()
        for at, data in self.unsynced[:count]:
            _do(content, at, data)
        del self.unsynced[:count]

    def forget(self) -> None:
        """A sync failed: the kernel takes the pages for clean, and no later sync writes them (Linux, ext4)."""
        self.unsynced.clear()

    def after_power_cut(self, kept: Callable[[], bool]) -> bytearray | None:
        """The content then: of each unsynced write any sectors."""
        if self.durable is None and not (self.unsynced and kept()):
            return None
        content = bytearray(self.durable or b"")
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
        return content


def _do(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del content[at:]
        return
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data


class Image:
    """The files of one run of a process.

    Attributes:
        folder: where they are.
        frozen: the process is dead: what it still does here as it unwinds, nobody will ever see.
        full: there is no room.
        failing: how many of the next syncs fail. refuses: it has refused something in this life.
    """

    def __init__(self, folder: Path, step: Step) -> None:
        self.folder = folder
        self.frozen = False
        self.full = False
        self.failing = 0
        self.refuses = False
        self._step = step
        self._models: dict[Path, _Model] = {}

    def opened(self, path: Path, *, existed: bool) -> _Model:
        """A file is opened; one that another layer has made, renamed into place and synced is durable."""
        model = self._models.get(path)
        if model is None:
            model = self._models[path] = _Model(bytearray(path.read_bytes()) if existed else None)
        return model

    def deleted(self, path: Path) -> None:
        """A file is gone."""
        self._models.pop(path, None)

    def before(self, what: str, path: Path) -> None:
        """Something is about to be done to a file. Raises: apsw.FullError: there is no room."""
        if not self.frozen:
            self._step(what, path.name)
        if self.full and what == "write" and not self.frozen:
            self.refuses = True
            raise _error(apsw.SQLITE_FULL, "no space left on the simulated disk")

    def sync(self, path: Path, model: _Model, count: int | None = None) -> None:
        """Make a file's first operations durable. Raises: OSError."""
        if self.failing and not self.frozen:
            self.failing -= 1
            model.forget()
            self.refuses = True
            raise OSError(5, "the simulated disk failed to sync")
        model.sync(len(model.unsynced) if count is None else count)

    def unsynced(self, path: Path) -> int:
        """How many operations on a file would not survive."""
        model = self._models.get(path)
        return 0 if model is None else len(model.unsynced)

    def model(self, path: Path) -> _Model | None:
        """What is known of a file."""
        return self._models.get(path)

    def copy(self, folder: Path, kept: Callable[[], bool] | None) -> None:
        """Write what the next process finds: all there is, or what is durable and some of the rest."""
        for path in sorted(self.folder.rglob("*")):
            target = folder / path.relative_to(self.folder)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif path.name.endswith(_UNCOPIED):
                continue
            elif kept is None or (model := self._models.get(path)) is None:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            elif (content := model.after_power_cut(kept)) is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)


class SimulatedDisk:
    """The file layer under every database in a folder, while `mounted`.

    Args:
        folder: best in memory (tmpfs).
        rng: chooses what a power cut keeps.
        step: is told before each operation, its kind and the file's name; it may end the process.
    """

    def __init__(self, folder: Path, rng: random.Random, step: Step) -> None:
        self._folder = folder
        self._rng = rng
        self._step = step
        self._images: dict[Path, Image] = {}
        self._count = 0

    def image(self) -> Image:
        """An empty folder for a process."""
        self._count += 1
        folder = self._folder / f"{self._count:04}"
        folder.mkdir()
        image = self._images[folder] = Image(folder, self._step)
        return image

    def crash(self, image: Image, *, power: bool) -> Image:
        """End the process that has these files, and return what the next one has.

        Args:
            power: the machine loses power too; else the kernel has everything that was written.
        """
        image.frozen = True
        after = self.image()
        chance = self._rng.choice((0.0, 0.5, 0.5, 0.9, 1.0))
        image.copy(after.folder, (lambda: self._rng.random() < chance) if power else None)
        return after

    def of(self, path: Path) -> Image | None:
        """Whose file this is."""
        for folder, image in self._images.items():
            if path.is_relative_to(folder):
                return image
        return None

    @contextmanager
    def mounted(self) -> Generator[None, None, None]:
        """Every database opened in the block is on this disk, if it is in the folder; no other may be open now."""
        for name in (CHECKSUM_VFS, _VFS):
            if name in apsw.vfs_names():
                apsw.unregister_vfs(name)
        layer = _Layer(self)
        load_checksums()  # over the layer, which is SQLite's default now
        try:
            yield
        finally:
            gc.collect()  # closes what dead processes left open
            for name in (CHECKSUM_VFS, _VFS):
                apsw.unregister_vfs(name)
            del layer


class _Layer(apsw.VFS):
    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        super().__init__(_VFS, "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 -- SQLite's name
        """Open a file."""
        path = None if name is None else Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        image = None if path is None else self._disk.of(path)
        if path is None or image is None or not flags[0] & (apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_WAL):
            return apsw.VFSFile("unix", name, flags)
        return _File(image, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """Delete a file; that it is gone is durable."""
        path = Path(filename)
        image = self._disk.of(path)
        if image is not None:
            image.before("delete", path)
            image.deleted(path)
        super().xDelete(filename, syncdir)


class _File(apsw.VFSFile):
    def __init__(self, image: Image, path: Path, name: Any, flags: list[int]) -> None:
        existed = path.exists()
        super().__init__("unix", name, flags)
        self._image = image
        self._path = path
        self._model = image.opened(path, existed=existed)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """Write."""
        self._image.before("write", self._path)
        super().xWrite(data, offset)
        self._model.unsynced.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        """Cut off."""
        self._image.before("truncate", self._path)
        super().xTruncate(newsize)
        self._model.unsynced.append((newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Make durable."""
        self._image.before("sync", self._path)
        try:
            self._image.sync(self._path, self._model)
        except OSError as error:
            raise _error(apsw.SQLITE_IOERR_FSYNC, str(error)) from error


def _error(code: int, text: str) -> Exception:
    """With the codes that an error of SQLite's own has."""
    error: Any = apsw.exception_for(code)
    error.args = (text,)
    error.error_offset = -1  # of no place in a statement
    refused: Exception = error
    return refused
