"""Writes groups of batches into the shared database, one transaction each; everything here blocks.

All keys of a group go in one statement: a thread gives the interpreter up and asks for it back around every
statement, and with a busy loop each of these waits, so a statement per key would make a group a hundred times slower.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apsw
import attrs

from runtime.errors import InvalidBookmark, StorageFailed
from runtime.ids import ActorId, end_below
from runtime.platform import pass_by
from runtime.storage.bookmarks import Retention
from runtime.storage.history import HistoryWriter, Prepared, Restored
from runtime.storage.log_room import LogRoom
from runtime.storage.object_keys import REGISTERED
from runtime.storage.rebuild import IN_PLACE_BYTES, Rebuilder
from runtime.storage.store import KEEP, WriteBatch

_ACTORS = 100_000  # remembered; others cost a look-up
_SWEEP_KEYS = 1_000
_LOOK_S = 3_600.0  # between looks at the age of the history
_CHECKPOINT_PAGES = 4_000  # of 4 KiB

# One row arrives as one blob: slot (12 digits), length of the key (5 digits), key, value.
_ROW = b"%012d%05d%b%b"
_SLOT, _KEY = "CAST(substr(value, 1, 12) AS INTEGER)", "substr(value, 18, CAST(substr(value, 13, 5) AS INTEGER))"
_VALUE = "substr(value, 18 + CAST(substr(value, 13, 5) AS INTEGER))"
_PUT = (
    f"INSERT INTO keys SELECT {_SLOT}, {_KEY}, {_VALUE} FROM carray(?) WHERE true "  # noqa: S608 -- constants
    "ON CONFLICT DO UPDATE SET value = excluded.value"
)
_PUT_ONE = "INSERT INTO keys VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
_DELETE = f"DELETE FROM keys WHERE (slot, key) IN (SELECT {_SLOT}, {_KEY} FROM carray(?))"  # noqa: S608

# After a commit that failed the log may have its pages: the next one goes over them, even if it changes nothing itself.
_FAILED_COMMITS = "INSERT INTO meta VALUES ('failed commits', 1) ON CONFLICT DO UPDATE SET value = value + 1"

_FIND = "SELECT number, slot, name IS NOT NULL, empty, since IS NOT NULL FROM actors WHERE namespace = ? AND id = ?"
_INSERT = (
    "INSERT INTO actors (namespace, id, name, since, slot) VALUES (?, ?, ?, ?, "
    "ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'actors'), 0) + 1) RETURNING number"
)


@attrs.define
class _Held:
    """What is known of an actor."""

    number: int
    slot: int
    named: bool
    empty: bool
    recorded: bool


# Those below an actor that were changed since a point; where their databases are is no state of theirs.
_CHANGED_BELOW = (
    "WITH changed AS MATERIALIZED (SELECT DISTINCT owner FROM history WHERE id > ?1) "
    "SELECT number, id FROM actors WHERE namespace = ?2 AND id > ?3 AND id < ?4 AND since <= ?1 "
    "AND (slot IN changed OR number IN changed) "
    "AND NOT EXISTS (SELECT 1 FROM keys WHERE keys.slot = actors.slot AND key = ?5)"
)

Failed = dict[int, Exception]


@attrs.define(eq=False)
class _Changes:
    """What the batches of a group come to, until it is written."""

    keys: dict[tuple[int, bytes], bytes | None] = attrs.field(factory=dict)
    alarms: dict[int, float | None] = attrs.field(factory=dict)

    def __bool__(self) -> bool:
        return bool(self.keys or self.alarms)

    def take_new(self, history: HistoryWriter) -> _Changes:
        """Take out those that are to be recorded."""
        new = history.is_new
        taken = _Changes(
            {place: value for place, value in self.keys.items() if new(*place, put=value is not None)},
            {number: due for number, due in self.alarms.items() if new(number, None, put=due is not None)},
        )
        for place in taken.keys:
            del self.keys[place]
        for number in taken.alarms:
            del self.alarms[number]
        return taken


class GroupWriter:
    """The one writer of a database. Its calls come one after another, from any thread.

    Args:
        room: of the write-ahead log.
        now: wall clock, seconds.
        point: marks rare branches, as `Platform.point`.
        in_place_bytes: a restore that changes more is prepared in transactions of their own, see `rebuild`.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        room: LogRoom,
        retention: Retention,
        now: float,
        *,
        point: Callable[[str], None] = pass_by,
        in_place_bytes: int = IN_PLACE_BYTES,
    ) -> None:
        self._point = point
        self.history = HistoryWriter(connection, retention, now)
        self._rebuilder = Rebuilder(connection, self.history, self._checkpoint_if_due, in_place_bytes)
        self._prepared: dict[tuple[int, int], Prepared] = {}
        self._connection = connection
        self._actors: dict[tuple[str, bytes], _Held] = {}
        self._room = room
        self._wal_pages = 0
        self._failed = False  # the last commit
        self._look_again = now + _LOOK_S
        self.sweeping = self._anything_to_sweep()
        connection.set_wal_hook(self._wal_grew)

    @property
    def checkpoint_due(self) -> bool:
        """The write-ahead log is long enough to be moved into the database."""
        return self._wal_pages >= _CHECKPOINT_PAGES

    @property
    def sweep_urgent(self) -> bool:
        """Sweeping now and then does not keep up."""
        return self.history.is_far_too_much

    def write(self, batches: Sequence[WriteBatch], now: float) -> Mapping[int, Exception]:
        """Make the batches durable in one transaction; errors by place of those that are not.

        A batch that fails takes along the later ones of its actor and no other; a failed COMMIT takes all.

        Args:
            now: wall clock, seconds.
        """
        self._time = self.history.time(now)
        for batch in batches:
            if batch.restore_to is not None:
                self._prepare(batch.actor, batch.restore_to)
        try:
            return self._write(batches)
        finally:
            self._prepared.clear()

    def _write(self, batches: Sequence[WriteBatch]) -> Mapping[int, Exception]:
        if not self._failed and len(batches) == 1 and (row := self._only_row(batches[0])) is not None:
            return self._commit(batches, {}, _PUT_ONE, row)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            return dict.fromkeys(range(len(batches)), _failed(error))
        try:
            refused = self._apply(batches)
        except apsw.Error:
            self._roll_back()
            return self._write_apart(batches)
        failed = self._commit(batches, refused)
        if self._time >= self._look_again:
            self._look_again = self._time + _LOOK_S
            self.sweeping = self.sweeping or self._anything_to_sweep()
        return failed

    def restore(self, actor: ActorId, point: int, now: float, *, keep: bool) -> Restored | None:
        """Bring an actor back at once, in a transaction of its own; None when nothing of it was ever stored.

        Args:
            keep: commit it; else only say what it would change.

        Raises:
            InvalidBookmark: the history of the actor does not reach back so far.
        """
        self._time = self.history.time(now)
        held = self._find(actor)
        if held is None:
            return None
        if keep:
            self._prepare(actor, point)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            restored = self._bring_back(actor, held.number, point)
            if keep:
                self._connection.execute("COMMIT")
            return restored
        finally:
            self._prepared.clear()
            self._roll_back()

    def _write_apart(self, batches: Sequence[WriteBatch]) -> Mapping[int, Exception]:
        """Again with a savepoint for each batch, to find those that fail."""
        failed: Failed = {}
        broken: dict[ActorId, int] = {}
        begin = True
        while begin:
            begin = False
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except apsw.Error as error:
                return {place: failed.get(place, _failed(error)) for place in range(len(batches))}
            for place, batch in enumerate(batches):
                first = broken.get(batch.actor)
                if first is not None and place >= first:
                    failed[place] = failed[first]
                    continue
                try:
                    self._connection.execute("SAVEPOINT batch")
                    refused = self._apply([batch])
                    if refused:
                        failed[place] = refused[0]
                    self._connection.execute("RELEASE batch")
                except apsw.Error as error:
                    failed[place], broken[batch.actor] = _failed(error), place
                    self._actors.clear()
                    self.history.rolled_back()
                    if not self._connection.in_transaction:  # SQLite undid all of it, the good ones too
                        begin = True
                        break
                    self._connection.execute("ROLLBACK TO batch; RELEASE batch")
        return self._commit(batches, failed)

    def _only_row(self, batch: WriteBatch) -> tuple[int, bytes, bytes] | None:
        """The row if no other changes, as one statement alone is a transaction: in a third of the calls."""
        held, put = self._actors.get((batch.actor.namespace, batch.actor.raw)), batch.only_put
        if held is None or put is None or held.empty or self._time >= self._look_again:
            return None
        as_it_is = held.recorded and self._keeps(batch) and (held.named or batch.actor.name is None)
        return (held.slot, *put) if as_it_is and self.history.has_it(held.slot, put[0]) else None

    def _commit(self, batches: Sequence[WriteBatch], failed: Failed, end: str = "COMMIT", row: Any = None) -> Failed:
        try:
            if self._failed:
                self._connection.execute(_FAILED_COMMITS)
            self._connection.execute(end, row)
        except apsw.Error as error:
            self._point("the commit of a group fails")
            self._failed = True
            self._roll_back()
            return {place: failed.get(place, _failed(error)) for place in range(len(batches))}
        self._failed = False
        return failed

    def _roll_back(self) -> None:
        self._actors.clear()
        self.history.rolled_back()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    # What a batch does.

    def _apply(self, batches: Sequence[WriteBatch]) -> Failed:
        """Everything but the restores that are refused; these by place."""
        recorded, others = _Changes(), _Changes()
        refused: Failed = {}
        for place, batch in enumerate(batches):
            changes = recorded if self._keeps(batch) else others
            if batch.restore_to is not None:
                self._flush(recorded, others)
                try:
                    self._restore(batch.actor, batch.restore_to)
                except InvalidBookmark as error:
                    refused[place] = error
            if batch.copy_of is not None:
                self._flush(recorded, others)
                self._copy(batch, batch.copy_of)
            if batch.delete_all:
                self._flush(recorded, others)
                self._drop(batch, changes)
            if batch.mark:
                self._flush(recorded, others)
                self.history.mark()
            if batch.is_nothing:
                continue
            held = self._actor(batch)
            for key, value in batch.writes.items():
                changes.keys[held.slot, key] = value
            if batch.alarm is not KEEP:
                changes.alarms[held.number] = batch.alarm
            if batch.restore_next is not None:
                self._connection.execute(
                    "UPDATE actors SET pending = ? WHERE number = ?", (batch.restore_next, held.number)
                )
        self._flush(recorded, others)
        return refused

    def _keeps(self, batch: WriteBatch) -> bool:
        return batch.history and self.history.keeps

    def _flush(self, recorded: _Changes, others: _Changes) -> None:
        history = self.history
        if recorded:
            history.begin()
            new = recorded.take_new(history)
            if new:
                history.record(on=True)
                self._put(new)
        for changes in (recorded, others):
            if changes:
                history.record(on=False)
                self._put(changes)

    def _put(self, changes: _Changes) -> None:
        execute, keys = self._connection.execute, changes.keys
        puts = [(slot, key, value) for (slot, key), value in keys.items() if value is not None]
        if len(puts) == 1:
            execute(_PUT_ONE, puts[0])
        elif puts:
            execute(_PUT, (apsw.carray(tuple([_ROW % (s, len(k), k, v) for s, k, v in puts])),))
        if len(puts) < len(keys):
            deletes = tuple([_ROW % (s, len(k), k, b"") for (s, k), v in keys.items() if v is None])
            execute(_DELETE, (apsw.carray(deletes),))
        for number, due in changes.alarms.items():
            if due is None:
                execute("DELETE FROM alarms WHERE actor = ?", (number,))
            else:
                execute("INSERT INTO alarms VALUES (?, ?) ON CONFLICT DO UPDATE SET due = excluded.due", (number, due))
        keys.clear()
        changes.alarms.clear()

    def _actor(self, batch: WriteBatch) -> _Held:
        """The actor's numbers, made if it has none; its name is stored as soon as it is known."""
        actor, execute = batch.actor, self._connection.execute
        held = self._find(actor)
        name = None if actor.name is None else actor.name.encode("utf-8", "surrogatepass")
        if held is None:
            since = 0 if self._keeps(batch) else None
            number: int = execute(_INSERT, (actor.namespace, actor.raw, name, since)).get
            held = self._keep(actor, _Held(number, number, name is not None, False, self._keeps(batch)))
        if name is not None and not held.named:
            execute("UPDATE actors SET name = ? WHERE number = ?", (name, held.number))
            held.named = True
        if held.empty:
            execute("UPDATE actors SET empty = 0 WHERE number = ?", (held.number,))
            held.empty = False
        if held.recorded != self._keeps(batch):
            self._turn_history(held, on=self._keeps(batch))
        return held

    def _find(self, actor: ActorId) -> _Held | None:
        held = self._actors.get((actor.namespace, actor.raw))
        if held is None:
            rows: list[Any] = self._connection.execute(_FIND, (actor.namespace, actor.raw)).fetchall()
            if rows:
                number, slot, named, empty, recorded = rows[0]
                held = self._keep(actor, _Held(number, slot, bool(named), bool(empty), bool(recorded)))
        return held

    def _keep(self, actor: ActorId, held: _Held) -> _Held:
        if len(self._actors) >= _ACTORS:
            del self._actors[next(iter(self._actors))]
        self._actors[actor.namespace, actor.raw] = held
        return held

    def _turn_history(self, held: _Held, *, on: bool) -> None:
        """The setting of the class was changed: what was not recorded cannot be undone."""
        since = self.history.mark() if on else None
        self._connection.execute("UPDATE actors SET since = ? WHERE number = ?", (since, held.number))
        held.recorded = on

    def _drop(self, batch: WriteBatch, changes: _Changes) -> None:
        """Forget every key of an actor: it goes to another slot, and the old one is kept for a restore."""
        held, execute = self._find(batch.actor), self._connection.execute
        if held is None or held.empty:
            return
        if held.recorded != self._keeps(batch):
            self._turn_history(held, on=self._keeps(batch))
        self.history.begin()
        row = self.history.note_slot(held.number, held.slot)
        kept_from = row if self._keeps(batch) else -row
        execute("INSERT INTO dropped VALUES (?, ?, ?)", (kept_from, held.slot, held.number))
        has_alarm = execute("SELECT count(*) FROM alarms WHERE actor = ?", (held.number,)).get == 1
        if has_alarm and batch.alarm is None:
            changes.alarms[held.number] = None
        held.slot, held.empty = -row, batch.alarm is None or not has_alarm
        execute("UPDATE actors SET slot = ?, empty = ? WHERE number = ?", (held.slot, held.empty, held.number))
        self.sweeping = True

    def _copy(self, batch: WriteBatch, source: ActorId) -> None:
        """Give an actor that has nothing the keys of another one, in a slot of its own: one row of the history."""
        copied, execute = self._find(source), self._connection.execute
        if copied is None or copied.empty:
            return
        held = self._actor(attrs.evolve(batch, history=copied.recorded))
        self.history.begin()
        row = self.history.note_slot(held.number, held.slot)
        execute("INSERT INTO dropped VALUES (?, ?, ?)", (row, held.slot, held.number))
        held.slot = -row
        execute("UPDATE actors SET slot = ? WHERE number = ?", (held.slot, held.number))
        self.history.record(on=False)
        execute("INSERT INTO keys SELECT ?, key, value FROM keys WHERE slot = ?", (held.slot, copied.slot))

    def _restore(self, actor: ActorId, point: int) -> None:
        held = self._find(actor)
        if held is None:
            return  # nothing of it is left, nor of its history
        del self._actors[actor.namespace, actor.raw]
        try:
            self._bring_back(actor, held.number, point)
        except InvalidBookmark:
            self._connection.execute("UPDATE actors SET pending = NULL WHERE number = ?", (held.number,))
            raise

    def _bring_back(self, actor: ActorId, number: int, point: int) -> Restored:
        """The actor and its facets; those without history stay as they are, and those with databases of their own."""
        restored = self.history.restore(number, point, self._prepared.pop((number, point), None))
        changed = self._changed_below(actor, point)
        for below, raw in changed:
            self._actors.pop((actor.namespace, raw), None)
            self.history.restore(below, point, self._prepared.pop((below, point), None))
        return attrs.evolve(restored, facets=len(changed))

    def _changed_below(self, actor: ActorId, point: int) -> list[tuple[int, bytes]]:
        bindings = (point, actor.namespace, actor.raw, end_below(actor), REGISTERED)
        found: list[Any] = self._connection.execute(_CHANGED_BELOW, bindings).fetchall()
        return found

    def _prepare(self, actor: ActorId, point: int) -> None:
        """Do what can be done of a restore before its transaction. What it does not get done is done there."""
        held = self._find(actor)
        if held is None:
            return
        try:
            for number in (held.number, *(below for below, _ in self._changed_below(actor, point))):
                prepared = self._prepared[number, point] = self._rebuilder.prepare(number, point)
                self.sweeping = self.sweeping or prepared.slot is not None  # perhaps nobody is moved there
        except InvalidBookmark:
            pass  # it is refused when its turn comes
        except apsw.Error:
            self.history.rolled_back()
            self.sweeping = True

    # Housekeeping.

    def sweep(self) -> None:
        """Remove a piece of what is too old or too much; `sweeping` says whether there is more."""
        try:
            with self._connection:
                self.history.record(on=False)
                self.sweeping = self._sweep_dropped() or self.history.sweep()
        except apsw.Error:
            self.history.rolled_back()
            self.sweeping = False  # no space or a damaged page: the next start tries again

    def _anything_to_sweep(self) -> bool:
        least: int | None = self._connection.execute("SELECT min(since) FROM dropped").get
        return self.history.is_too_much() or (least is not None and least <= self.history.oldest)

    def _sweep_dropped(self) -> bool:
        execute = self._connection.execute
        oldest_dropped = "SELECT since, slot, actor FROM dropped WHERE since <= ? ORDER BY since LIMIT 1"
        rows: list[Any] = execute(oldest_dropped, (self.history.oldest,)).fetchall()
        for since, slot, actor in rows:
            execute(
                "DELETE FROM keys WHERE slot = ?1 AND key IN (SELECT key FROM keys WHERE slot = ?1 LIMIT ?2)",
                (slot, _SWEEP_KEYS),
            )
            if self._connection.changes() < _SWEEP_KEYS:
                execute("DELETE FROM dropped WHERE since = ?", (since,))
                gone = "DELETE FROM actors WHERE number = ? AND slot = ? AND empty RETURNING namespace, id"
                actors: list[Any] = execute(gone, (actor, -abs(since))).fetchall()
                for namespace, raw in actors:
                    self._actors.pop((namespace, raw), None)
        return bool(rows)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database, so that the log starts again from its beginning."""
        self._wal_pages = 0
        with contextlib.suppress(apsw.Error):
            self.sweeping = self.sweeping or self._anything_to_sweep()
        with contextlib.suppress(apsw.Error):  # nothing is lost, the log only stays long; the next commit asks again
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _checkpoint_if_due(self) -> None:
        if self.checkpoint_due:
            self.checkpoint()

    def _wal_grew(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._wal_pages = pages
        self._room.taken(pages)
        return apsw.SQLITE_OK


def _failed(error: apsw.Error) -> StorageFailed:
    if isinstance(error, apsw.FullError):
        return StorageFailed("the disk is full: the writes were not stored; make space where the data is (--data)")
    # The log has the writes when only its sync failed: a crash before the next commit brings them back.
    return StorageFailed(f"the writes may not be stored: {error}")
