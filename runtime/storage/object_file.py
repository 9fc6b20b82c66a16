"""The database file of one object of a SQL class: created, opened, checkpointed, closed. Everything here blocks.

Nothing is moved from the log into the database before the history has what it replaces, and the log is synced before
that, so that the history never knows of a commit that a power cut takes back. `application_id` says that this holds
for the log; `user_version` is the log's generation, as points have it, when the database was opened.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import apsw
import attrs

from runtime import limits
from runtime.errors import StorageFailed
from runtime.ids import ActorId
from runtime.limits import StorageLimits
from runtime.platform import OpenFile
from runtime.storage.checksums import CHECKSUM_VFS, load_checksums, reserve_checksums
from runtime.storage.database_file import renew_log
from runtime.storage.log_room import LogRoom
from runtime.storage.object_history import ObjectHistory
from runtime.storage.object_log import PAGE_BYTES, LogReader, Mark, read_salts
from runtime.storage.object_points import LOGS_MOST, Points
from runtime.storage.object_records import Record
from runtime.storage.object_restore import finish_restore, last_restore, record_removal
from runtime.storage.sql_guard import Guard

_CACHE_KIB = 1_024
KEYS, METADATA = "_cf_KV", "_cf_METADATA"
"""The runtime's tables, made when they are first needed."""

ALARM, NAME, PENDING = 1, 2, 3
"""The rows of METADATA: when the alarm is due, the name of the object that has it, and a restore that was asked for:
the point to go back to and the one at which it was asked."""

_KEEPS_HISTORY = 0x48474831  # as application_id

