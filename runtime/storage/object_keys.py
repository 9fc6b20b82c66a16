"""Keys, alarm and SQL of one live instance of a SQL class: one transaction of its own database per batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import apsw

from runtime.errors import InvalidBookmark, SqlError, StorageFailed
from runtime.ids import ActorId
from runtime.storage.bookmarks import NO_HISTORY
from runtime.storage.object_file import ALARM, KEYS, METADATA, NAME, PENDING, ObjectFile
from runtime.storage.sql_guard import Guard, sql_error
from runtime.storage.store import KEEP, Keep, WriteBatch

REGISTERED = b"\0sql"
"""The key in the index that an object with a file of its own has."""

_LIST = "SELECT key, value FROM _cf_KV WHERE key >= ?"
_SIZE = (
    "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
)
_TABLES = (
    "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = ? AND name NOT LIKE 'sqlite^_%' ESCAPE '^'"
)
Rows = Sequence[Any]
_FATAL = (apsw.FullError, apsw.IOError, apsw.NoMemError, apsw.CorruptError, apsw.NotADBError)


class Files(Protocol):
    """Where the files are: opened before use, closed after."""

    async def acquire(self, keys: ObjectKeys) -> tuple[ObjectFile, bool, float | Keep | None]:
        """The open file, whether the index knows the object, and the alarm if the index did not know that."""
        ...

    def release(self, keys: ObjectKeys) -> None:
        """The instance has ended."""
        ...

    async def bookmark(self, keys: ObjectKeys) -> str:
        """A bookmark of everything that is sealed, which is durable then."""
        ...

    async def bookmark_at(self, keys: ObjectKeys, time_s: float) -> str:
        """A bookmark of a time. Raises: InvalidBookmark."""
        ...

    async def point(self, keys: ObjectKeys, bookmark: str) -> int:
        """The point of a bookmark that can be restored. Raises: InvalidBookmark."""
        ...


class ObjectKeys:
    """The `Keyspace` of an object with a database of its own.

    A batch is one transaction, committed on the loop when it is sealed and durable once the log is synced. Tables of
    the runtime begin with `_cf_`, are made when they are first needed, and are out of reach for the app.
    """

    __slots__ = (
        "_alarm_change",
        "_begun",
        "_connection",
        "_cursor",
        "_file",
        "_files",
        "_guard",
        "_has_keys",
        "_has_metadata",
        "_last",
        "_marks",
        "_pending",
        "_registered",
        "actor",
        "failure",
        "history",
    )

    def __init__(self, actor: ActorId, files: Files, *, history: bool | None) -> None:
        self.actor = actor
        self.history = history
        self.failure: Exception | None = None
        self._files = files
        self._file: ObjectFile
        self._connection: apsw.Connection
        self._cursor: apsw.Cursor
        self._guard: Guard
        self._registered = True
        self._begun = False
        self._last = 0
        self._has_keys = self._has_metadata = False
        self._alarm_change: float | Keep | None = KEEP
        self._pending: str | None = None
        self._marks: list[tuple[bool, bool, float | Keep | None]] = []

    async def prepare(self) -> float | Keep | None:
        """Open the file in a thread, brought back to a bookmark if an earlier instance asked for it.

        Raises:
            StorageFailed: it cannot be opened. InvalidBookmark: it cannot be brought back any more; it is as it was.
        """
        file, self._registered, repaired = await self._files.acquire(self)
        self._file = file
        self._connection, self._guard = file.connection, file.guard
        self._cursor = file.connection.cursor()
        self._has_keys = self._connection.table_exists("main", KEYS)
        self._has_metadata = self._connection.table_exists("main", METADATA)
        return repaired

    @property
    def database(self) -> ObjectKeys:
        """Itself."""
        return self

    @property
    def is_open(self) -> bool:
        """A batch was begun and is not sealed."""
        return self._begun

    @property
    def last_sealed(self) -> int:
        """The number of the newest sealed batch; 0 before the first."""
        return self._last

    # Reads.

    def get(self, key: bytes) -> bytes | None:
        """The newest value of a key."""
        if not self._has_keys:
            self.check()
            return None
        rows: Rows = self._run("SELECT value FROM _cf_KV WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    def list(self, start: bytes, end: bytes | None, limit: int | None, reverse: bool) -> Sequence[tuple[bytes, bytes]]:
        """The newest pairs of a range."""
        if not self._has_keys:
            self.check()
            return []
        upper = "" if end is None else " AND key < ?"
        bindings = (start,) if end is None else (start, end)
        statement = f"{_LIST}{upper} ORDER BY key {'DESC' if reverse else 'ASC'} LIMIT ?"
        rows: Rows = self._run(statement, (*bindings, -1 if limit is None else limit))
        return rows

    def alarm(self) -> float | None:
        """The newest due time."""
        if not self._has_metadata:
            self.check()
            return None
        rows: Rows = self._run("SELECT value FROM _cf_METADATA WHERE key = ?", (ALARM,))
        return rows[0][0] if rows else None

    # Writes: all of them join the open batch.

    def begin(self) -> None:
        """Open a batch unless one is open."""
        if not self._begun:
            self._begun = True
            self._open_transaction()
        elif self.failure is not None:
            self.check()

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set a key; None deletes."""
        if value is None:
            if self._has_keys:
                self._run("DELETE FROM _cf_KV WHERE key = ?", (key,))
            return
        if not self._has_keys:
            self._run("CREATE TABLE _cf_KV (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
            self._has_keys = True
        self._run(
            "INSERT INTO _cf_KV VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
            (key, value),
        )

    def clear(self, *, keep_alarm: bool) -> None:
        """Drop every table of the app and of the runtime."""
        assert not self._marks
        due = self.alarm()
        self._run("PRAGMA defer_foreign_keys = ON")  # in any order: nothing is left to refer to
        for kind in ("view", "virtual", "table"):  # a virtual table takes those that it is made of along
            for (name,) in self._run(_TABLES, (kind,)):
                self._run(f"DROP {'VIEW' if kind == 'view' else 'TABLE'} {_quoted(name)}")
        if self._connection.table_exists("main", "sqlite_sequence"):
            self._run("DELETE FROM sqlite_sequence")
        self._has_keys = self._has_metadata = False
        if due is not None:
            self.set_alarm(due if keep_alarm else None)
        if self._pending is not None:
            self._set_metadata(PENDING, self._pending)

    def set_alarm(self, time: float | None) -> None:
        """Set or delete the alarm."""
        self._alarm_change = time
        if time is None:
            if self._has_metadata:
                self._run("DELETE FROM _cf_METADATA WHERE key IN (?, ?)", (ALARM, NAME))
            return
        self._set_metadata(ALARM, time)
        if self.actor.name is not None:
            self._set_metadata(NAME, self.actor.name.encode("utf-8", "surrogatepass"))

    def mark(self) -> int:
        """Set a savepoint."""
        self._open_transaction()
        self._marks.append((self._has_keys, self._has_metadata, self._alarm_change))
        number = len(self._marks)
        self._run(f"SAVEPOINT _cf_savepoint_{number}")
        return number

    def keep(self) -> None:
        """Release the newest savepoint."""
        number = len(self._marks)
        self._marks.pop()
        if self.failure is None:
            self._run(f"RELEASE _cf_savepoint_{number}")

    def undo(self, mark: int) -> None:
        """Roll back to the newest savepoint."""
        assert mark == len(self._marks)
        self._has_keys, self._has_metadata, self._alarm_change = self._marks.pop()
        if self.failure is None:
            self._run(f"ROLLBACK TO _cf_savepoint_{mark}; RELEASE _cf_savepoint_{mark}")

    # The life of a batch.

    def seal(self) -> WriteBatch | None:
        """Commit the open batch; what the index has to know of it is in the result.

        A commit that fails is rolled back and remembered: the instance is over.
        """
        assert not self._marks
        begun, self._begun = self._begun, False
        if self.failure is None and (begun or self._connection.in_transaction):
            try:
                self._cursor.execute("COMMIT")
            except apsw.Error as error:
                self.failure = _commit_error(error)
        if self.failure is not None:
            self._roll_back()
        if not begun:
            return None
        self._last += 1
        alarm, self._alarm_change = self._alarm_change, KEEP
        registration = {} if self._registered or self.failure is not None else {REGISTERED: b""}
        self._registered |= bool(registration)
        return WriteBatch(actor=self.actor, sequence=self._last, writes=registration, alarm=alarm)

    def committed(self, sequence: int) -> None:
        """Nothing to forget: reads never distinguish."""

    def drop_open(self) -> None:
        """Roll back the open batch; nothing is read or written after it."""
        self._marks.clear()
        self._begun = False
        self._roll_back()

    # The history.

    async def bookmark(self) -> str:
        """A point of it that has everything that is sealed."""
        return await self._files.bookmark(self)

    async def bookmark_at(self, time_s: float) -> str:
        """The newest point with nothing from after a time. Raises: InvalidBookmark."""
        return await self._files.bookmark_at(self, time_s)

    async def point(self, bookmark: str) -> int:
        """The point that a bookmark names, if the object can be brought back there. Raises: InvalidBookmark."""
        if not self._file.keeps:
            raise InvalidBookmark(NO_HISTORY)
        return await self._files.point(self, bookmark)

    def restore_next(self, point: int) -> None:
        """The next instance begins there; joins the open batch."""
        self.begin()
        self._pending = f"{point:016x} {self._file.points.newest:016x}"
        self._set_metadata(PENDING, self._pending)

    def restored(self) -> int | None:
        """The point that the last restore left."""
        return self._file.restored

    def close(self) -> None:
        """Hand the file back."""
        self._files.release(self)

    # For `Sql`.

    @property
    def connection(self) -> apsw.Connection:
        """For statements of the app; set `guard.text` while one is prepared or stepped."""
        return self._connection

    @property
    def guard(self) -> Guard:
        """The authorizer of the connection."""
        return self._guard

    @property
    def size(self) -> int:
        """Bytes of pages in use."""
        size: int = self._run(_SIZE)[0][0]
        return size

    def bound_pages(self, pages: int) -> None:
        """Let the database grow no further than this."""
        self._run(f"PRAGMA max_page_count = {pages:d}")

    def check(self) -> None:
        """Refuse everything after a failure that took the batch with it. Raises: the failure."""
        if self.failure is not None:
            raise self.failure

    def note(self, error: apsw.Error, seen: SqlError) -> None:
        """A statement failed: when the batch went with it, or may have, nothing works from here on."""
        lost = (self._begun or self._marks) and not self._connection.in_transaction
        if lost or isinstance(error, _FATAL):
            self.failure = StorageFailed(str(seen))
            self.failure.durable_object_reset = True

    # Helpers.

    def _set_metadata(self, key: int, value: float | bytes | str) -> None:
        if not self._has_metadata:
            self._run("CREATE TABLE _cf_METADATA (key INTEGER PRIMARY KEY, value)")
            self._has_metadata = True
        self._run("INSERT OR REPLACE INTO _cf_METADATA VALUES (?, ?)", (key, value))

    def _open_transaction(self) -> None:
        self.check()
        if not self._connection.in_transaction:
            self._run("BEGIN IMMEDIATE")

    def _run(self, statement: str, bindings: tuple[Any, ...] = ()) -> Any:
        self.check()
        try:
            return self._cursor.execute(statement, bindings).fetchall()
        except apsw.Error as error:
            seen = sql_error(error)
            self.note(error, seen)
            raise seen from error

    def _roll_back(self) -> None:
        connection = getattr(self, "_connection", None)
        if connection is not None and connection.in_transaction:
            self._cursor.execute("ROLLBACK")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _commit_error(error: apsw.Error) -> StorageFailed:
    text = str(sql_error(error))
    if isinstance(error, apsw.ConstraintError):
        return StorageFailed(
            "Durable Object was reset and rolled back to its last known good state because the application left the "
            f"database in a state where constraints were violated: {text}",
            by_app=True,
        )
    if isinstance(error, apsw.BusyError):
        text += ". Read a cursor of INSERT, UPDATE or DELETE … RETURNING to its end before the next wait"
    return StorageFailed(f"the writes were not stored: {text}")
