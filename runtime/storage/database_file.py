"""The shared database as files: created whole, locked, checked, upgraded, its pages checksummed.

A data directory holds `heliograph.db` (with `-wal` and `-shm` while open), `lock` with the pid of the server that has
it, and `lineage`, a random id of this copy of the data. Whoever puts an older copy of the database in place deletes
`lineage`: the next start makes a new one. A copy has `lineages` (`ancestry`).

A row of `history` says what was there before a change. Its `key` tells of what: a blob, of that key in the slot `owner`
(NULL: the key was absent); 0, the due time of the actor with the number `owner` (NULL: no alarm); 1, the slot of that
actor. A row whose `key` is NULL is a point of the history; its `value` is the time. Ids have no gaps. Where there is a
`size`, the value is deflated (`deflated`), and had that many bytes.

`keys` has rowids because without them a value of more than a quarter of a page takes a page of its own. A database
that was made without them stays so: the same statements do for both.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import apsw
import attrs

from runtime.storage.ancestry import read_ancestors
from runtime.storage.checksums import CHECKSUM_VFS, load_checksums, reserve_checksums
from runtime.storage.log_room import LogRoom
from runtime.storage.store import StoreUnusable

FORMAT = 4
"""The version of the schema below, kept in the database."""
DATABASE = "heliograph.db"
LINEAGE = "lineage"
_PIECE_BYTES = 100_000  # SQLite's layer takes no more than 131,071; a power of two could be taken for a page
RESTORING = "restoring"  # exists while a copy is put in place of the data

DAMAGED = (
    "If the file is damaged, put a backup in its place (heliograph restore --from); "
    "`sqlite3 heliograph.db .recover` saves what can be read."
)

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE actors (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice: the history may still speak of an old one
    namespace TEXT NOT NULL,
    id BLOB NOT NULL,
    name BLOB,
    slot INTEGER, -- where its keys are: its number, after a delete_all minus an id of the history
    empty INTEGER NOT NULL DEFAULT 0, -- nothing was stored since its last delete_all
    since INTEGER DEFAULT 0, -- its history is whole from this id on; NULL: it keeps none
    restored INTEGER, -- the newest id of the history when it was last brought back to a bookmark
    pending INTEGER, -- the id that its next instance is to begin from
    UNIQUE (namespace, id)
);
CREATE TABLE keys (slot INTEGER, key BLOB, value BLOB NOT NULL, PRIMARY KEY (slot, key));
CREATE TABLE alarms (actor INTEGER PRIMARY KEY, due REAL NOT NULL);
CREATE TABLE dropped ( -- emptied when the history does not reach back any more
    since INTEGER PRIMARY KEY, -- id in the history, negative when it may be emptied at once
    slot INTEGER NOT NULL,
    actor INTEGER NOT NULL
);
CREATE TABLE history (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, key, value, size INTEGER);
"""

_TO_FORMAT_2 = """
ALTER TABLE actors RENAME COLUMN slot TO number;
ALTER TABLE actors ADD COLUMN slot INTEGER;
ALTER TABLE actors ADD COLUMN empty INTEGER NOT NULL DEFAULT 0;
ALTER TABLE actors ADD COLUMN since INTEGER DEFAULT 0;
ALTER TABLE actors ADD COLUMN restored INTEGER;
ALTER TABLE actors ADD COLUMN pending INTEGER;
UPDATE actors SET slot = number;
ALTER TABLE alarms RENAME COLUMN slot TO actor;
ALTER TABLE dropped RENAME TO dropped_1;
CREATE TABLE dropped (since INTEGER PRIMARY KEY, slot INTEGER NOT NULL, actor INTEGER NOT NULL);
INSERT INTO dropped SELECT -slot, slot, slot FROM dropped_1;
DROP TABLE dropped_1;
CREATE TABLE history (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, key, value);
"""


