"""Copies of a data directory: made while a server runs, and put in place when none does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw

from runtime.errors import StorageFailed
from runtime.storage.ancestry import LINEAGES, add_ancestor
from runtime.storage.checksums import CHECKSUM_VFS, load_checksums
from runtime.storage.database_file import (
    DATABASE,
    LINEAGE,
    RESTORING,
    lock_directory,
    open_read_only,
    sync_path,
)
from runtime.storage.history import HistoryReader
from runtime.storage.object_backup import copy_object, objects_in
from runtime.storage.store import StoreUnusable

OBJECTS = "objects"  # the databases of SQL classes
_INCOMING, _REPLACED = "incoming", "replaced"


def back_up(directory: Path, destination: Path, now: Callable[[], float]) -> int:
    """Copy a data directory, whether a server has it or not; the bytes of the copy. Blocks.

    Each database is copied as of one moment with its history, all that was durable then included.

    Args:
        directory, destination: from where to where.
        now: wall clock, seconds.

    Raises:
        StoreUnusable: there is no data, it is damaged, the destination exists, or the disk refuses.
    """
    if destination.exists():
        raise StoreUnusable(f"{destination} exists; give a folder that does not")
    connection, lineage = open_read_only(directory)
    connection.close()
    draft = destination.with_name(f"{destination.name}.part")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        # The index of all objects comes last: nothing of theirs is missing in the copy that it knows of.
        _copy_objects(directory, draft, now, lineage)
        _copy(directory / DATABASE, draft / DATABASE)
        _copy_ancestors(directory, draft)
        if lineage:
            add_ancestor(draft, lineage, _newest(draft))
        _sync_all(draft)
        draft.rename(destination)
        sync_path(destination.parent)
    except (apsw.Error, OSError, StorageFailed) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise StoreUnusable(f"cannot copy {directory} to {destination}: {error}") from error
    return sum(path.stat().st_size for path in destination.rglob("*") if path.is_file())


def put_in_place(directory: Path, copy: Path, now: Callable[[], float]) -> Path | None:
    """Make a copy the data of a directory that no server has; where the data that was there is now. Blocks.

    It gets another lineage, so that what clients remember of the replaced data is not taken for knowledge of this;
    bookmarks from before the copy was made stay good. Cut short, it leaves a directory that no server starts on until
    it was done again.

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
            return _replace(directory, copy, now)
        finally:
            os.close(lock)
    except (apsw.Error, OSError, StorageFailed) as error:
        raise StoreUnusable(f"cannot put {copy} in place in {directory}: {error}") from error


def _replace(directory: Path, copy: Path, now: Callable[[], float]) -> Path | None:
    incoming, replaced = directory / _INCOMING, directory / _REPLACED
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    _copy_objects(copy, incoming, now, "")
    _copy(copy / DATABASE, incoming / DATABASE)
    _copy_ancestors(copy, incoming)
    _sync_all(incoming)
    marker = directory / RESTORING
    if not marker.exists():  # else an attempt was cut short, and some of what it replaced is put aside
        shutil.rmtree(replaced, ignore_errors=True)
        marker.touch()
        sync_path(directory)
    replaced.mkdir(exist_ok=True)
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", LINEAGE, LINEAGES, OBJECTS):
        if (replaced / name).exists():
            _remove(directory / name)  # of an attempt that was cut short
        elif (directory / name).exists():
            (directory / name).rename(replaced / name)
    for name in (OBJECTS, LINEAGES, DATABASE):
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


def _copy_objects(directory: Path, target: Path, now: Callable[[], float], lineage: str) -> None:
    for database in objects_in(directory / OBJECTS):
        copy_object(database, target / database.relative_to(directory), now, lineage=lineage)


def _copy_ancestors(directory: Path, target: Path) -> None:
    if (directory / LINEAGES).exists():
        shutil.copy2(directory / LINEAGES, target)


def _newest(directory: Path) -> int:
    """The newest point of a shared database."""
    connection, _ = open_read_only(directory)
    try:
        return HistoryReader(connection).newest
    finally:
        connection.close()


def _sync_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        sync_path(path)


def _copy(source: Path, target: Path) -> None:
    load_checksums()
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
