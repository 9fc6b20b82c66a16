"""Copies of a data directory: made while a server runs, and put in place when none does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import apsw

from runtime.storage.checksums import CHECKSUM_VFS, load_checksums
from runtime.storage.database_file import (
    DATABASE,
    LINEAGE,
    RESTORING,
    lock_directory,
    open_read_only,
    sync_path,
)
from runtime.storage.store import StoreUnusable

OBJECTS = "objects"  # the databases of SQL classes
_INCOMING, _REPLACED = "incoming", "replaced"


def object_databases(directory: Path) -> list[Path]:
    """The databases of SQL classes in a data directory; each file is named after its object's id."""
    return sorted((directory / OBJECTS).glob("**/*.sqlite"))


def back_up(directory: Path, destination: Path) -> int:
    """Copy a data directory, whether a server has it or not; the bytes of the copy. Blocks.

    Each database is copied as of one moment, all that was durable then included.

    Raises:
        StoreUnusable: there is no data, it is damaged, the destination exists, or the disk refuses.
    """
    if destination.exists():
        raise StoreUnusable(f"{destination} exists; give a folder that does not")
    open_read_only(directory)[0].close()
    draft = destination.with_name(f"{destination.name}.part")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        # The index of all objects comes last: nothing of theirs is missing in the copy that it knows of.
        for source in [*object_databases(directory), directory / DATABASE]:
            _copy(source, draft / source.relative_to(directory))
        draft.rename(destination)
        sync_path(destination.parent)
    except (apsw.Error, OSError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise StoreUnusable(f"cannot copy {directory} to {destination}: {error}") from error
    return sum(path.stat().st_size for path in destination.rglob("*") if path.is_file())


def put_in_place(directory: Path, copy: Path) -> Path | None:
    """Make a copy the data of a directory that no server has; where the data that was there is now. Blocks.

    It gets another lineage, so that what clients remember of the replaced data is not taken for knowledge of this.
    Cut short, it leaves a directory that no server starts on until it was done again.

    Raises:
        StoreUnusable: the copy is damaged or none, a server has the directory, or the disk refuses.
    """
    connection, _ = open_read_only(copy)
    try:
        damage = connection.pragma("quick_check")
    except apsw.Error as error:
        raise StoreUnusable(f"{copy} is damaged: {error}") from error
    finally:
        connection.close()
    if damage != "ok":
        raise StoreUnusable(f"{copy} is damaged: {damage}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = lock_directory(directory)
        try:
            return _replace(directory, copy)
        finally:
            os.close(lock)
    except (apsw.Error, OSError) as error:
        raise StoreUnusable(f"cannot put {copy} in place in {directory}: {error}") from error


def _replace(directory: Path, copy: Path) -> Path | None:
    incoming, replaced = directory / _INCOMING, directory / _REPLACED
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    for source in [*object_databases(copy), copy / DATABASE]:
        _copy(source, incoming / source.relative_to(copy))
    marker = directory / RESTORING
    if not marker.exists():  # else an attempt was cut short, and some of what it replaced is put aside
        shutil.rmtree(replaced, ignore_errors=True)
        marker.touch()
        sync_path(directory)
    replaced.mkdir(exist_ok=True)
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", LINEAGE, OBJECTS):
        if (replaced / name).exists():
            _remove(directory / name)  # of an attempt that was cut short
        elif (directory / name).exists():
            (directory / name).rename(replaced / name)
    for name in (OBJECTS, DATABASE):
        if (incoming / name).exists():
            (incoming / name).rename(directory / name)
    incoming.rmdir()
    sync_path(replaced)
    sync_path(directory)
    marker.unlink()
    sync_path(directory)
    if not any(replaced.iterdir()):
        replaced.rmdir()
        return None
    return replaced


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    load_checksums()
    target.parent.mkdir(parents=True, exist_ok=True)
    read = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY, vfs=CHECKSUM_VFS)
    try:
        write = apsw.Connection(str(target), vfs=CHECKSUM_VFS)
        try:
            read.set_busy_timeout(1_000)
            write.pragma("synchronous", "OFF")  # it is synced as a whole
            with write.backup("main", read, "main") as backup:
                backup.step(-1)
        finally:
            write.close()
    finally:
        read.close()
    sync_path(target)
    for folder in (target.parent, *target.parent.parents[:3]):
        sync_path(folder)
