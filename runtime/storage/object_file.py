"""The database file of one object of a SQL class: created, opened, checkpointed, closed. Everything here blocks."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from urllib.parse import quote, unquote

import apsw
import attrs

from runtime import limits
from runtime.errors import StorageFailed
from runtime.ids import ActorId
from runtime.limits import StorageLimits
from runtime.storage.checksums import CHECKSUM_VFS, load_checksums, reserve_checksums
from runtime.storage.sql_guard import Guard

PAGE_BYTES = 4_096
_CACHE_KIB = 1_024
KEYS, METADATA = "_cf_KV", "_cf_METADATA"
"""The runtime's tables, made when they are first needed."""

ALARM, NAME = 1, 2
"""The rows of METADATA: when the alarm is due, and the name of the object that has it."""

_IN_USE = "in-use"
_SUFFIX, _LOG_SUFFIX = ".sqlite", ".sqlite-wal"
_TABLES = (
    "SELECT count(*) FROM sqlite_schema "
    "WHERE name NOT LIKE 'sqlite^_%' ESCAPE '^' AND name NOT LIKE '^_cf^_%' ESCAPE '^'"
)


def object_path(directory: Path, actor: ActorId) -> Path:
    """Where an object's database is: `<namespace>/<first two digits of the id>/<id>.sqlite`."""
    text = str(actor)
    return directory / quote(actor.namespace, safe="") / text[:2] / f"{text}{_SUFFIX}"


def was_in_use(directory: Path) -> bool:
    """Whether a server that used this folder ended without closing everything."""
    return (directory / _IN_USE).exists()


def begin_use(directory: Path) -> None:
    """Note that files are open. Raises: StorageFailed."""
    try:
        if not directory.is_dir():
            _make_directory(directory)
        (directory / _IN_USE).touch()
        _sync(directory)
    except OSError as error:
        raise StorageFailed(f"cannot use {directory}: {error}") from error


def end_use(directory: Path) -> None:
    """Note that every file is closed."""
    (directory / _IN_USE).unlink(missing_ok=True)


def logs_left_behind(directory: Path) -> list[ActorId]:
    """The objects whose write-ahead log was not moved into the database: they were open when the server ended."""
    found: list[ActorId] = []
    for path in sorted(directory.glob(f"*/*/*{_LOG_SUFFIX}")):
        with contextlib.suppress(ValueError):
            raw = bytes.fromhex(path.name.removesuffix(_LOG_SUFFIX))
            found.append(ActorId(unquote(path.parent.parent.name), raw))
    return found


@attrs.define(eq=False)
class ObjectFile:
    """An open database. Its connection is used on the loop, and only there, until it is closed.

    Attributes:
        path: of the database. connection: commits without waiting for the disk. guard: its authorizer.
        alarm, name: as they were found. log_pages: how long the write-ahead log is. unsynced: it has grown.
    """

    path: Path
    connection: apsw.Connection
    guard: Guard
    alarm: float | None
    name: str | None
    log_pages: int = 0
    unsynced: bool = False

    @property
    def log(self) -> Path:
        """The write-ahead log, which makes commits durable once it is synced."""
        return self.path.with_name(f"{self.path.name}-wal")

    def checkpoint(self) -> None:
        """Move the log into the database, on a connection of its own: the loop goes on reading and committing."""
        with contextlib.suppress(apsw.Error):  # nothing is lost, the log only stays long; the next commit asks again
            connection = _connect(self.path)
            try:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            finally:
                connection.close()

    def close(self, *, keep_log: bool = False) -> bool:
        """Roll back what is open, move the log into the database and close; whether anything was stored.

        An object that has stored nothing, or not any more, leaves no file.

        Args:
            keep_log: leave the log as it is, for the next start to look at.

        Raises:
            StorageFailed: the disk does not take what the log has.
        """
        connection = self.connection
        if keep_log:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close(True)
            return True
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        try:
            holds = _holds_anything(connection)
            connection.close(True)  # SQLite removes the log once the database has all of it
        except apsw.Error as error:
            connection.close(True)
            raise StorageFailed(f"{self.path} cannot be closed: {error}") from error
        if self.log.exists():
            raise StorageFailed(f"{self.path} did not take what its log has, which is kept for the next start")
        if not holds:
            self.path.unlink(missing_ok=True)
            _sync(self.path.parent)
        return holds