@attrs.frozen
class DatabaseFile:
    """An open data directory.

    Attributes:
        writer, reader: the connection that writes, and one that reads. room: of the write-ahead log.
        lineage, ancestors: see `ancestry`.
    """

    writer: apsw.Connection
    reader: apsw.Connection
    room: LogRoom
    lineage: str
    ancestors: Mapping[str, int]
    _log: int
    _lock: int

    def close(self) -> None:
        """Move everything into the database file and let go of the directory."""
        try:
            self.reader.close()
            with contextlib.suppress(apsw.Error):  # what is committed is safe in the WAL, where the next start finds it
                self.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            with contextlib.suppress(apsw.Error):  # it tries once more, and is closed all the same
                self.writer.close()
        finally:
            os.close(self._log)
            os.close(self._lock)


Upgrades = Mapping[int, Callable[[apsw.Connection], None]]


def _add_history(connection: apsw.Connection) -> None:
    connection.execute(_TO_FORMAT_2)


def _let_facets_in(_: apsw.Connection) -> None:
    """Facets are actors with longer ids, and keys that are no text; a version that knows none would show both."""


def _let_values_be_deflated(connection: apsw.Connection) -> None:
    connection.execute("ALTER TABLE history ADD COLUMN size INTEGER")


UPGRADES: Upgrades = {1: _add_history, 2: _let_facets_in, 3: _let_values_be_deflated}


def open_database(
    directory: Path, token_bytes: Callable[[int], bytes], *, version: int = FORMAT, upgrades: Upgrades = UPGRADES
) -> DatabaseFile:
    """Open the data directory, creating what is missing. Blocks.

    Args:
        directory: where the data lives.
        token_bytes: for a new lineage.
        version: the format that this code reads and writes.
        upgrades: by format, the step to the next one; each runs in one transaction.

    Raises:
        StoreUnusable: another server has it, the format is newer, the files are damaged or no database of ours.
    """
    load_checksums()
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True)
            sync_path(directory.parent)
        lock = lock_directory(directory)
    except OSError as error:
        raise StoreUnusable(f"cannot use the data directory {directory}: {error}") from error
    path = directory / DATABASE
    log = -1
    connections: list[apsw.Connection] = []
    try:
        if (directory / RESTORING).exists():
            raise StoreUnusable(
                f"{directory} is incomplete: heliograph restore --from was cut short there; do it again"
            )
        created = not path.exists()
        if created:
            _create(path, version)
        renew_log(Path(f"{path}-wal"))
        writer = _connect(path)
        connections.append(writer)
        _check(writer, path)
        _upgrade(writer, path, version, upgrades)
        reader = _connect(path)
        connections.append(reader)
        reader.pragma("query_only", True)
        lineage = _lineage(directory / LINEAGE, token_bytes, fresh=created)
        log = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
        ancestors = {} if created else read_ancestors(directory)
        return DatabaseFile(writer, reader, LogRoom(log), lineage, ancestors, log, lock)
    except (apsw.Error, OSError, StoreUnusable) as error:
        for connection in connections:
            connection.close()
        if log >= 0:
            os.close(log)
        os.close(lock)
        if isinstance(error, StoreUnusable):
            raise
        raise StoreUnusable(f"cannot open {path}: {error}. {DAMAGED}") from error


