"""Alarms of all actors: when each is due, its retries, and the event that runs it.

An alarm is never early, runs at least once, and is deleted only together with its handler's writes. When the handler
raises, or takes over 15 minutes, it runs again after 2 s, doubling, with up to 25 % of jitter, six times at most.
A run that failed because the runtime could not begin it or store what it wrote does not count towards the six; the
wait grows to 1,024 s then. (Durable Objects: alarms.)
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import structlog

from runtime import limits
from runtime.actor.actor import Actor, AlarmInfo
from runtime.actor.input_gate import Job, Work
from runtime.actor.result import Error, Result
from runtime.errors import ActorReset, Overloaded, StorageFailed
from runtime.ids import ActorId
from runtime.platform import Platform
from runtime.storage.store import KEEP, Keep
from runtime.timers import Timer, Timers

if TYPE_CHECKING:
    from runtime.actor.cell import Cell

# A wall clock that is set forward is noticed within this time.
CLOCK_CHECK_S = 60.0


class _Alarm:
    __slots__ = ("at", "changed", "counted", "due", "raised", "retries", "running")

    def __init__(self, due: float) -> None:
        self.due = due  # what is stored
        self.at = due  # when to run: later than due between retries
        self.retries = 0
        self.counted = 0  # those of them that the handler is to blame for
        self.running = False
        self.raised = False  # the handler, in this run
        self.changed: float | Keep | None = KEEP  # what the handler's own writes made of it


class AlarmJob(Job):
    """The event of an alarm that is due.

    What has queued behind it finds the alarm out of sight, and runs before the handler. (Durable Objects: arming the
    handler and running it take the input gate one after the other.)
    """

    __slots__ = ("_alarm", "_armed", "_info")

    def __init__(self, alarm: _Alarm, info: AlarmInfo, done: Callable[[Result], None]) -> None:
        super().__init__("alarm", self._ring, done, logs=True, timeout_s=limits.ALARM_HANDLER_S)
        self._alarm = alarm
        self._info = info
        self._armed = False

    def queue_again(self, cell: Cell) -> bool:
        """Once, when the alarm is still due."""
        if self._armed:
            return False
        self._armed = cell.arm_alarm(self._info)
        return self._armed

    async def _ring(self, actor: Actor[Any]) -> None:
        try:
            await actor.ctx._cell.run_alarm(self._info, armed=self._armed)
        except Exception:
            self._alarm.raised = True
            raise


class AlarmScheduler:
    """The index of pending alarms.

    Args:
        deliver: puts an event into an actor's mailbox.
    """

    def __init__(
        self,
        platform: Platform,
        timers: Timers,
        deliver: Callable[[ActorId, Work], None],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._platform = platform
        self._timers = timers
        self._deliver = deliver
        self._log = log
        self._alarms: dict[ActorId, _Alarm] = {}
        self._retried: set[ActorId] = set()  # those of them whose last run failed
        self._heap: list[tuple[float, int, ActorId, _Alarm]] = []
        self._ages = count()
        self._timer: Timer | None = None
        self._stopped = False

    def load(self, pending: Iterable[tuple[ActorId, float]]) -> None:
        """Take over what the store holds; overdue ones run at once."""
        for actor_id, due in pending:
            self.changed(actor_id, due)

    def changed(self, actor_id: ActorId, due: float | None) -> None:
        """An actor's alarm was durably set or deleted."""
        alarm = self._alarms.get(actor_id)
        if alarm is not None and alarm.running:
            alarm.changed = due
        elif due is None:
            self._alarms.pop(actor_id, None)
            self._retried.discard(actor_id)
        else:
            self._retried.discard(actor_id)
            self._alarms[actor_id] = alarm = _Alarm(due)
            self._schedule(actor_id, alarm)

    def due(self, actor_id: ActorId) -> float | None:
        """When an actor's alarm will run next (wall clock)."""
        alarm = self._alarms.get(actor_id)
        return None if alarm is None else alarm.at

    def __iter__(self) -> Iterator[ActorId]:
        """Every actor with a pending alarm."""
        return iter(self._alarms)

    def retries(self, actor_id: ActorId) -> int:
        """How many runs of an actor's alarm have failed in a row."""
        alarm = self._alarms.get(actor_id)
        return 0 if alarm is None else alarm.retries

    def retried(self) -> Iterator[tuple[ActorId, int]]:
        """The actors whose alarms are being tried again, and how often they have failed."""
        return iter([(actor_id, self._alarms[actor_id].retries) for actor_id in self._retried])

    def stop(self) -> None:
        """Begin no more of them; they are stored, and the next start takes them over."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, actor_id: ActorId, alarm: _Alarm) -> None:
        heapq.heappush(self._heap, (alarm.at, next(self._ages), actor_id, alarm))
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._heap and not self._current(*self._heap[0]):
            heapq.heappop(self._heap)
        if self._heap and not self._stopped:
            wait = min(max(self._heap[0][0] - self._platform.now(), 0.0), CLOCK_CHECK_S)
            self._timer = self._timers.call_after(wait, self._tick)

    def _current(self, at: float, _: int, actor_id: ActorId, alarm: _Alarm) -> bool:
        return self._alarms.get(actor_id) is alarm and alarm.at == at and not alarm.running

    def _tick(self) -> None:
        self._timer = None
        now = self._platform.now()
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            if self._current(*entry):
                self._fire(entry[2], entry[3])
        self._arm()

    def _fire(self, actor_id: ActorId, alarm: _Alarm) -> None:
        alarm.running = True
        alarm.changed = KEEP
        alarm.raised = False
        info = AlarmInfo(retry_count=alarm.retries, is_retry=alarm.retries > 0, scheduled_time=alarm.due)
        self._deliver(actor_id, AlarmJob(alarm, info, lambda result: self._ran(actor_id, alarm, result)))

    def _ran(self, actor_id: ActorId, alarm: _Alarm, result: Result) -> None:
        del self._alarms[actor_id]
        self._retried.discard(actor_id)
        if isinstance(alarm.changed, float):
            self.changed(actor_id, alarm.changed)
        elif isinstance(result, Error) and alarm.changed is KEEP:
            self._retry(actor_id, alarm, result.error)

    def _retry(self, actor_id: ActorId, failed: _Alarm, error: BaseException) -> None:
        if isinstance(error, ActorReset) and not error.retry_alarm:
            self._deliver(actor_id, Job("drop alarm", _drop))
            return
        counted = failed.counted + (failed.raised or _is_the_apps(error))
        if counted > limits.ALARM_RETRIES:
            self._platform.point("an alarm is given up")
            self._log.error("alarm dropped after its last retry", actor=repr(actor_id), runs=failed.retries + 1)
            self._deliver(actor_id, Job("drop alarm", _drop))
            return
        self._platform.point("an alarm is tried again")
        alarm = self._alarms[actor_id] = _Alarm(failed.due)
        alarm.retries, alarm.counted = failed.retries + 1, counted
        self._retried.add(actor_id)
        backoff = min(limits.ALARM_BACKOFF_S * 2**failed.retries, limits.ALARM_BACKOFF_MOST_S)
        alarm.at = self._platform.now() + backoff * (1 + 0.25 * self._platform.random.random())
        self._schedule(actor_id, alarm)


def _is_the_apps(error: BaseException) -> bool:
    """Not for a reason that passes without it: no room in memory, or a disk that does not take its writes."""
    if isinstance(error, StorageFailed):
        return error.by_app
    return not isinstance(error, Overloaded)


async def _drop(actor: Actor[Any]) -> None:
    actor.ctx.storage.delete_alarm()
