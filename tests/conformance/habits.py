"""What the real runtime does otherwise, so that random programs can be compared: rows of the differences, each."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import trio

from runtime import limits
from runtime.actor.result import Result
from runtime.errors import ActorError
from runtime.ids import ActorId
from runtime.namespace.alarms import AlarmScheduler, _Alarm
from runtime.namespace.router import EVICT_WAIT_S, Router
from runtime.storage.store import KEEP


@contextmanager
def habits() -> Generator[None]:
    """Meanwhile, all of them."""
    with _one_frame(), _evictions_of_the_destroyed(), _alarms_behind_retries():
        yield


@contextmanager
def _one_frame() -> Generator[None]:
    """One message of a socket waits for the turn (`ws-frames-wait-one-at-a-time`)."""
    many, limits.SOCKET_EVENTS = limits.SOCKET_EVENTS, 1  # type: ignore[misc]
    try:
        yield
    finally:
        limits.SOCKET_EVENTS = many  # type: ignore[misc]


@contextmanager
def _evictions_of_the_destroyed() -> Generator[None]:
    """The eviction of an instance that is destroyed before it is idle waits in vain (`evict-while-aborted`)."""
    evict = Router.evict

    async def evict_in_vain(router: Router, actor_id: ActorId, *, cut_sockets: bool = False) -> None:
        container = router.containers.get(actor_id)
        cell, begun = None if container is None else container.cell, trio.current_time()
        await evict(router, actor_id, cut_sockets=cut_sockets)
        if cell is not None and cell.incarnation.error is not None:
            await trio.sleep_until(begun + EVICT_WAIT_S)
            raise ActorError("Timed out waiting to evict Durable Object: it still has active references. (destroyed)")

    Router.evict = evict_in_vain  # type: ignore[method-assign]
    try:
        yield
    finally:
        Router.evict = evict  # type: ignore[method-assign]


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

    AlarmScheduler.changed = queue  # type: ignore[method-assign]
    AlarmScheduler._ran = take_its_place  # type: ignore[method-assign]
    try:
        yield
    finally:
        AlarmScheduler.changed = changed  # type: ignore[method-assign]
        AlarmScheduler._ran = ran  # type: ignore[method-assign]
