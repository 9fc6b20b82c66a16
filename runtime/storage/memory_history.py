"""The history of the store in memory: what was there before each batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import attrs

from runtime.errors import InvalidBookmark
from runtime.ids import ActorId, end_below
from runtime.storage.bookmarks import NO_HISTORY, Retention, check_point
from runtime.storage.object_keys import REGISTERED
from runtime.storage.store import KEEP, Keep, WriteBatch

_ROW_BYTES = 20


@attrs.define(eq=False)
class Held:
    """What is durable of one actor.

    Attributes:
        empty: nothing was stored since its last delete_all.
        since: its history is whole from this point on; None: it keeps none.
        restored: the point of its last restore. pending: the point that its next instance is to begin from.
        changed: the point of its last batch.
    """

    actor: ActorId
    values: dict[bytes, bytes] = attrs.field(factory=dict)
    alarm: float | None = None
    empty: bool = True
    since: int | None = 0
    restored: int | None = None
    pending: int | None = None
    changed: int = 0


@attrs.frozen
class _Record:
    """What was there before a batch: the values of some keys or, before a `delete_all`, all of them."""

    point: int
    time: float
    actor: ActorId
    values: Mapping[bytes, bytes | None]
    everything: dict[bytes, bytes] | None
    alarm: float | Keep | None

    @property
    def size(self) -> int:
        found = self.values if self.everything is None else self.everything
        return sum(len(key) + len(value or b"") + _ROW_BYTES for key, value in found.items()) + _ROW_BYTES


class MemoryHistory:
    """Durable actors, and how each of them came to be what it is."""

    def __init__(self, retention: Retention) -> None:
        self.actors: dict[ActorId, Held] = {}
        self.oldest = 1
        self.newest = 1
        self._retention = retention
        self._records: deque[_Record] = deque()
        self._bytes = 0
        self._time: float | None = None
        self._oldest_time = 0.0

    def begin(self, now: float) -> None:
        """The store runs: a new history begins."""
        if self._time is None:
            self._time = self._oldest_time = now

    def apply(self, batch: WriteBatch, now: float) -> Exception | None:
        """Make a batch durable; the error says that its restore was refused."""
        self._time = max(now, self._time or now)
        refused: Exception | None = None
        held = self.actors.get(batch.actor)
        if batch.restore_to is not None and held is not None:
            try:
                self._restore(held, batch.restore_to)
                for below in self._changed_below(held.actor, batch.restore_to):
                    self._restore(below, batch.restore_to)
                    below.pending = None
            except InvalidBookmark as error:
                refused = error
            held.pending = None
        if batch.copy_of is not None:
            self._copy(batch, batch.copy_of)
            return refused
        delete_all = batch.delete_all and held is not None
        if not delete_all and not batch.writes and batch.alarm is KEEP and batch.restore_next is None:
            return refused
        if held is None:
            held = self.actors[batch.actor] = Held(batch.actor, since=0 if batch.history else None)
        if held.actor.name is None and batch.actor.name is not None:
            held.actor = batch.actor
        if (held.since is not None) != batch.history:
            self.newest += 1  # a point from before the change must not be taken for one after it
            held.since = self.newest if batch.history else None
        self._change(held, batch, delete_all=delete_all)
        if batch.restore_next is not None:
            held.pending = batch.restore_next
        self._trim()
        return refused

    def _copy(self, batch: WriteBatch, source: ActorId) -> None:
        held = self.actors.get(source)
        if held is not None and held.values:
            self.apply(attrs.evolve(batch, copy_of=None, writes=dict(held.values), history=held.since is not None), 0.0)

    def _change(self, held: Held, batch: WriteBatch, *, delete_all: bool) -> None:
        if batch.history:
            before = {key: held.values.get(key) for key in batch.writes}
            self._add(held, before, held.values if delete_all else None, KEEP if batch.alarm is KEEP else held.alarm)
        if delete_all:
            held.values = {}
        for key, value in batch.writes.items():
            if value is None:
                held.values.pop(key, None)
            else:
                held.values[key] = value
        if batch.alarm is not KEEP:
            held.alarm = batch.alarm
        held.empty = not held.values and held.alarm is None and (held.empty or delete_all)

    def _restore(self, held: Held, point: int) -> None:
        self.check(held.actor, point)
        values, alarm = dict(held.values), held.alarm
        for record in reversed(self._records):
            if record.point <= point:
                break
            if record.actor != held.actor:
                continue
            if record.everything is not None:
                values = dict(record.everything)
            else:
                for key, value in record.values.items():
                    if value is None:
                        values.pop(key, None)
                    else:
                        values[key] = value
            if record.alarm is not KEEP:
                alarm = record.alarm
        self._add(held, {}, held.values, held.alarm)
        held.values, held.alarm = values, alarm
        held.empty = not values and alarm is None
        held.restored = self.newest

    def _changed_below(self, actor: ActorId, point: int) -> list[Held]:
        """Its facets that were changed since, keep history, and have no database of their own."""
        end = end_below(actor)
        return [
            held
            for held in self.actors.values()
            if held.actor.namespace == actor.namespace
            and actor.raw < held.actor.raw < end
            and held.changed > point
            and held.since is not None
            and held.since <= point
            and REGISTERED not in held.values
        ]

    def _add(
        self,
        held: Held,
        values: Mapping[bytes, bytes | None],
        everything: dict[bytes, bytes] | None,
        alarm: float | Keep | None,
    ) -> None:
        assert self._time is not None
        self.newest += 1
        held.changed = self.newest
        record = _Record(self.newest, self._time, held.actor, values, everything, alarm)
        self._records.append(record)
        self._bytes += record.size

    def _trim(self) -> None:
        assert self._time is not None
        early, records = self._time - self._retention.age_s, self._records
        while records and (self._bytes > self._retention.total_bytes or records[0].time < early):
            record = records.popleft()
            self._bytes -= record.size
            self.oldest, self._oldest_time = record.point, record.time
            held = self.actors.get(record.actor)
            if held is not None and held.empty and held.changed <= record.point:
                del self.actors[record.actor]

    # What is kept.

    def at(self, time_s: float) -> int:
        """The newest point that is not after a time. Raises: InvalidBookmark."""
        if time_s < self._oldest_time:
            raise InvalidBookmark(f"{time_s!r} is too early: the history that is kept begins later")
        for record in reversed(self._records):
            if record.time <= time_s:
                return record.point
        return self.oldest

    def check(self, actor: ActorId, point: int) -> None:
        """Refuse a point that an actor cannot be brought back to. Raises: InvalidBookmark."""
        check_point(point, oldest=self.oldest, newest=self.newest)
        held = self.actors.get(actor)
        if held is not None and (held.since is None or point < held.since):
            raise InvalidBookmark(NO_HISTORY)