_IN_USE = "in-use"
_SUFFIX, _LOG_SUFFIX = ".sqlite", ".sqlite-wal"
_LOOK = "SELECT 1 FROM sqlite_schema LIMIT 1"
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
        directory.mkdir(parents=True, exist_ok=True)
        (directory / _IN_USE).touch()
        _sync(directory)
        _sync(directory.parent)
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
        log, open_log: the write-ahead log, which makes commits durable once it is synced.
        alarm, name: as they were found.
        history, keeps: what was before, and whether more of it is kept. points: where it is now.
        restored: the point that the last restore left. restore_to: the one that was asked for and is still to be done.
        log_pages: how long the write-ahead log is. unsynced: it has grown. doubtful: a sync of it has failed.
        left_behind: when a process that ended without a word had last written to the log, wall clock in seconds; None:
        there was no log.
    """

    path: Path
    connection: apsw.Connection
    guard: Guard
    alarm: float | None
    name: str | None
    history: ObjectHistory
    keeps: bool
    points: Points
    restored: int | None
    restore_to: int | None
    left_behind: float | None
    _log: int
    _opened: int
    log_pages: int = 0
    unsynced: bool = False
    doubtful: bool = False
    log: Path = attrs.field(init=False)
    open_log: OpenFile = attrs.field(init=False)
    _room: LogRoom = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.log = self.path.with_name(f"{self.path.name}-wal")
        self.open_log = OpenFile(self.log, self._log)
        self._room = LogRoom(self._log)

    def committed(self, pages: int) -> None:
        """The log is so long now."""
        self.log_pages = pages
        self.unsynced = True
        self.points.committed(pages)
        self._room.taken(pages)

    # The history.

    def look(self) -> apsw.Connection:
        """A connection for `hold`. Raises: apsw.Error."""
        connection = _connect(self.path)
        try:
            connection.execute(_LOOK).fetchall()
        except apsw.Error:
            connection.close()
            raise
        return connection

    def hold(self, look: apsw.Connection) -> tuple[int, Sequence[Mark]]:
        """On the loop: keep checkpoints from going beyond now; this point, and the marks before it. Raises: apsw.Error.

        It is on the loop so that no commit comes between the two.
        """
        look.execute("BEGIN")
        look.execute(_LOOK).fetchall()
        self.points.divide()
        return self.points.newest, tuple(self.points.marks)

    def record(self, upto: int, marks: Sequence[Mark]) -> None:
        """Add what was changed up to a point to the history, which the log has; it must be synced.

        Raises:
            OSError, apsw.Error: the disk refuses.
        """
        if not self.keeps:
            return
        if self.history.failed:
            self.history.recover(crashed=True)
        last, generation, frame = self.history.last, upto >> 32, upto & 0xFFFF_FFFF
        begin = last.end & 0xFFFF_FFFF if last is not None and last.end >> 32 == generation else 0
        if begin >= frame:
            return
        every = self.left_behind is not None and upto == self._opened  # nobody knows any more where bookmarks were
        reader = LogReader(self._log, self.path)
        try:
            self.history.add(
                reader.changes(
                    begin,
                    frame,
                    [mark for mark in marks if mark.point >> 32 == generation],
                    generation,
                    time_s=self.points.opened_s if self.left_behind is None else self.left_behind,
                    every=every,
                )
            )
        finally:
            reader.close()

    def record_left_behind(self) -> None:
        """Add what a crash left in the log. Raises: StorageFailed."""
        try:
            self.record(self._opened, ())
        except (apsw.Error, OSError) as error:
            raise StorageFailed(f"the history of {self.path} cannot be written: {error}") from error

    # Into the database.

    def checkpoint(self, upto: int, marks: Sequence[Mark]) -> None:
        """Move the log into the database, on a connection of its own: the loop goes on reading and committing.

        Args:
            upto, marks: what `hold` said, and holds.
        """
        with contextlib.suppress(apsw.Error, OSError):  # nothing is lost, the log only stays long; a commit asks again
            self.record(upto, marks)
            connection = _connect(self.path)
            try:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            finally:
                connection.close()

    def close(self, *, keep_log: bool = False) -> bool:
        """Roll back what is open, move the log into the database and close; whether anything was stored.

        An object that has stored nothing, or not any more, leaves no file. The log must be synced.

        Args:
            keep_log: leave the log as it is, for the next start to look at.

        Raises:
            StorageFailed: the disk does not take what the log has.
        """
        connection = self.connection
        try:
            if keep_log:
                self._leave_log()
                return True
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            holds, keep_file = _holds_anything(connection)
            if self.left_behind is not None or self.points.asked or self.points.newest != self._opened:
                self.record(self.points.newest, self.points.marks)
            connection.close(True)  # SQLite removes the log once the database has all of it
        except (apsw.Error, OSError) as error:
            self._leave_log()
            raise StorageFailed(f"{self.path} cannot be closed: {error}") from error
        finally:
            os.close(self._log)
        if self.log.exists():
            raise StorageFailed(f"{self.path} did not take what its log has, which is kept for the next start")
        if not keep_file:
            self._remove()
        return holds

    def cancel_restore(self) -> None:
        """What was asked for is not to be done. Raises: StorageFailed."""
        try:
            self.connection.execute(f"DELETE FROM {METADATA} WHERE key = ?", (PENDING,))  # noqa: S608 -- constant
        except apsw.Error as error:
            raise StorageFailed(f"{self.path} does not take it: {error}") from error

    def fill(self, look: apsw.Connection) -> None:
        """Commit everything that another database has, as seen by a connection of it. Raises: StorageFailed."""
        connection = self.connection
        try:
            with connection.backup("main", look, "main") as backup:
                backup.step(-1)
            connection.pragma("application_id", _KEEPS_HISTORY if self.keeps else 0)
            connection.pragma("user_version", self.points.generation - (1 << 32) * (self.points.generation >> 31))
            if connection.table_exists("main", METADATA):
                self.cancel_restore()
        except apsw.Error as error:
            raise StorageFailed(f"{self.path} does not take the copy: {error}") from error

    def _leave_log(self) -> None:
        with contextlib.suppress(apsw.Error):
            self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.connection.close(True)

    def _remove(self) -> None:
        """Remove the closed database; what is in it belongs to the history."""
        try:
            if self.keeps and self.history.last is not None:
                record_removal(self.history, self.path, self.points.newest, self.points.opened_s)
            self.path.unlink(missing_ok=True)
            _sync(self.path.parent)
        except (apsw.Error, OSError) as error:
            raise StorageFailed(f"{self.path} cannot be removed: {error}") from error


def open_object(
    path: Path, storage_limits: StorageLimits, now: Callable[[], float], *, keeps: bool | None
) -> ObjectFile:
    """Open the database of an object, creating it if there is none; a restore that was cut short is carried out.

    Args:
        path: of the database.
        storage_limits: of its rows.
        now: wall clock, seconds.
        keeps: whether history is kept from here on; what there is goes if not. None: as it was.

    Raises:
        StorageFailed: it is damaged, or the disk refuses.
    """
    load_checksums()
    connection: apsw.Connection | None = None
    log = -1
    try:
        finish_restore(path, now())
        fresh = not path.exists() or path.stat().st_size == 0
        if fresh:
            _make_folders(path.parent)
        renew_log(path.with_name(f"{path.name}-wal"))
        connection = _connect(path)
        if fresh:
            reserve_checksums(connection)
        if (mode := connection.pragma("journal_mode", "wal")) != "wal":
            raise StorageFailed(f"{path}: the file system allows no write-ahead log (journal mode is {mode!r})")
        history = ObjectHistory(path)
        fresh = fresh or connection.pragma("user_version") == 0  # a crash came before it was said whether it has one
        flagged = connection.pragma("application_id") == _KEEPS_HISTORY
        records = (flagged or (fresh and history.folder.is_dir())) if keeps is None else keeps
        left = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0] if not fresh else 0
        if not records or not (flagged or fresh):
            _forget(history, path)
        opened_with = int(str(connection.pragma("user_version"))) & 0xFFFF_FFFF
        damaged = history.recover(crashed=left > 0, generation=opened_with)
        opened_with += LOGS_MOST * damaged  # no bookmark from before may be taken for one from now on
        if left > 0 and records and (damaged or not flagged):
            # Some of it may be in the database already, so that nobody knows what that was before.
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            left = 0
        written_s = min(os.stat(f"{path}-wal").st_mtime, now()) if left > 0 else None
        generation = _generation(opened_with, last := history.last, path, left, now())
        # The first write of a log syncs its header and the directory; better here than on the loop.
        if left <= 0 or records is not flagged:
            with connection:
                connection.pragma("application_id", _KEEPS_HISTORY if records else 0)
                if left <= 0:
                    connection.pragma("user_version", generation - (1 << 32) * (generation >> 31))
        log = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
        frames = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
        _bound(connection, storage_limits)
        guard = Guard()
        connection.authorizer = guard
        points = Points(log, now, generation, frames, 0.0 if last is None else last.time_s)
        alarm, name, pending = _metadata(connection)
        file = ObjectFile(
            path,
            connection,
            guard,
            alarm,
            name,
            history,
            records,
            points,
            restored := last_restore(path),
            None if pending is None or pending[1] <= (restored or 0) else pending[0],
            written_s,
            log,
            points.newest,
            log_pages=frames,
            unsynced=left > 0,
        )
        connection.set_wal_hook(_LogLength(file))
        return file
    except (apsw.Error, OSError, StorageFailed) as error:
        if log >= 0:
            os.close(log)
        if connection is not None:
            connection.close(True)
        if isinstance(error, StorageFailed):
            raise
        raise StorageFailed(f"{path} cannot be opened: {error}") from error


@attrs.frozen
class Settled:
    """Where a closed object is: the point after its last commit, and when its alarm is due."""

    newest: int
    alarm: float | None


def settle(path: Path, now: Callable[[], float]) -> Settled:
    """Move what a server left in the log into history and database; for when none runs.

    Raises:
        StorageFailed, OSError: the disk refuses.
    """
    file = open_object(path, StorageLimits().of_sql_classes(), now, keeps=None)
    _sync(file.log)
    if file.left_behind is not None:
        file.record_left_behind()
    file.points.ask()
    file.close()
    last = file.history.last
    return Settled(file.points.newest if last is None else last.end, file.alarm)


def _generation(opened_with: int, last: Record | None, path: Path, left: int, now: float) -> int:
    """Of the log: that which the bookmarks had that were given out while it was written."""
    if left <= 0:
        return max(opened_with + 1, int(now), 0 if last is None else (last.end >> 32) + 1) & 0xFFFF_FFFF
    if last is None or last.end >> 32 < opened_with:
        return opened_with
    log = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
    try:
        reader, frame = LogReader(log, path), last.end & 0xFFFF_FFFF
        try:
            same = read_salts(log) == last.log and frame <= left and reader.check(frame) == last.check
        finally:
            reader.close()
    finally:
        os.close(log)
    return (last.end >> 32) + (not same)


def _forget(history: ObjectHistory, path: Path) -> None:
    if history.folder.is_dir():
        with contextlib.suppress(FileNotFoundError):
            _sync(path.with_name(f"{path.name}-wal"))  # that none is kept
        history.forget()


class _LogLength:
    def __init__(self, file: ObjectFile) -> None:
        self._file = file

    def __call__(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._file.committed(pages)
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


def _metadata(connection: apsw.Connection) -> tuple[float | None, str | None, tuple[int, int] | None]:
    if not connection.table_exists("main", METADATA):
        return None, None, None
    rows = dict(connection.execute(f"SELECT key, value FROM {METADATA}"))  # noqa: S608 -- constant
    name, pending = rows.get(NAME), rows.get(PENDING)
    if pending is not None:
        target, asked = (int(part, 16) for part in pending.split())
        pending = target, asked
    return rows.get(ALARM), None if name is None else name.decode("utf-8", "surrogatepass"), pending


def _holds_anything(connection: apsw.Connection) -> tuple[bool, bool]:
    """Whether there is anything of the app's, and whether there is anything at all."""
    if connection.execute(_TABLES).get:
        return True, True
    ours = [table for table in (KEYS, METADATA) if connection.table_exists("main", table)]
    rows = [row for table in ours for row in connection.execute(f"SELECT key FROM {table} LIMIT 4")]  # noqa: S608
    return any(row != (PENDING,) for row in rows), bool(rows)


def _make_folders(path: Path) -> None:
    """Make a folder, and the one above it, whose names last.

    One that is there may have been made by a process that ended, or met an error, before it had synced the name.
    """
    path.mkdir(parents=True, exist_ok=True)
    _sync(path.parent)
    _sync(path.parent.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
