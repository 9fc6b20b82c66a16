"""Claims about alarms: never early, not lost, tried again, and gone only with what their handler wrote."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from runtime import limits
from runtime.actor.cell import Cell
from runtime.ids import ActorId
from runtime.sim.claim import Claim
from runtime.storage.store import KEEP, Keep, ReadHandle, WriteBatch


@attrs.define(eq=False)
class AlarmNeverEarly(Claim):
    """An alarm handler never begins before the wall clock has shown its time.

    A clock that was set back later does not count: the alarm rang, and is tried again or still waits for its turn.
    """

    row = "G7"

    _shown: float = attrs.field(default=0.0, init=False)

    def clock_set(self, before: float, event: int) -> None:
        """The wall clock was set."""
        self._shown = max(self._shown, before)

    def alarm_began(self, actor: ActorId, scheduled: float, tries: int, now: float, event: int) -> None:
        """An alarm handler begins."""
        self.checked += 1
        if max(now, self._shown) < scheduled:
            self.broken(f"the alarm of {actor!r} ran {scheduled - now:.6f} s early", event, event)


@attrs.define(eq=False)
class AlarmNotLost(Claim):
    """An alarm that is durably set is run, moved or deleted by its actor; it does not vanish, nor stay for ever."""

    row = "G7"

    GRACE_S = 230.0  # a clock set forward is noticed in 60 s; six retries from 2 s doubling, with jitter

    _due: dict[ActorId, tuple[float, int]] = attrs.field(factory=dict, init=False)
    _read: Callable[[ActorId], ReadHandle] | None = attrs.field(default=None, init=False)

    def acknowledged(self, batch: WriteBatch, unsynced: int, event: int) -> None:
        """The store says that it is durable."""
        if batch.restore_to is not None:
            assert self._read is not None
            self._note(batch.actor, self._read(batch.actor).alarm(), event)
        elif batch.alarm is not KEEP:
            self._note(batch.actor, batch.alarm, event)

    def _note(self, actor: ActorId, alarm: float | Keep | None, event: int) -> None:
        if isinstance(alarm, float):
            self._due[actor] = alarm, event
        else:
            self._due.pop(actor, None)

    def alarm_began(self, actor: ActorId, scheduled: float, tries: int, now: float, event: int) -> None:
        """An alarm handler begins: what it does with the alarm is acknowledged later."""
        due = self._due.get(actor)
        if due is not None and due[0] == scheduled:
            self.checked += 1

    def opened(self, read: Callable[[ActorId], ReadHandle], event: int) -> None:
        """The store was opened again: what was not acknowledged may be there."""
        self._read = read
        for actor in list(self._due):
            alarm = read(actor).alarm()
            if alarm is None:
                del self._due[actor]  # `AcknowledgedStays` knows whether it may be gone
            else:
                self._due[actor] = alarm, event

    def patience_s(self, now: float) -> float:
        """Until an alarm that is late now would be lost."""
        return self.GRACE_S + 10.0 if any(due + 1.0 < now for due, _ in self._due.values()) else 0.0

    def finished(self, now: float, event: int) -> None:
        """Everybody has had time to finish."""
        for actor, (due, set_at) in self._due.items():
            self.checked += 1
            if due + self.GRACE_S < now:
                self.broken(f"the alarm of {actor!r} is {now - due:.1f} s overdue", set_at, event)


@attrs.define(eq=False)
class AlarmGoesWithItsEffect(Claim):
    """An alarm is deleted by its actor, with the last writes of a handler that succeeded, or after seven tries."""

    row = "G7"

    _running: dict[ActorId, int] = attrs.field(factory=dict, init=False)
    _tries: dict[ActorId, int] = attrs.field(factory=dict, init=False)
    _may_go: set[ActorId] = attrs.field(factory=set, init=False)

    def alarm_began(self, actor: ActorId, scheduled: float, tries: int, now: float, event: int) -> None:
        """An alarm handler begins."""
        self._running[actor] = event
        self._tries[actor] = tries

    def alarm_ended(self, actor: ActorId, failed: bool, now: float, event: int) -> None:
        """An alarm handler has ended."""
        self._running.pop(actor, None)
        if not failed:
            self._may_go.add(actor)

    def alarm_deleted(self, actor: ActorId, event: int) -> None:
        """The actor itself lets it go."""
        self._may_go.add(actor)

    def alarm_given_up(self, actor: ActorId, event: int) -> None:
        """It has failed too often."""
        self.checked += 1
        tries = self._tries.get(actor, 0)
        if tries < limits.ALARM_RETRIES and actor not in self._may_go:
            text = f"the alarm of {actor!r} was given up after {tries + 1} tries, not {limits.ALARM_RETRIES + 1}"
            self.broken(text, self._running.get(actor, event), event)
        self._may_go.add(actor)

    def submitted(self, batch: WriteBatch, event: int) -> None:
        """A batch is on its way."""
        if batch.alarm is not None or not batch.sequence:  # a store's own batch brings its index up to date
            return
        self.checked += 1
        begun = self._running.get(batch.actor)
        if batch.actor not in self._may_go:
            text = f"the alarm of {batch.actor!r} was deleted, and nobody had asked for it nor had its handler ended"
            self.broken(text, begun or event, event)
        self._may_go.discard(batch.actor)

    def ended(self, life: int, cell: Cell, event: int) -> None:
        """An instance was evicted or destroyed, with what it was about to do."""
        self._running.pop(cell.id, None)

    def died(self, life: int, event: int) -> None:
        """Nobody runs."""
        self._running.clear()
        self._tries.clear()
        self._may_go.clear()


@attrs.define(eq=False)
class AlarmPauses(Claim):
    """A handler that failed, or ended with its instance, is tried again after 2 s, 4 s and so on, not before."""

    row = "G7"

    _running: set[ActorId] = attrs.field(factory=set, init=False)
    _failed: dict[ActorId, tuple[float, int]] = attrs.field(factory=dict, init=False)

    def alarm_began(self, actor: ActorId, scheduled: float, tries: int, now: float, event: int) -> None:
        """An alarm handler begins."""
        self._running.add(actor)
        failed = self._failed.pop(actor, None)
        if failed is None or not tries:
            return
        self.checked += 1
        pause = min(limits.ALARM_BACKOFF_S * 2 ** (tries - 1), limits.ALARM_BACKOFF_MOST_S)
        if now < failed[0] + pause - 1e-6:
            text = f"the alarm of {actor!r} was tried again after {now - failed[0]:.3f} s, not {pause:g} s"
            self.broken(text, failed[1], event)

    def alarm_ended(self, actor: ActorId, failed: bool, now: float, event: int) -> None:
        """An alarm handler has ended."""
        self._running.discard(actor)
        if failed:
            self._failed[actor] = now, event

    def ended(self, life: int, cell: Cell, event: int) -> None:
        """An instance was evicted or destroyed, with what it was about to do."""
        if cell.id in self._running:
            self._running.remove(cell.id)
            self._failed[cell.id] = cell.services.platform.now(), event

    def clock_set(self, before: float, event: int) -> None:
        """The wall clock was set: it cannot measure a pause."""
        self._failed.clear()

    def died(self, life: int, event: int) -> None:
        """Tries are counted anew."""
        self._running.clear()
        self._failed.clear()
