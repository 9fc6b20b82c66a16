"""The objects of SQL classes: a database file each, opened and closed in threads, made durable by group syncs.

A batch is committed on the loop and durable when its log is synced. The index, which is the store of the server,
knows which objects there are and when their alarms are due; a batch that changes that is durable when the index has it
too. What a crash leaves in between is found at the next start by the logs that were left behind.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw
import trio

from runtime.errors import InvalidBookmark, StorageFailed
from runtime.ids import ActorId
from runtime.limits import StorageLimits
from runtime.platform import Platform
from runtime.storage.backend import Copying, Keyspace
from runtime.storage.bookmarks import Retention, bookmark_point, bookmark_text
from runtime.storage.database_file import renew_log
from runtime.storage.held_object import HeldObject, Submitted
from runtime.storage.object_copy import ObjectCopying
from runtime.storage.object_file import (
    ObjectFile,
    begin_use,
    end_use,
    logs_left_behind,
    object_path,
    open_object,
    was_in_use,
)
from runtime.storage.object_history import history_path
from runtime.storage.object_keys import REGISTERED, ObjectKeys
from runtime.storage.object_points import point_at
from runtime.storage.object_restore import bring_back
from runtime.storage.object_sizes import object_sizes
from runtime.storage.object_sweep import sweep_histories
from runtime.storage.object_syncs import SYNC_TASKS, ObjectSyncs
from runtime.storage.store import KEEP, Done, Keep, Store, WriteBatch

T = TypeVar("T")

_CHECKPOINT_PAGES = 1_000  # of 4 KiB
_LOG_CHECKPOINTS = 8  # of so many pages is a log at most, and what comes while it is moved
_CHECKPOINT_S = 60.0  # when nobody knows any more at what time something was written that a crash left in a log
_CLOSE_S = 30.0
_SWEEP_S = 3_600.0
_MEASURE_S = 60.0
_SWEEP_PART = 1 / 16  # of what is to be kept, which so much more than that may be for a while


class ObjectStore:
    """The `Backend` of SQL classes on a folder of database files.

    Args:
        directory: of the files; made when the first object is opened.
        index: the store of the server; it must run as long as this does.
        platform: blocking calls and syncs.
        limits: of rows and databases.
        retention: what is kept of what was there before; all objects together.
        checkpoint_pages: a log that has grown by so many pages is moved into its database. One of eight times as many
            begins anew, for which those who write have to wait a moment.
    """

    def __init__(
        self,
        directory: Path,
        *,
        index: Store,
        platform: Platform,
        limits: StorageLimits,
        retention: Retention | None = None,
        checkpoint_pages: int = _CHECKPOINT_PAGES,
    ) -> None:
        self.limits = limits.of_sql_classes()
        self._directory = directory
        self._index = index
        self._platform = platform
        self._checkpoint_pages = checkpoint_pages
        self._retention = Retention() if retention is None else retention
        self._objects: dict[ActorId, HeldObject] = {}
        self._syncs = ObjectSyncs(platform, self._settle)
        self._unusable: dict[ActorId, StorageFailed] = {}
        self._in_use = False
        self._grown = 0  # bytes of histories since they were swept
        self._sweep_due = trio.Event()
        self._measuring = trio.Lock()
        self._measured_at = -math.inf
        self._sizes: Mapping[str, int] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at what a crash left behind, call `task_status.started()`, and sync until cancelled; then close all.

        At the end no instance may be alive; what was submitted becomes durable.
        """
        await self._repair_index()
        working, stopping = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._work, working, stopping)  # not `start`: cancelled, it would wait for ever
            try:
                await working.wait()
                task_status.started()
                await trio.sleep_forever()
            finally:
                stopping.set()

    async def _work(self, working: trio.Event, stopping: trio.Event) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for _ in range(SYNC_TASKS):
                    nursery.start_soon(self._syncs.run)
                nursery.start_soon(self._sweep)
                working.set()
                await stopping.wait()
                await self._close_all()
                nursery.cancel_scope.cancel()
        self._nursery = None

    def attach(self, actor: ActorId, *, history: bool) -> Keyspace:
        """The keys of a new instance; `prepare` opens its file."""
        return ObjectKeys(actor, self, history=history and self._retention.keeps)

    def copying(self, source: ActorId, target: ActorId) -> Copying:
        """Copy what an object has sealed to one that has stored nothing."""
        return ObjectCopying(source, target, files=self, index=self._index, platform=self._platform)

    def submit(self, batch: WriteBatch, done: Done) -> None:
        """Take a batch that was committed, or could not be."""
        held = self._objects[batch.actor]
        entry = Submitted(done, error=held.keys.failure)
        if entry.error is None and (batch.writes or batch.alarm is not KEEP):
            entry.indexed = False
            self._index.submit(batch, lambda error: self._indexed(held, entry, error))
        held.submitted.append(entry)
        if not held.syncing:
            self._syncs.add(held)

    def begin_commit(self) -> None:
        """Begin to sync what was submitted, unless enough syncs are under way."""
        self._syncs.begin()

    # Files (`object_keys.Files`).

    async def acquire(self, keys: ObjectKeys) -> tuple[ObjectFile, bool, float | Keep | None]:
        """Open an object's file, after an earlier instance has closed it."""
        actor = keys.actor
        while (earlier := self._objects.get(actor)) is not None:
            self._platform.point("an object is opened while it is being closed")
            await earlier.closed.wait()
        if actor in self._unusable:
            raise self._unusable[actor]
        held = self._objects[actor] = HeldObject(keys, working=True)
        try:
            if not self._in_use:
                await self._platform.run_blocking(begin_use, self._directory)
                self._in_use = True
            with trio.CancelScope(shield=True):  # a file that is half open has an owner
                held.file = await self._open(actor, keeps=keys.history)
            file = held.file
            assert file is not None
            registered, repaired = self._compare(actor, file.alarm, _whatever_happens)
        except BaseException:
            del self._objects[actor]
            held.closed.set()
            raise
        finally:
            held.opened.set()
        held.working = False
        self.close_if_done(held)
        return file, registered, repaired

    async def _open(self, actor: ActorId, *, keeps: bool | None) -> ObjectFile:
        """Open an object's file, what a crash left behind in the history, brought back if that was asked for."""
        blocking, path = self._platform.run_blocking, object_path(self._directory, actor)
        opening = partial(open_object, path, self.limits, self._platform.now, keeps=keeps)
        file: ObjectFile = await blocking(opening)
        if file.left_behind is not None:
            self._platform.point("a crash left a log behind")
            await self.make_last(file)
            await blocking(file.record_left_behind)
        if file.restore_to is None or keeps is None:
            return file
        await self.make_last(file)
        await blocking(file.close)
        try:
            await blocking(bring_back, path, file.restore_to, self._platform.now())
        except InvalidBookmark:
            file = await blocking(opening)
            file.cancel_restore()
            await self.make_last(file)
            await blocking(file.close)
            raise
        except (OSError, apsw.Error) as error:
            raise StorageFailed(f"{path} cannot be brought back: {error}") from error
        return await blocking(opening)  # type: ignore[no-any-return]

    def held(self, actor: ActorId) -> HeldObject | None:
        """An object whose file is open, or is being opened or closed."""
        return self._objects.get(actor)

    async def make_last(self, file: ObjectFile) -> None:
        """Make the log last, as everything needs that goes into the history. Raises: StorageFailed."""
        try:
            if file.doubtful:  # its instance has ended: nobody else writes
                await self._platform.run_blocking(renew_log, file.log)
                file.doubtful = False
            else:
                await self._platform.sync_file(file.log)
        except (apsw.Error, OSError) as error:
            raise StorageFailed(f"the log of {file.path} may not last: {error}") from error

    def release(self, keys: ObjectKeys) -> None:
        """Close an object's file as soon as what was submitted is durable."""
        held = self._objects.get(keys.actor)
        if held is not None and held.keys is keys:
            held.released = True
            self.close_if_done(held)

    def abandon(self) -> None:
        """Leave every file as it is, as a process that is killed does; `run` ends. For tests and simulations."""
        for held in list(self._objects.values()):
            if held.file is not None:
                held.file.close(keep_log=True)
            held.closed.set()
        self._objects.clear()
        self._syncs.forget()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
            self._nursery = None

    def close_if_done(self, held: HeldObject) -> None:
        """Close the file of an object that has ended, unless somebody still needs it."""
        busy = held.working or held.syncing or held.submitted or held.looks
        if held.released and held.file is not None and not busy and self._nursery is not None:
            held.working = True
            self._nursery.start_soon(self._close, held, held.file)

    async def _close(self, held: HeldObject, file: ObjectFile) -> None:
        actor = held.keys.actor
        blocking = self._platform.run_blocking
        try:
            if file.unsynced or file.doubtful:
                await self.make_last(file)
        except StorageFailed as error:
            self._unusable[actor] = error  # nobody knows how much of the log is on the disk: the next start looks
            await blocking(partial(file.close, keep_log=True))
        else:
            # A disk that does not take what the log has loses nothing: whoever opens the object next goes on from it.
            with contextlib.suppress(StorageFailed):
                holds = await blocking(file.close)
                self._has_grown(file)
                if not holds and self._index.open(actor).get(REGISTERED) is not None:
                    gone = WriteBatch(actor=actor, sequence=0, delete_all=True, writes={}, alarm=None)
                    self._index.submit(gone, _whatever_happens)
        del self._objects[actor]
        held.closed.set()

    async def _close_all(self) -> None:
        for held in list(self._objects.values()):
            self.release(held.keys)
        with trio.move_on_after(_CLOSE_S):
            while self._objects:
                await next(iter(self._objects.values())).closed.wait()
        if self._objects:  # the index does not answer: the next start looks at the logs
            self.abandon()
        elif self._in_use:
            await self._platform.run_blocking(end_use, self._directory)

    # The history (`object_keys.Files`).

    async def bookmark(self, keys: ObjectKeys) -> str:
        """A bookmark of everything that is sealed, which is durable then."""
        return bookmark_text((await self._durable(keys)).points.ask(), self._index.lineage)

    async def bookmark_at(self, keys: ObjectKeys, time_s: float) -> str:
        """A bookmark of a time. Raises: InvalidBookmark."""
        file = await self._durable(keys)
        newest, marks = file.points.ask(), list(file.points.marks)
        older = [mark for mark in await self._read_history(file.history.marks) if mark.point < marks[0].point]
        return bookmark_text(point_at([*older, *marks], newest, time_s), self._index.lineage)

    async def point(self, keys: ObjectKeys, bookmark: str) -> int:
        """The point of a bookmark that can be restored. Raises: InvalidBookmark."""
        file = self._file_of(keys)
        ancestors = await self._read_history(file.history.ancestors)
        point = bookmark_point(bookmark, self._index.lineage, ancestors)
        marks = [mark.point for mark in file.points.marks]
        if point == file.points.newest or point in marks:
            return point
        await self._read_history(file.history.check, point)
        return point

    async def _read_history(self, fn: Callable[..., T], *args: Any) -> T:
        try:
            found: T = await self._platform.run_blocking(fn, *args)
        except OSError as error:
            raise StorageFailed(f"the history cannot be read: {error}") from error
        return found

    def _file_of(self, keys: ObjectKeys) -> ObjectFile:
        file = self._objects[keys.actor].file
        assert file is not None
        return file

    async def _durable(self, keys: ObjectKeys) -> ObjectFile:
        """The file, with everything that is sealed."""
        # What was written as it was opened says of which generation the points are, and that it has a history.
        self._file_of(keys).unsynced = True
        ended = trio.Event()
        errors: list[Exception] = []

        def done(error: Exception | None) -> None:
            errors.extend([] if error is None else [error])
            ended.set()

        self.submit(WriteBatch(actor=keys.actor, sequence=0, writes={}), done)
        await ended.wait()
        if errors:
            raise errors[0]
        return self._file_of(keys)

    def _has_grown(self, file: ObjectFile) -> None:
        self._grown += file.history.added
        file.history.added = 0
        if self._grown > self._retention.total_bytes * _SWEEP_PART:
            self._sweep_due.set()

    async def stored_bytes(self) -> Mapping[str, int]:
        """By namespace; the disk is looked at once a minute, as it may have very many files."""
        async with self._measuring:
            if trio.current_time() >= self._measured_at + _MEASURE_S:
                try:
                    self._sizes = await self._platform.run_blocking(object_sizes, self._directory)
                except OSError as error:
                    raise StorageFailed(f"{self._directory} cannot be read: {error}") from error
                self._measured_at = trio.current_time()
        return self._sizes

    async def _sweep(self) -> None:
        """Forget what is too old or too much, every hour and whenever much has come."""
        while True:
            with trio.move_on_after(_SWEEP_S):
                await self._sweep_due.wait()
            self._sweep_due, self._grown = trio.Event(), 0
            if self._in_use:
                in_use = {history_path(object_path(self._directory, actor)) for actor in self._objects}
                with contextlib.suppress(OSError):  # the next one tries again
                    await self._platform.run_blocking(
                        sweep_histories, self._directory, self._retention, self._platform.now(), in_use
                    )

    # Durability.

    def _indexed(self, held: HeldObject, entry: Submitted, error: Exception | None) -> None:
        entry.indexed = True
        entry.error = entry.error or error
        self._settle(held)

    def _settle(self, held: HeldObject) -> None:
        """Report what is durable or lost, in order; what was built on a lost batch is lost."""
        while held.submitted and held.submitted[0].synced and held.submitted[0].indexed:
            entry = held.submitted.popleft()
            held.failed = held.failed or entry.error
            entry.done(held.failed)
        self._checkpoint_if_due(held)
        self.close_if_done(held)

    def _checkpoint_if_due(self, held: HeldObject) -> None:
        file = held.file
        if file is None or held.released or self._nursery is None:
            return
        if file.log_pages < held.checkpointed:
            held.checkpointed = 0  # the log began anew
        grown = file.log_pages - held.checkpointed
        if grown >= self._checkpoint_pages and file.log_pages >= _LOG_CHECKPOINTS * self._checkpoint_pages:
            held.held_back = True
        now = trio.current_time()
        late = grown and now >= held.checkpointed_s + _CHECKPOINT_S
        if not held.working and (grown >= self._checkpoint_pages or late):
            held.working = True
            held.checkpointed, held.checkpointed_s = file.log_pages, now
            self._nursery.start_soon(self._checkpoint, held, file)

    async def _checkpoint(self, held: HeldObject, file: ObjectFile) -> None:
        with contextlib.suppress(apsw.Error, StorageFailed):
            await self._move_log(file)
            if held.held_back:  # next to nothing has come meanwhile; SQLite begins a log anew once all of it is moved
                await self._move_log(file)
        self._has_grown(file)
        held.working = held.held_back = False
        if held.submitted and not held.syncing:
            self._syncs.add(held)
        self.close_if_done(held)

    async def _move_log(self, file: ObjectFile) -> None:
        blocking = self._platform.run_blocking
        look: apsw.Connection = await blocking(file.look)
        try:
            upto, marks = file.hold(look)
            await self.make_last(file)
            await blocking(file.checkpoint, upto, marks)
            file.points.forget(upto)
        finally:
            look.close()

    # The index.

    def _compare(
        self, actor: ActorId, alarm: float | None, done: Done, *, register: bool = False
    ) -> tuple[bool, float | Keep | None]:
        """Whether the index knows the object; and its alarm, if the index had to be told, which ends with `done`."""
        reads = self._index.open(actor)
        known = [key for key, _ in reads.list(b"", None, 2, False)]
        if known not in ([], [REGISTERED]):
            raise StorageFailed(
                f'{actor!r} has keys in the shared database, stored when its class had no storage = "sql"; '
                "a class cannot change that once it has stored something: take the setting back"
            )
        if reads.alarm() == alarm and (known or not register):
            return bool(known), KEEP
        batch = WriteBatch(actor=actor, sequence=0, writes={REGISTERED: b""}, alarm=alarm)
        self._platform.point("the index is told of an object")
        self._index.submit(batch, done)
        return True, alarm

    async def _repair_index(self) -> None:
        """Tell the index what it missed when the server ended without a word."""
        blocking = self._platform.run_blocking
        if not await blocking(was_in_use, self._directory):
            return
        self._in_use = True
        for actor in await blocking(logs_left_behind, self._directory):
            with contextlib.suppress(StorageFailed):  # whoever uses the object will see it
                file = await self._open(actor, keeps=None)
                holds: bool = await blocking(file.close)
                named = ActorId(actor.namespace, actor.raw, file.name)
                await self._tell(named, file.alarm, register=holds)

    async def _tell(self, actor: ActorId, alarm: float | None, *, register: bool) -> None:
        told = trio.Event()
        _, repaired = self._compare(actor, alarm, lambda _: told.set(), register=register)
        if repaired is not KEEP:
            await told.wait()


def _whatever_happens(_: Exception | None) -> None:
    """A repair of the index that fails is tried again when the object is opened, or the server starts."""
