"""A store in memory that knows what a power cut leaves; for tests and simulations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from runtime import ids
from runtime.ids import ActorId
from runtime.storage.bookmarks import Retention, bookmark_point, bookmark_text
from runtime.storage.commit_queue import CommitQueue
from runtime.storage.memory_history import Held, MemoryHistory
from runtime.storage.store import Done, ReadHandle, WriteBatch

LINEAGE = "0123456789abcdef" * 2
_GROUP_BYTES = 8 * 1024 * 1024
_RETENTION = Retention()


class MemoryStore:
    """The seam of `runtime.storage.store` in memory, with commits that take time and can be lost or fail.

    A store object outlives runs: `run` it again after a crash or an orderly end and what was durable is there.

    Args:
        delay: seconds (of the trio clock) that each commit takes, or a function giving them.
        lineage: the lineage id.
        now: the times of the history, seconds; the trio clock when None.
        retention: how much history is kept.
    """

    def __init__(
        self,
        *,
        delay: float | Callable[[], float] = 0.0,
        lineage: str = LINEAGE,
        now: Callable[[], float] | None = None,
        retention: Retention = _RETENTION,
    ) -> None:
        self.lineage = lineage
        self._now = now or trio.current_time
        self._delay: Callable[[], float] = delay if callable(delay) else lambda: delay
        self._history = MemoryHistory(retention)
        self._queue = CommitQueue()
        self._failures: list[tuple[Exception, ActorId | None]] = []
        self._scopes: list[trio.CancelScope] = []

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit what is submitted until cancelled, then finish; a crash ends it at once."""
        queue = self._queue
        with trio.CancelScope() as serving, trio.CancelScope(shield=True) as finishing:
            self._scopes = [serving, finishing]
            self._history.begin(self._now())
            task_status.started()
            try:
                while True:
                    finishing.shield = False
                    await queue.wait()
                    finishing.shield = True
                    await self._commit_waiting(queue)
            finally:
                finishing.shield = True
                await self._commit_waiting(queue)

    def open(self, actor: ActorId) -> ReadHandle:
        """A handle for reads of the durable keys."""
        return _MemoryReads(self, self._history, actor)

    def submit(self, batch: WriteBatch, done: Done) -> None:
        """Take a batch; it becomes durable after the delay."""
        self._queue.submit(batch, done)

    def begin_commit(self) -> None:
        """It begins soon enough."""

    def alarms(self) -> Sequence[tuple[ActorId, float]]:
        """Every durable alarm."""
        return [(held.actor, held.alarm) for held in self._history.actors.values() if held.alarm is not None]

    def list_ids(self, namespace: str) -> Sequence[ActorId]:
        """Every actor of a namespace that wrote something after its last `delete_all`, in the order of their bytes."""
        return self._stored(lambda actor: actor.namespace == namespace and not actor.is_facet)

    def list_below(self, actor: ActorId) -> Sequence[ActorId]:
        """Every facet of an actor, and of its facets, that wrote something, in the order of their bytes."""
        end = ids.end_below(actor)
        return self._stored(lambda other: other.namespace == actor.namespace and actor.raw < other.raw < end)

    def _stored(self, wanted: Callable[[ActorId], bool]) -> Sequence[ActorId]:
        found = [held.actor for held in self._history.actors.values() if not held.empty and wanted(held.actor)]
        return sorted(found, key=lambda actor: actor.raw)

    @property
    def backlog_bytes(self) -> int:
        """Submitted and not yet durable."""
        return self._queue.backlog_bytes

    @property
    def stored_bytes(self) -> int:
        """Keys and values, without history."""
        held = self._history.actors.values()
        return sum(len(key) + len(value) for one in held for key, value in one.values.items())

    # What tests and simulations do to it.

    def fail_next(self, error: Exception, *, actor: ActorId | None = None) -> None:
        """Make the next commit fail: the whole group, or only the batches of one actor."""
        self._failures.append((error, actor))

    def crash(self) -> None:
        """Lose what is not durable, as a power cut does: nobody hears of it. `run` may be called again."""
        self._queue.drop()
        self._queue = CommitQueue()
        for scope in self._scopes:
            scope.cancel()
        self._scopes = []

    # Commits.

    async def _commit_waiting(self, queue: CommitQueue) -> None:
        while queue:
            batches = queue.take_group(_GROUP_BYTES)
            await trio.sleep(self._delay())
            failed = self._failed(batches)
            for place, batch in enumerate(batches):
                if place not in failed:
                    refused = self._history.apply(batch, self._now())
                    if refused is not None:
                        failed[place] = refused
            queue.settle(failed)

    def _failed(self, batches: Sequence[WriteBatch]) -> dict[int, Exception]:
        if not self._failures:
            return {}
        error, actor = self._failures[0]
        failed = {place: error for place, batch in enumerate(batches) if actor is None or batch.actor == actor}
        if failed:
            del self._failures[0]
        return failed


class _MemoryReads:
    """Reads of one actor."""

    def __init__(self, store: MemoryStore, history: MemoryHistory, actor: ActorId) -> None:
        self._store = store
        self._history = history
        self._actor = actor

    @property
    def _held(self) -> Held | None:
        return self._history.actors.get(self._actor)

    def get(self, key: bytes) -> bytes | None:
        held = self._held
        return None if held is None else held.values.get(key)

    def list(self, start: bytes, end: bytes | None, limit: int | None, reverse: bool) -> Sequence[tuple[bytes, bytes]]:
        held = self._held
        if held is None:
            return []
        pairs = [(k, v) for k, v in held.values.items() if start <= k and (end is None or k < end)]
        pairs.sort(reverse=reverse)
        return pairs[:limit]

    def alarm(self) -> float | None:
        held = self._held
        return None if held is None else held.alarm

    def bookmark(self) -> str:
        return bookmark_text(self._history.newest, self._store.lineage)

    def bookmark_at(self, time_s: float) -> str:
        point = self._history.at(time_s)
        self._history.check(self._actor, point)
        return bookmark_text(point, self._store.lineage)

    def point(self, bookmark: str) -> int:
        point = bookmark_point(bookmark, self._store.lineage, {})
        self._history.check(self._actor, point)
        return point

    def restore_next(self) -> int | None:
        held = self._held
        return None if held is None else held.pending

    def restored(self) -> int | None:
        held = self._held
        return None if held is None else held.restored
