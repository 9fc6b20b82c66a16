"""What must always hold of any app: the rows of the published table of guarantees, each watched by a class of its own.

A claim hears of what happens through its methods and calls `broken` with the two events that contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from runtime.actor.cell import Cell
from runtime.ids import ActorId
from runtime.storage.store import KEEP, ReadHandle, WriteBatch

Broken = Callable[["Claim", str, int, int], None]


@attrs.frozen
class Violation:
    """A claim that does not hold.

    Attributes:
        claim: its name, with the row of the table. text: what was seen.
        first, second: the numbers of the events that contradict each other; 0: none.
    """

    claim: str
    text: str
    first: int = 0
    second: int = 0


@attrs.define(eq=False)
class Claim:
    """Something that must hold; hears of everything, and says when it does not.

    Attributes:
        row: of the table of guarantees.
        checked: how often it had something to compare.
    """

    row = ""

    _broken: Broken = attrs.field(alias="broken")
    checked: int = attrs.field(default=0, init=False)

    @property
    def name(self) -> str:
        """For reports."""
        return f"{self.row} {type(self).__name__}"

    def broken(self, text: str, first: int, second: int) -> None:
        """It does not hold."""
        self._broken(self, text, first, second)

    def began(self, life: int, cell: Cell, event: int) -> None:
        """An instance was made, in the so manieth process."""

    def ended(self, life: int, cell: Cell, event: int) -> None:
        """An instance was evicted or destroyed."""

    def turn_taken(self, cell: Cell, gate: object, event: int) -> None:
        """A handler has the turn of a gate."""

    def turn_let_go(self, cell: Cell, gate: object, event: int) -> None:
        """It has let it go."""

    def wrote(self, cell: Cell, sequence: int, event: int) -> None:
        """A handler wrote something that is to be waited for, into this batch."""

    def durable(self, cell: Cell, sequence: int, event: int) -> None:
        """The instance was told that its batches up to this one are durable."""

    def left(self, cell: Cell, needed: int, since: int, event: int) -> None:
        """An effect has left an actor that may be based on its batches up to `needed`, written at the event `since`."""

    def submitted(self, batch: WriteBatch, event: int) -> None:
        """A batch is on its way to the store."""

    def acknowledged(self, batch: WriteBatch, unsynced: int, event: int) -> None:
        """The store says that it is durable; so many operations on its log are not."""

    def refused(self, batch: WriteBatch, event: int) -> None:
        """The store says that it is not stored."""

    def died(self, life: int, event: int) -> None:
        """The process ended without a word."""

    def opened(self, read: Callable[[ActorId], ReadHandle], event: int) -> None:
        """The store was opened again."""

    def alarm_began(self, actor: ActorId, scheduled: float, now: float, event: int) -> None:
        """An alarm handler begins."""

    def clock_set(self, before: float, event: int) -> None:
        """The wall clock of a node, which showed `before`, was set to another time."""

    def patience_s(self, now: float) -> float:
        """How long the world is to go on before `finished`."""
        return 0.0

    def finished(self, now: float, event: int) -> None:
        """Faults are over, and everybody has had time to finish."""


@attrs.define(eq=False)
class OneInstance(Claim):
    """At most one live instance for an id."""

    row = "G1"

    _live: dict[ActorId, tuple[Cell, int]] = attrs.field(factory=dict, init=False)

    def began(self, life: int, cell: Cell, event: int) -> None:
        """An instance was made."""
        self.checked += 1
        other = self._live.get(cell.id)
        if other is not None:
            self.broken(f"{cell.id!r} has two live instances", other[1], event)
        self._live[cell.id] = cell, event

    def ended(self, life: int, cell: Cell, event: int) -> None:
        """An instance was evicted or destroyed."""
        if self._live.get(cell.id, (None, 0))[0] is cell:
            del self._live[cell.id]

    def died(self, life: int, event: int) -> None:
        """All are gone."""
        self._live.clear()


@attrs.define(eq=False)
class OneTurn(Claim):
    """One handler of an instance runs at a time."""

    row = "G2"

    _holders: dict[object, int] = attrs.field(factory=dict, init=False)

    def turn_taken(self, cell: Cell, gate: object, event: int) -> None:
        """A handler has the turn."""
        self.checked += 1
        other = self._holders.get(gate)
        if other is not None:
            self.broken(f"two handlers of {cell.id!r} have the turn at the same time", other, event)
        self._holders[gate] = event

    def turn_let_go(self, cell: Cell, gate: object, event: int) -> None:
        """It has let it go."""
        self._holders.pop(gate, None)

    def died(self, life: int, event: int) -> None:
        """Nobody runs."""
        self._holders.clear()


@attrs.define(eq=False)
class NothingLeavesEarly(Claim):
    """Nothing leaves an actor before every write that it could be based on is durable; checked as it leaves."""

    row = "G5"

    _durable: dict[Cell, int] = attrs.field(factory=dict, init=False)

    def durable(self, cell: Cell, sequence: int, event: int) -> None:
        """Batches are durable."""
        self._durable[cell] = sequence

    def left(self, cell: Cell, needed: int, since: int, event: int) -> None:
        """An effect has left."""
        self.checked += 1
        durable = self._durable.get(cell, 0)
        if durable < needed:
            text = f"an effect of {cell.id!r} left when its batch {needed} was not durable (newest that is: {durable})"
            self.broken(text, since, event)

    def died(self, life: int, event: int) -> None:
        """Nobody is left."""
        self._durable.clear()


@attrs.define(eq=False)
class AcknowledgedIsSynced(Claim):
    """When the store says durable, its log has nothing that a power cut could take."""

    row = "G11"

    _submitted: dict[tuple[ActorId, int], int] = attrs.field(factory=dict, init=False)

    def submitted(self, batch: WriteBatch, event: int) -> None:
        """A batch is on its way."""
        self._submitted[batch.actor, batch.sequence] = event

    def acknowledged(self, batch: WriteBatch, unsynced: int, event: int) -> None:
        """The store says that it is durable."""
        self.checked += 1
        first = self._submitted.pop((batch.actor, batch.sequence), 0)
        if unsynced:
            self.broken(f"{batch.actor!r}: acknowledged with {unsynced} unsynced writes in the log", first, event)

    def died(self, life: int, event: int) -> None:
        """Nothing is on its way."""
        self._submitted.clear()


@attrs.define(eq=False)
class _Kept:
    """What an actor's storage must hold after a crash: what is acknowledged, and any number of what was submitted.

    A batch whose sync failed is in the log all the same, until another one is written over it.
    """

    keys: dict[bytes, bytes] = attrs.field(factory=dict)
    alarm: float | None = None
    pending: list[WriteBatch] = attrs.field(factory=list)
    failed: list[WriteBatch] = attrs.field(factory=list)
    event: int = 0
    unknown: bool = False  # it was brought back to a bookmark


def _apply(keys: dict[bytes, bytes], alarm: float | None, batch: WriteBatch) -> float | None:
    if batch.delete_all:
        keys.clear()
    for key, value in batch.writes.items():
        if value is None:
            keys.pop(key, None)
        else:
            keys[key] = value
    return alarm if batch.alarm is KEEP else batch.alarm


@attrs.define(eq=False)
class AcknowledgedStays(Claim):
    """After a crash each actor has what was acknowledged, each later batch whole or not at all, and nothing else."""

    row = "G6 G11"

    _actors: dict[ActorId, _Kept] = attrs.field(factory=dict, init=False)
    _failed: list[_Kept] = attrs.field(factory=list, init=False)

    def submitted(self, batch: WriteBatch, event: int) -> None:
        """A batch is on its way."""
        kept = self._actors.setdefault(batch.actor, _Kept())
        kept.pending.append(batch)
        if batch.restore_to is not None or batch.restore_next is not None:
            kept.unknown = True

    def acknowledged(self, batch: WriteBatch, unsynced: int, event: int) -> None:
        """The store says that it is durable."""
        kept = self._actors[batch.actor]
        kept.event = event
        for other in self._failed:
            other.failed.clear()
        self._failed.clear()
        if kept.pending and kept.pending[0] is batch:
            kept.pending.pop(0)
            kept.alarm = _apply(kept.keys, kept.alarm, batch)
        else:
            self.broken(f"{batch.actor!r}: batches were acknowledged out of order", event, event)

    def refused(self, batch: WriteBatch, event: int) -> None:
        """The store says that it is not stored."""
        kept = self._actors[batch.actor]
        kept.pending = [other for other in kept.pending if other is not batch]
        kept.failed.append(batch)
        self._failed.append(kept)

    def opened(self, read: Callable[[ActorId], ReadHandle], event: int) -> None:
        """The store was opened again."""
        for actor, kept in self._actors.items():
            reads = read(actor)
            found, alarm = dict(reads.list(b"", None, None, False)), reads.alarm()
            if not kept.unknown:
                self.checked += 1
                self._compare(actor, kept, found, alarm, event)
            kept.keys, kept.alarm, kept.pending, kept.failed, kept.unknown = found, alarm, [], [], False

    def _compare(
        self, actor: ActorId, kept: _Kept, found: Mapping[bytes, bytes], alarm: float | None, event: int
    ) -> None:
        may_be = [kept.pending, *(kept.failed[at:] for at in range(len(kept.failed)))]
        if any(_is_prefix(kept, batches, found, alarm) for batches in may_be):
            return
        differ = _difference(kept.keys, found)
        text = f"{actor!r} has after the restart what no prefix of its batches gives: {differ}"
        if not differ:
            text = f"{actor!r} has after the restart the alarm {alarm}, and {kept.alarm} was acknowledged"
        self.broken(text, kept.event, event)


def _is_prefix(kept: _Kept, batches: list[WriteBatch], found: Mapping[bytes, bytes], alarm: float | None) -> bool:
    """What was acknowledged and the first of the batches, none to all, give exactly what was found."""
    keys, due = dict(kept.keys), kept.alarm
    if found == keys and alarm == due:
        return True
    for batch in batches:
        due = _apply(keys, due, batch)
        if found == keys and alarm == due:
            return True
    return False


def _difference(kept: Mapping[bytes, bytes], found: Mapping[bytes, bytes]) -> str:
    lost = [key for key in kept if key not in found]
    new = [key for key in found if key not in kept]
    changed = [key for key in kept if key in found and kept[key] != found[key]]
    parts = [("lost", lost), ("other", changed), ("more", new)]
    return "; ".join(f"{what} {len(keys)} keys, as {keys[0]!r:.60}" for what, keys in parts if keys)


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

    def alarm_began(self, actor: ActorId, scheduled: float, now: float, event: int) -> None:
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

    def acknowledged(self, batch: WriteBatch, unsynced: int, event: int) -> None:
        """The store says that it is durable."""
        if batch.alarm is None:
            self._due.pop(batch.actor, None)
        elif batch.alarm is not KEEP:
            self._due[batch.actor] = float(batch.alarm), event

    def alarm_began(self, actor: ActorId, scheduled: float, now: float, event: int) -> None:
        """An alarm handler begins: what it does with the alarm is acknowledged later."""
        due = self._due.get(actor)
        if due is not None and due[0] == scheduled:
            self.checked += 1

    def opened(self, read: Callable[[ActorId], ReadHandle], event: int) -> None:
        """The store was opened again: what was not acknowledged may be there."""
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


CLAIMS: Sequence[type[Claim]] = (
    OneInstance,
    OneTurn,
    NothingLeavesEarly,
    AcknowledgedIsSynced,
    AcknowledgedStays,
    AlarmNeverEarly,
    AlarmNotLost,
)
"""The claims that hold of every app."""


def make_claims(classes: Sequence[type[Claim]], broken: Broken) -> list[Any]:
    """One of each."""
    return [cls(broken) for cls in classes]