def open_object(path: Path, storage_limits: StorageLimits) -> ObjectFile:
    """Open the database of an object, creating it if there is none.

    Raises:
        StorageFailed: it is damaged, or the disk refuses.
    """
    load_checksums()
    connection: apsw.Connection | None = None
    try:
        if not path.parent.is_dir():
            _make_directory(path.parent)
        fresh = not path.exists() or path.stat().st_size == 0
        connection = _connect(path)
        if fresh:
            reserve_checksums(connection)
        mode = connection.pragma("journal_mode", "wal")
        if mode != "wal":
            raise StorageFailed(f"{path}: the file system allows no write-ahead log (journal mode is {mode!r})")
        # The first write of a log syncs its header and the directory; better here than on the loop.
        opened = connection.pragma("user_version")
        connection.pragma("user_version", (int(str(opened)) + 1) % 2**31)
        _bound(connection, storage_limits)
        guard = Guard()
        connection.authorizer = guard
        file = ObjectFile(path, connection, guard, *_alarm_and_name(connection))
        connection.set_wal_hook(_LogLength(file))
        return file
    except (apsw.Error, OSError) as error:
        if connection is not None:
            connection.close(True)
        raise StorageFailed(f"{path} cannot be opened: {error}") from error
    except StorageFailed:
        if connection is not None:
            connection.close(True)
        raise


class _LogLength:
    def __init__(self, file: ObjectFile) -> None:
        self._file = file

    def __call__(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._file.log_pages = pages
        self._file.unsynced = True
        return apsw.SQLITE_OK


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), vfs=CHECKSUM_VFS, statementcachesize=100)
    try:
        connection.set_busy_timeout(1_000)
        connection.pragma("synchronous", "NORMAL")
        connection.pragma("wal_autocheckpoint", 0)
        connection.pragma("cache_size", -_CACHE_KIB)
        connection.pragma("temp_store", "MEMORY")
        connection.pragma("foreign_keys", True)
    except apsw.Error:
        connection.close()
        raise
    return connection


def _bound(connection: apsw.Connection, storage_limits: StorageLimits) -> None:
    for name, value in (
        (apsw.SQLITE_LIMIT_LENGTH, storage_limits.row_bytes),
        (apsw.SQLITE_LIMIT_SQL_LENGTH, limits.SQL_TEXT_BYTES + 1),
        (apsw.SQLITE_LIMIT_VARIABLE_NUMBER, limits.SQL_PARAMETERS),
        (apsw.SQLITE_LIMIT_COLUMN, limits.SQL_COLUMNS),
        (apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, limits.SQL_LIKE_BYTES),
        (apsw.SQLITE_LIMIT_FUNCTION_ARG, storage_limits.function_arguments),
        (apsw.SQLITE_LIMIT_COMPOUND_SELECT, limits.SQL_COMPOUND_SELECTS),
        (apsw.SQLITE_LIMIT_EXPR_DEPTH, limits.SQL_EXPRESSION_DEPTH),
        (apsw.SQLITE_LIMIT_TRIGGER_DEPTH, limits.SQL_TRIGGER_DEPTH),
        (apsw.SQLITE_LIMIT_ATTACHED, 0),
    ):
        connection.limit(name, value)
    connection.pragma("max_page_count", storage_limits.object_bytes // PAGE_BYTES)


def _alarm_and_name(connection: apsw.Connection) -> tuple[float | None, str | None]:
    if not connection.table_exists("main", METADATA):
        return None, None
    rows = dict(connection.execute(f"SELECT key, value FROM {METADATA}"))  # noqa: S608 -- constant
    name = rows.get(NAME)
    return rows.get(ALARM), None if name is None else name.decode("utf-8", "surrogatepass")


def _holds_anything(connection: apsw.Connection) -> bool:
    if connection.execute(_TABLES).get:
        return True
    ours = [table for table in (KEYS, METADATA) if connection.table_exists("main", table)]
    return any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").get for table in ours)  # noqa: S608 -- constants


def _make_directory(path: Path) -> None:
    """Make a directory whose entry lasts, and those above it."""
    if not path.parent.is_dir():
        _make_directory(path.parent)
    path.mkdir(exist_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
