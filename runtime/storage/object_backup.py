"""The copy of one SQL object with its history, whether a server has it open or not.

It is what a server that was killed at one moment would have left, opened and closed once. While a transaction that only
reads is open, no frame from after it is moved into the database, and the log does not begin anew over frames that are
not moved yet. So the database comes first, then the history, which has what was replaced in it until then, and then the
log, which has all that the history ends with.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import apsw

from runtime.storage.ancestry import add_ancestor
from runtime.storage.checksums import CHECKSUM_VFS, load_checksums
from runtime.storage.object_file import settle
from runtime.storage.object_history import HISTORY_SUFFIX, ObjectHistory, history_path
from runtime.storage.object_log import open_pages
from runtime.storage.object_restore import restores_noted
from runtime.storage.store import StoreUnusable

_PIECE_BYTES = 1 << 20
_ATTEMPTS = 10


def objects_in(folder: Path) -> list[Path]:
    """The databases of SQL objects below a folder, those included of which only the history is left."""
    histories = {path.with_suffix(".sqlite") for path in folder.glob(f"**/*{HISTORY_SUFFIX}")}
    return sorted(histories.union(folder.glob("**/*.sqlite")))


def copy_object(database: Path, target: Path, now: Callable[[], float], *, lineage: str = "") -> None:
    """Copy an object as of one moment. Blocks; nothing of the copy is synced.

    Args:
        database, target: where it is, which may be gone by now, and where the copy is to be.
        now: wall clock, seconds.
        lineage: of the data directory; the bookmarks that it gave out until now stay good in the copy.

    Raises:
        StoreUnusable: the database is damaged, or is brought back again and again meanwhile.
        StorageFailed, OSError, apsw.Error: it cannot be read, or the disk refuses.
    """
    load_checksums()
    for _ in range(_ATTEMPTS):
        before = _state(database)
        _copy_files(database, target)
        if _state(database) == before:
            break
        _remove(target)  # removed, made or brought back meanwhile, which pays no attention to transactions
    else:
        raise StoreUnusable(f"{database} was made and removed, or brought back, {_ATTEMPTS} times; try again")
    log = _log(target)
    if log.exists() or restores_noted(target)[0] is not None:
        settle(target, now)
        log.unlink(missing_ok=True)
    if target.exists():
        _check(target, database)
    history = ObjectHistory(target)
    history.recover(crashed=False)
    if lineage and history.last is not None:
        add_ancestor(history.folder, lineage, history.last.end)


def _copy_files(database: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_reading(database))
            _copy_pages(database, target)
        except apsw.CantOpenError:
            if database.exists():
                raise
            target.unlink(missing_ok=True)  # gone
        _copy_history(history_path(database), history_path(target))
        if target.exists():
            _copy_log(_log(database), _log(target))


@contextmanager
def _reading(database: Path) -> Generator[None, None, None]:
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY, vfs=CHECKSUM_VFS)
    try:
        connection.set_busy_timeout(1_000)
        connection.execute("BEGIN; SELECT count(*) FROM sqlite_schema").fetchall()
        yield
    finally:
        connection.close()


def _copy_pages(database: Path, target: Path) -> None:
    source = open_pages(database)
    try:
        with target.open("wb") as file:
            for at in range(0, source.xFileSize(), _PIECE_BYTES):
                file.write(source.xRead(min(_PIECE_BYTES, source.xFileSize() - at), at))
    finally:
        source.xClose()


def _copy_history(folder: Path, target: Path) -> None:
    if not folder.is_dir():
        return
    target.mkdir(exist_ok=True)
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):  # forgotten meanwhile
            shutil.copy2(path, target / path.name)  # its age is told from the time of the file


def _copy_log(log: Path, target: Path) -> None:
    if log.exists() and log.stat().st_size > 0:
        shutil.copy2(log, target)


def _check(target: Path, database: Path) -> None:
    """Look at every page, which has a checksum."""
    connection = apsw.Connection(str(target), flags=apsw.SQLITE_OPEN_READONLY, vfs=CHECKSUM_VFS)
    try:
        found = connection.pragma("quick_check")
    finally:
        connection.close()
        for left in (_log(target), target.with_name(f"{target.name}-shm")):
            left.unlink(missing_ok=True)
    if found != "ok":
        raise StoreUnusable(f"{database} is damaged: {found}")


def _state(database: Path) -> object:
    try:
        inode = database.stat().st_ino
    except FileNotFoundError:
        inode = None
    return inode, restores_noted(database)


def _remove(target: Path) -> None:
    shutil.rmtree(history_path(target), ignore_errors=True)
    for path in (target, _log(target)):
        path.unlink(missing_ok=True)


def _log(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")
