"""Claims about what is stored: acknowledged is durable, stays, is whole, and recovery changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from runtime.ids import ActorId
from runtime.sim.claim import Claim
from runtime.storage.store import KEEP, ReadHandle, WriteBatch


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
        # Of a group whose sync failed some may have been told so, and others not yet, when the process ended.
        may_be = [[*kept.failed[at:], *kept.pending] for at in range(len(kept.failed) + 1)]
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
class DamageIsRefused(Claim):
    """What is in a page in which a bit has flipped is never served."""

    row = "G11"

    def damage_met(self, served: bool, event: int) -> None:
        """A damaged page was needed."""
        self.checked += 1
        if served:
            self.broken("what is in a damaged page was served", event, event)


@attrs.define(eq=False)
class RecoveryChangesNothing(Claim):
    """A store that is opened twice, with nothing written in between, is the same; so recovery may be cut short."""

    row = "G11"

    _actors: dict[ActorId, None] = attrs.field(factory=dict, init=False)
    _found: tuple[int, int] | None = attrs.field(default=None, init=False)

    def submitted(self, batch: WriteBatch, event: int) -> None:
        """A batch is on its way."""
        self._actors[batch.actor] = None
        self._found = None

    def opened(self, read: Callable[[ActorId], ReadHandle], event: int) -> None:
        """The store was opened again."""
        digest = 0
        for actor in self._actors:
            reads = read(actor)
            digest = hash((digest, actor.raw, tuple(reads.list(b"", None, None, False)), reads.alarm()))
        if self._found is not None:
            self.checked += 1
            if self._found[0] != digest:
                self.broken("the store was opened twice, and was not the same", self._found[1], event)
        self._found = digest, event
