"""A disk that loses what was not synced: SQLite's own file layer, inherited, and `os.fsync`.

Real SQLite runs on real files of a folder in memory; they are what the process sees. `Image` knows what is durable of
them. Every process has a folder of its own, so that nothing that a dead one still does reaches the next one.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from runtime.sim.image import Image, Step, disk_error
from runtime.storage.checksums import CHECKSUM_VFS, load_checksums

_VFS = "heliograph-sim"


def _nobody(what: str, name: str) -> None:
    """Is told of what happens when nobody else is."""


class SimulatedDisk:
    """The file layer under every database in a folder, while `mounted`.

    Args:
        folder: best in memory (tmpfs).
        rng: chooses what a power cut keeps, and what SQLite takes for chance (which ends up in its logs).
        step: is told before each operation, its kind and the file's name; it may end the process.

    Attributes:
        folder: as given. chance: so many bytes.
        step: as given; may be another one before the first image is made.
    """

    def __init__(self, folder: Path, rng: random.Random, step: Step = _nobody) -> None:
        self.step = step
        self.folder = folder
        self._rng = rng
        self.chance = random.Random(rng.random()).randbytes  # noqa: S311 -- reproducible on purpose
        self._images: dict[Path, Image] = {}
        self._count = 0

    def image(self) -> Image:
        """An empty folder for a process."""
        self._count += 1
        folder = self.folder / f"{self._count:04}"
        folder.mkdir()
        image = self._images[folder] = Image(folder, self.step)
        return image

    def crash(self, image: Image, *, power: bool) -> Image:
        """End the process that has these files, and return what the next one has.

        Args:
            power: the machine loses power too; else the kernel has everything that was written.
        """
        after = self.image()
        chance = self._rng.choice((0.0, 0.5, 0.5, 0.9, 1.0))
        image.leave(after, (lambda: self._rng.random() < chance) if power else None)
        return after

    def of(self, path: Path) -> Image | None:
        """Whose file this is."""
        for folder, image in self._images.items():
            if path.is_relative_to(folder):
                return image
        return None

    @contextmanager
    def mounted(self) -> Generator[None, None, None]:
        """Every database opened in the block is on this disk, if it is in the folder; no other may be open now.

        What was made in the block is gone after it: a run leaves nothing in the memory of its process.
        """
        for name in (CHECKSUM_VFS, _VFS):
            if name in apsw.vfs_names():
                apsw.unregister_vfs(name)
        layer = _Layer(self)
        apsw.randomness(0)  # from now on another chance, which is asked of the layer: that is SQLite's default now
        load_checksums()  # over the layer
        system: Any = os
        fsync = system.fsync
        system.fsync = partial(self._sync, fsync)
        try:
            yield
        finally:
            system.fsync = fsync
            self._images.clear()
            self.step = _nobody
            gc.collect()  # closes what dead processes left open
            for name in (CHECKSUM_VFS, _VFS):
                apsw.unregister_vfs(name)
            del layer
            apsw.randomness(0)

    def _sync(self, fsync: Callable[[int], None], file: int) -> None:
        """What is made to last without SQLite: notes, histories, names in folders."""
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        image = self.of(path)
        if image is None:
            fsync(file)
        else:
            image.sync_path(path)


class _Layer(apsw.VFS):
    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        super().__init__(_VFS, "unix", makedefault=True)

    def xRandomness(self, numbytes: int) -> bytes:  # noqa: N802
        """Chance."""
        return self._disk.chance(numbytes)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 -- SQLite's name
        """Open a file."""
        path = None if name is None else Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        image = None if path is None else self._disk.of(path)
        if path is None or image is None or not flags[0] & (apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_WAL):
            return apsw.VFSFile("unix", name, flags)
        kind = _DamagedFile if image.damages else _File
        return kind(image, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """Delete a file; that it is gone is durable when that was asked for."""
        path = Path(filename)
        image = self._disk.of(path)
        if image is not None:
            image.before("delete", path)
        super().xDelete(filename, syncdir)
        if image is not None and syncdir:
            image.sync_names(path.parent)


class _File(apsw.VFSFile):
    def __init__(self, image: Image, path: Path, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._image = image
        self._path = path
        self._model = image.opened(path)
        self._names_too = bool(flags[0] & apsw.SQLITE_OPEN_WAL)  # SQLite's first sync of a log makes its name last

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
            self._image.sync(self._model)
        except OSError as error:
            raise disk_error(apsw.SQLITE_IOERR_FSYNC, str(error)) from error
        if self._names_too:
            self._names_too = False
            self._image.sync_names(self._path.parent)


class _DamagedFile(_File):
    """A file of a folder in which a bit has flipped; reads of others are none of the layer's business."""

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        """Read."""
        data = super().xRead(amount, offset)
        self._image.read(self._path, data, offset)
        return data