def lock_directory(directory: Path) -> int:
    """Take the directory for this process; the kernel lets go of it when the process ends, however it ends.

    Returns:
        A descriptor; closing it gives the directory back.

    Raises:
        StoreUnusable: another process has it. OSError: the file `lock` cannot be opened.
    """
    path = directory / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreUnusable(
            f"the data directory {directory} is in use by the server with process id {pid}; "
            "stop that one, or use another directory (--data)"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def open_read_only(directory: Path) -> tuple[apsw.Connection, str]:
    """The database of a data directory, whether a server has it or not, and its lineage. Blocks.

    Nothing is written, locked or upgraded. A server that runs is not disturbed; while a statement runs, its
    write-ahead log grows.

    Raises:
        StoreUnusable: there is none, it is damaged, or it has another format.
    """
    load_checksums()
    path = directory / DATABASE
    if not path.exists():
        raise StoreUnusable(f"no data in {directory}: there is no {DATABASE}; say where it is (--data)")
    try:
        flags = apsw.SQLITE_OPEN_READONLY
        connection = apsw.Connection(str(path), flags=flags, vfs=CHECKSUM_VFS)
        try:
            connection.set_busy_timeout(1_000)
            found = connection.execute("SELECT value FROM meta WHERE name = 'format'").get
        except apsw.Error:
            connection.close()
            raise
        if found != FORMAT:
            connection.close()
            raise StoreUnusable(
                f"{path} has format {found}, and this version reads format {FORMAT}; "
                "heliograph serve brings an older one up to date"
            )
        lineage = directory / LINEAGE
        return connection, lineage.read_text("ascii").strip() if lineage.exists() else ""
    except (apsw.Error, OSError) as error:
        raise StoreUnusable(f"cannot read {path}: {error}. {DAMAGED}") from error


def _create(path: Path, version: int) -> None:
    """Build the database beside its place and move it there, so that a crash leaves none or a whole one."""
    draft = path.with_suffix(".new")
    for left_over in (draft, Path(f"{draft}-wal"), Path(f"{draft}-shm"), Path(f"{draft}-journal")):
        left_over.unlink(missing_ok=True)
    connection = apsw.Connection(str(draft), vfs=CHECKSUM_VFS)
    try:
        reserve_checksums(connection)
        connection.pragma("journal_mode", "wal")
        connection.execute(f"BEGIN; {_SCHEMA} COMMIT")
        connection.execute("INSERT INTO meta VALUES ('format', ?)", (version,))
    finally:
        connection.close()
    sync_path(draft)
    draft.rename(path)
    sync_path(path.parent)


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=CHECKSUM_VFS, statementcachesize=64)
    try:
        connection.set_busy_timeout(1_000)
        connection.pragma("synchronous", "FULL")
        connection.pragma("wal_autocheckpoint", 0)
        connection.pragma("cache_size", -16_384)  # KiB
        connection.pragma("temp_store", "MEMORY")
    except apsw.Error:
        connection.close()
        raise
    return connection


def _check(connection: apsw.Connection, path: Path) -> None:
    ours = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name IN ('meta', 'actors', 'keys')").get
    if ours != 3:
        raise StoreUnusable(f"{path} is no Heliograph database; give another data directory (--data)")
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise StoreUnusable(f"{path}: the file system allows no write-ahead log (journal mode is {mode!r})")
    if str(connection.pragma("checksum_verification")) != "1":
        raise StoreUnusable(f"{path} has no page checksums; rebuild it from a backup with the command that made it")


def _upgrade(connection: apsw.Connection, path: Path, version: int, upgrades: Upgrades) -> None:
    found = connection.execute("SELECT value FROM meta WHERE name = 'format'").get
    if not isinstance(found, int) or found > version:
        raise StoreUnusable(
            f"{path} has format {found}, written by a newer Heliograph; this one reads formats up to {version}. "
            "Start the newer version, or give another data directory (--data)."
        )
    for step in range(found, version):
        if step not in upgrades:
            raise StoreUnusable(f"{path} has format {found}; this version cannot upgrade format {step}")
        with connection:
            upgrades[step](connection)
            connection.execute("UPDATE meta SET value = ? WHERE name = 'format'", (step + 1,))


def _lineage(path: Path, token_bytes: Callable[[int], bytes], *, fresh: bool) -> str:
    if path.exists() and not fresh:
        found = path.read_text("ascii").strip()
        if found:
            return found
    lineage = token_bytes(16).hex()
    draft = path.with_suffix(".new")
    draft.write_text(lineage + "\n", "ascii")
    sync_path(draft)
    draft.rename(path)
    sync_path(path.parent)
    return lineage


def renew_log(log: Path) -> None:
    """Write a log that a process has left behind over itself, and sync it. Blocks.

    The kernel has all of it, but the disk perhaps not; and where a sync has failed, the kernel takes it for written
    and no later sync writes it. With the power would go what was read from there, and everything that was committed
    behind it. So it is written once more.

    Raises:
        apsw.Error: the disk refuses.
    """
    if not log.exists() or not log.stat().st_size:
        return
    file = apsw.VFSFile("", str(log), [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0])
    try:
        size = file.xFileSize()
        for at in range(0, size, _PIECE_BYTES):
            file.xWrite(file.xRead(min(_PIECE_BYTES, size - at), at), at)
        file.xSync(apsw.SQLITE_SYNC_FULL)
    finally:
        file.xClose()


def sync_path(path: Path) -> None:
    """Make the content of a file, or the entries of a directory, last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
