"""Syncs the logs of objects: as many at a time as are worth it, and those that wait for one in groups."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

import attrs
import trio

from runtime.errors import StorageFailed
from runtime.platform import Begun, Platform
from runtime.storage.held_object import HeldObject, Submitted
from runtime.storage.object_file import ObjectFile

SYNC_TASKS = 8
_GROUP = 16  # files that one thread syncs one after another, at most


@attrs.frozen
class _Sync:
    """A sync that has begun: of which objects, with the batches that it makes durable.

    Attributes:
        begun: None: nothing was written. begun_s: when.
    """

    group: Sequence[tuple[HeldObject, Sequence[Submitted]]]
    files: Sequence[ObjectFile]
    begun: Begun | None
    begun_s: float


class ObjectSyncs:
    """Makes durable what objects have submitted. `SYNC_TASKS` tasks `run`.

    Args:
        settle: is told of each object of which something was synced, or could not be.
    """

    def __init__(self, platform: Platform, settle: Callable[[HeldObject], None]) -> None:
        self._platform = platform
        self._settle = settle
        self._dirty: dict[HeldObject, None] = {}
        self._begun: deque[_Sync] = deque()  # and not yet waited for
        self._arrived = trio.lowlevel.ParkingLot()
        self._free = 0  # of the tasks
        self._forgotten = False

    def add(self, held: HeldObject) -> None:
        """An object has submitted something and is not being synced: it will be, unless it is held back."""
        if not held.held_back:
            self._dirty[held] = None
            self._arrived.unpark()

    def begin(self) -> None:
        """Begin now with what was added, as far as tasks are free; they were woken when it was added."""
        while self._dirty and len(self._begun) < self._free:
            self._begun.append(self._begin_group())

    def forget(self) -> None:
        """Nothing that was added is synced any more, and of what has begun nobody is told: its files may be closed."""
        self._forgotten = True
        self._dirty.clear()
        self._begun.clear()

    async def run(self) -> None:
        """Sync until cancelled."""
        while True:
            self._free += 1
            try:
                while not (self._begun or self._dirty):
                    await self._arrived.park()
            finally:
                self._free -= 1
            await self._end_group(self._begun.popleft() if self._begun else self._begin_group())

    def _begin_group(self) -> _Sync:
        size = min(_GROUP, -(-len(self._dirty) // SYNC_TASKS))
        group = [(held, tuple(held.submitted)) for held in islice(self._dirty, size)]
        files: list[ObjectFile] = []
        for held, _ in group:
            del self._dirty[held]
            held.syncing = True
            if held.file is not None and held.file.unsynced:
                held.file.unsynced = False
                files.append(held.file)
        begun_s = trio.current_time()
        begun = self._platform.begin_sync(*(file.open_log for file in files)) if files else None
        return _Sync(group, files, begun, begun_s)

    async def _end_group(self, sync: _Sync) -> None:
        failure: StorageFailed | None = None
        try:
            if sync.begun is None:
                await trio.lowlevel.checkpoint()
            else:
                await sync.begun.end()
                if self._platform.meter is not None:
                    self._platform.meter.commit("sql", trio.current_time() - sync.begun_s)
        except OSError as error:
            failure = StorageFailed(f"the writes may not be stored: the disk did not take them: {error}")
            for file in sync.files:
                file.doubtful = True
        if self._forgotten:
            return
        for held, entries in sync.group:
            held.syncing = False
            for entry in entries:
                entry.synced = True
                entry.error = entry.error or failure
            if held.submitted and not held.submitted[-1].synced:
                self.add(held)
            self._settle(held)
