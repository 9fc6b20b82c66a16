"""The store of a server: all actors in one SQLite database, commits of many actors grouped into one fsync."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw
import trio

from runtime import ids
from runtime.errors import InvalidBookmark, StorageFailed
from runtime.ids import ActorId
from runtime.platform import Begun, Platform
from runtime.storage.bookmarks import NO_HISTORY, Retention, bookmark_point, bookmark_text
from runtime.storage.commit_queue import CommitQueue
from runtime.storage.database_file import DAMAGED, DatabaseFile, open_database
from runtime.storage.group_writer import GroupWriter
from runtime.storage.history import HistoryReader
from runtime.storage.rebuild import IN_PLACE_BYTES
from runtime.storage.store import Done, ReadHandle, StoreUnusable, WriteBatch

_GROUP_BYTES = 4 * 1024 * 1024
_SWEEP_EVERY = 32  # groups, while there is always something to commit
DEFAULT_RETENTION = Retention()

_OF_ACTOR = "slot = (SELECT slot FROM actors WHERE namespace = ? AND id = ?)"
_GET = f"SELECT value FROM keys WHERE {_OF_ACTOR} AND key = ?"  # noqa: S608 -- constants
_LIST = f"SELECT key, value FROM keys WHERE {_OF_ACTOR} AND key >= ?"  # noqa: S608
_ALARM = "SELECT due FROM alarms WHERE actor = (SELECT number FROM actors WHERE namespace = ? AND id = ?)"
_LIST_IDS = "SELECT id, name FROM actors WHERE namespace = ? AND length(id) <= ? AND NOT empty ORDER BY id"
_LIST_BELOW = "SELECT id, name FROM actors WHERE namespace = ? AND id > ? AND id < ? AND NOT empty ORDER BY id"
_RESTORES = "SELECT since, restored, pending FROM actors WHERE namespace = ? AND id = ?"


class SharedStore:
    """The seam of `runtime.storage.store` on `heliograph.db` in a data directory.

    Reads run on the loop: short statements on a connection of their own, each result fetched at once, so that
    no snapshot stays open. Writes, checkpoints and opening run through `platform.run_blocking`.

    Args:
        directory: the data directory; made if missing.
        platform: blocking calls and tokens.
        retention: how much history is kept.
        group_bytes: a group takes no further batch beyond this.
        in_place_bytes: a restore that changes more is prepared outside its group, see `rebuild`.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        platform: Platform,
        retention: Retention = DEFAULT_RETENTION,
        group_bytes: int = _GROUP_BYTES,
        in_place_bytes: int = IN_PLACE_BYTES,
    ) -> None:
        self._directory = Path(directory)
        self._platform = platform
        self._retention = retention
        self._group_bytes = group_bytes
        self._in_place_bytes = in_place_bytes
        self._queue = CommitQueue(platform.point)
        self._file: DatabaseFile | None = None
        self._writer: GroupWriter | None = None
        self._begun: Begun | None = None
        self._begun_s = 0.0
        self._resting = False  # the committing task waits for something to commit

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open, commit what is submitted until cancelled; then finish, move all into one file and close.

        Raises:
            StoreUnusable: see `database_file.open_database`.
        """
        blocking = self._platform.run_blocking
        file: DatabaseFile = await blocking(open_database, self._directory, self._platform.token_bytes)
        self._file = file
        try:
            writer = self._writer = await blocking(self._open_writer, file)
            task_status.started()
            try:
                await self._commit_for_ever(writer)
            finally:
                with trio.CancelScope(shield=True):
                    while self._begun or self._queue:
                        await self._commit_group(writer)
        finally:
            with trio.CancelScope(shield=True):
                self._file = self._writer = None
                await blocking(file.close)

    async def _commit_for_ever(self, writer: GroupWriter) -> None:
        blocking = self._platform.run_blocking
        groups = 0
        with trio.CancelScope() as scope:  # of all groups: it is quicker shielded than entered
            while True:
                if not self._queue and not writer.sweeping:
                    self._resting = True
                    try:
                        await self._queue.wait()
                    finally:
                        self._resting = False
                await trio.lowlevel.checkpoint_if_cancelled()
                if self._begun or self._queue:
                    scope.shield = True
                    await self._commit_group(writer)
                    scope.shield = False
                    groups += 1
                if writer.checkpoint_due:
                    await blocking(writer.checkpoint)
                if writer.sweeping and (not self._queue or writer.sweep_urgent or groups % _SWEEP_EVERY == 0):
                    await blocking(writer.sweep)

    def _open_writer(self, file: DatabaseFile) -> GroupWriter:
        try:
            return GroupWriter(
                file.writer,
                file.room,
                self._retention,
                self._platform.now(),
                point=self._platform.point,
                in_place_bytes=self._in_place_bytes,
            )
        except apsw.Error as error:
            raise StoreUnusable(f"cannot read {self._directory / 'heliograph.db'}: {error}. {DAMAGED}") from error

    async def _commit_group(self, writer: GroupWriter) -> None:
        """Commit the group that has begun, or the next one; the caller sees to it that nothing cancels that."""
        begun, self._begun = self._begun or self._begin_group(writer), None
        try:
            failed: Mapping[int, Exception] = await begun.end()
        except BaseException as error:
            self._queue.settle_all(StorageFailed(f"the writes may not be stored: {error!r}"))
            raise
        finally:
            if self._platform.meter is not None:
                self._platform.meter.commit("shared", trio.current_time() - self._begun_s)
        self._queue.settle(failed)

    def _begin_group(self, writer: GroupWriter) -> Begun:
        batches, self._begun_s = self._queue.take_group(self._group_bytes), trio.current_time()
        return self._platform.begin_commit(writer.write, batches, self._platform.now())

    def open(self, actor: ActorId) -> ReadHandle:
        """A handle for reads; loads nothing."""
        return _SharedReads(self, actor)

    def submit(self, batch: WriteBatch, done: Done) -> None:
        """Take a batch for the next group."""
        self._queue.submit(batch, done)

    def begin_commit(self) -> None:
        """Begin with the next group, if nothing is being done."""
        if self._resting and self._begun is None and self._queue and self._writer is not None:
            self._begun = self._begin_group(self._writer)

    def alarms(self) -> Sequence[tuple[ActorId, float]]:
        """Every pending alarm, the earliest first."""
        rows = self.read("SELECT namespace, id, name, due FROM alarms JOIN actors ON number = actor ORDER BY due", ())
        return [(_actor(namespace, raw, name), due) for namespace, raw, name, due in rows]

    def list_ids(self, namespace: str) -> Sequence[ActorId]:
        """Every actor of a namespace that wrote something after its last `delete_all`, in the order of their bytes."""
        rows = self.read(_LIST_IDS, (namespace, ids.ID_BYTES))
        return [_actor(namespace, raw, name) for raw, name in rows]

    def list_below(self, actor: ActorId) -> Sequence[ActorId]:
        """Every facet of an actor, and of its facets, that wrote something, in the order of their bytes."""
        rows = self.read(_LIST_BELOW, (actor.namespace, actor.raw, ids.end_below(actor)))
        return [_actor(actor.namespace, raw, name) for raw, name in rows]

    @property
    def lineage(self) -> str:
        """A random id of this copy of the data; known while the store runs."""
        return self._opened.lineage

    @property
    def ancestors(self) -> Mapping[str, int]:
        """Of what the database is a copy, see `ancestry`."""
        return self._opened.ancestors

    @property
    def backlog_bytes(self) -> int:
        """Submitted and not yet durable."""
        return self._queue.backlog_bytes

    @property
    def stored_bytes(self) -> int:
        """What the database takes, without its log."""
        (size,) = self.read("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()", ())[0]
        return int(size)

    def read(self, statement: str, bindings: tuple[Any, ...]) -> list[Any]:
        """The rows of a short SELECT on the durable data.

        Raises:
            StorageFailed: a page is damaged, or the disk does not answer.
        """
        try:
            return self._opened.reader.execute(statement, bindings).fetchall()
        except apsw.Error as error:
            raise StorageFailed(f"{self._directory / 'heliograph.db'} cannot be read: {error}") from error

    @property
    def history(self) -> HistoryReader:
        """The points that actors can be brought back to."""
        return HistoryReader(self._opened.reader)

    @property
    def _opened(self) -> DatabaseFile:
        if self._file is None:
            raise RuntimeError("the store is not running; start SharedStore.run in a nursery first")
        return self._file


class _SharedReads:
    """Reads of one actor."""

    __slots__ = ("_key", "_store")

    def __init__(self, store: SharedStore, actor: ActorId) -> None:
        self._store = store
        self._key = (actor.namespace, actor.raw)

    def get(self, key: bytes) -> bytes | None:
        rows = self._store.read(_GET, (*self._key, key))
        return rows[0][0] if rows else None

    def list(self, start: bytes, end: bytes | None, limit: int | None, reverse: bool) -> Sequence[tuple[bytes, bytes]]:
        upper = "" if end is None else " AND key < ?"
        bindings = (*self._key, start) if end is None else (*self._key, start, end)
        statement = f"{_LIST}{upper} ORDER BY key {'DESC' if reverse else 'ASC'} LIMIT ?"
        return self._store.read(statement, (*bindings, -1 if limit is None else limit))

    def alarm(self) -> float | None:
        rows = self._store.read(_ALARM, self._key)
        return rows[0][0] if rows else None

    def bookmark(self) -> str:
        return bookmark_text(self._store.history.newest, self._store.lineage)

    def bookmark_at(self, time_s: float) -> str:
        point = self._store.history.at(time_s)
        self._check(point)
        return bookmark_text(point, self._store.lineage)

    def point(self, bookmark: str) -> int:
        point = bookmark_point(bookmark, self._store.lineage, self._store.ancestors)
        self._check(point)
        return point

    def _check(self, point: int) -> None:
        history = self._store.history
        history.check(point)
        since = self._restores()[0]
        if since is None or point < since:
            raise InvalidBookmark(NO_HISTORY)

    def restore_next(self) -> int | None:
        return self._restores()[2]

    def restored(self) -> int | None:
        return self._restores()[1]

    def _restores(self) -> tuple[int | None, int | None, int | None]:
        rows = self._store.read(_RESTORES, self._key)
        return rows[0] if rows else (0, None, None)


def _actor(namespace: str, raw: bytes, name: bytes | None) -> ActorId:
    return ActorId(namespace, raw, None if name is None else name.decode("utf-8", "surrogatepass"))
