"""What the real runtime does otherwise, so that random programs can be compared: rows of the differences, each."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from unittest.mock import patch
from weakref import WeakKeyDictionary

import attrs
import trio

from runtime import limits
from runtime.actor.result import Result
from runtime.errors import ActorError
from runtime.ids import ActorId
from runtime.namespace.alarms import AlarmScheduler, _Alarm
from runtime.namespace.router import EVICT_WAIT_S, Router
from runtime.storage.storage import Storage
from runtime.storage.store import KEEP, WriteBatch


@attrs.define(eq=False)
class Noted:
    """What a program came to that cannot be compared.

    Attributes:
        lost: an eviction found an actor idle right behind a write, which there may be lost with the instance
            (`evict-loses-the-last-write`).
    """

    lost: bool = False


@contextmanager
def habits() -> Generator[Noted]:
    """Meanwhile, all of them."""
    noted = Noted()
    with _one_frame(), _evictions(noted), _alarms_behind_retries():
        yield noted


@contextmanager
def _one_frame() -> Generator[None]:
    """One message of a socket waits for the turn (`ws-frames-wait-one-at-a-time`)."""
    with patch.object(limits, "SOCKET_EVENTS", 1):
        yield


@contextmanager
def _evictions(noted: Noted) -> Generator[None]:
    """The eviction of an instance that is destroyed before it is idle waits in vain (`evict-while-aborted`)."""
    evict, take_batch = Router.evict, Storage.take_batch
    written_at: WeakKeyDictionary[Storage, float] = WeakKeyDictionary()

    def take_batch_then(storage: Storage) -> WriteBatch | None:
        batch = take_batch(storage)
        if batch is not None:
            written_at[storage] = trio.current_time()
        return batch

    async def evict_as_there(router: Router, actor_id: ActorId, *, cut_sockets: bool = False) -> None:
        container = router.containers.get(actor_id)
        cell, begun = None if container is None else container.cell, trio.current_time()
        await evict(router, actor_id, cut_sockets=cut_sockets)
        assert cell is not None
        if cell.incarnation.error is not None:
            await trio.sleep_until(begun + EVICT_WAIT_S)
            raise ActorError("Timed out waiting to evict Durable Object: it still has active references. (destroyed)")
        if begun < trio.current_time() == written_at.get(cell.storage):
            noted.lost = True

    with patch.object(Router, "evict", evict_as_there), patch.object(Storage, "take_batch", take_batch_then):
        yield


@contextmanager
def _alarms_behind_retries() -> Generator[None]:
    """An alarm that is set before a retry waits until that has ended, and then takes its place.

    Also when it fails (`alarm-set-between-retries`, `alarm-set-before-its-retry-fails`).
    """
    changed, ran = AlarmScheduler.changed, AlarmScheduler._ran
    queued: dict[_Alarm, float] = {}

    def queue(scheduler: AlarmScheduler, actor_id: ActorId, due: float | None) -> None:
        alarm = scheduler._alarms.get(actor_id)
        if alarm is None or alarm.running or not alarm.retries:
            changed(scheduler, actor_id, due)
        elif due is None:
            queued.pop(alarm, None)
            changed(scheduler, actor_id, due)
        else:
            queued[alarm] = due

    def take_its_place(scheduler: AlarmScheduler, actor_id: ActorId, alarm: _Alarm, result: Result) -> None:
        due = queued.pop(alarm, None)
        if due is not None and alarm.changed is KEEP:
            alarm.changed = due
        ran(scheduler, actor_id, alarm, result)

    with patch.object(AlarmScheduler, "changed", queue), patch.object(AlarmScheduler, "_ran", take_its_place):
        yield
