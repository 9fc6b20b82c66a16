"""The history of the shared database: what was there before each change, in the order of the commits.

The schema is in `database_file`. A point of the history is a mark in it: a row that says "before what follows". There
is one at every second with changes, and wherever somebody asked for a bookmark. Between two points only the first
change of a key is recorded, so that keys which change all the time cost no more than others. The newest mark always
stays, so that ids and with them points only grow. Everything here blocks, for a look-up or for a piece of work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import apsw
import attrs

from runtime.errors import InvalidBookmark
from runtime.storage.bookmarks import NO_HISTORY, Retention, check_point, point_text
from runtime.storage.deflated import OLD_VALUE, VALUE_THEN, load_deflate

INTERVAL_S = 1.0  # between points that nobody asked for
_KNOWN = 50_000  # keys that change in one interval; then the next one begins
_PIECE = 50_000  # rows of the history that one step of a restore looks at
_SWEEP_ROWS = 20_000
_SWEEP_BYTES = 8 << 20
_FAR_BEYOND = 1.1  # of what is to be kept
_ROW_BYTES = 20  # of a row beside key and value
CHANGED_ALARM, CHANGED_SLOT = 0, 1  # values of `key`, see the schema

# Triggers make it one statement for all keys of a commit. They exist on the connection that writes, and only there.
_TRIGGERS = f"""
CREATE TEMP TABLE pause (x);
CREATE TEMP TABLE undo (key BLOB PRIMARY KEY, id INTEGER) WITHOUT ROWID;
CREATE TEMP TRIGGER key_put AFTER INSERT ON main.keys WHEN NOT EXISTS (SELECT 1 FROM pause) BEGIN
    INSERT INTO history (owner, key) VALUES (NEW.slot, NEW.key); END;
CREATE TEMP TRIGGER key_changed AFTER UPDATE ON main.keys WHEN NOT EXISTS (SELECT 1 FROM pause) BEGIN
    INSERT INTO history (owner, key, value, size) VALUES (OLD.slot, OLD.key, {OLD_VALUE}); END;
CREATE TEMP TRIGGER key_deleted AFTER DELETE ON main.keys WHEN NOT EXISTS (SELECT 1 FROM pause) BEGIN
    INSERT INTO history (owner, key, value, size) VALUES (OLD.slot, OLD.key, {OLD_VALUE}); END;
CREATE TEMP TRIGGER alarm_put AFTER INSERT ON main.alarms WHEN NOT EXISTS (SELECT 1 FROM pause) BEGIN
    INSERT INTO history (owner, key) VALUES (NEW.actor, 0); END;
CREATE TEMP TRIGGER alarm_changed AFTER UPDATE ON main.alarms WHEN NOT EXISTS (SELECT 1 FROM pause) BEGIN
    INSERT INTO history (owner, key, value) VALUES (OLD.actor, 0, OLD.due); END;
CREATE TEMP TRIGGER alarm_deleted AFTER DELETE ON main.alarms WHEN NOT EXISTS (SELECT 1 FROM pause) BEGIN
    INSERT INTO history (owner, key, value) VALUES (OLD.actor, 0, OLD.due); END;
"""  # noqa: S608 -- constants

_FIRST_OF_ACTOR = "SELECT key, value, min(id) FROM history WHERE id > ? AND owner = ? AND key IN (0, 1) GROUP BY key"
_SWEEP = "SELECT id, key IS NULL, value, ifnull(length(key), 0) + ifnull(length(value), 0) FROM history ORDER BY id"
_WEIGH = "SELECT max(id), count(*), sum(ifnull(length(key), 0) + ifnull(length(value), 0)) FROM history WHERE id > ?"


@attrs.frozen(kw_only=True)
class Restored:
    """What bringing an actor back changed.

    Attributes:
        undo: the point from before; bringing the actor back there undoes it.
        put, removed: keys that have another value again, and keys that are gone, without those of a `delete_all`.
        keys: the first hundred of both.
        swapped: a `delete_all` was undone, so all keys may differ.
        alarm: the due time before and after.
        facets: how many of its facets were brought back with it.
    """

    undo: int
    put: int
    removed: int
    keys: tuple[bytes, ...]
    swapped: bool
    alarm: tuple[float | None, float | None]
    facets: int = 0


@attrs.frozen(kw_only=True)
class Prepared:
    """What was done ahead of a restore, see `rebuild`.

    Attributes:
        upto: the newest row of the history that was looked at.
        first: what the actor's first rows after the point say of its alarm and its slot.
        slot: has what the actor is to have; None when that is to be put back in place.
        put, removed, keys: as in `Restored`.
    """

    upto: int
    first: Mapping[int, Any]
    slot: int | None = None
    put: int = 0
    removed: int = 0
    keys: tuple[bytes, ...] = ()


class HistoryReader:
    """Where the history begins, where it ends, and where it was at a time."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    @property
    def oldest(self) -> int:
        """The oldest point that can be restored."""
        found = self._mark_from(0, None)
        assert found is not None
        return found[0]

    @property
    def newest(self) -> int:
        """The newest point."""
        return self.mark_before(1 << 62)[0]

    def check(self, point: int) -> None:
        """Refuse what is no point, or none any more. Raises: InvalidBookmark."""
        check_point(point, oldest=self.oldest, newest=self.newest)
        if self.mark_before(point)[0] != point:
            raise InvalidBookmark(f"bookmark {point_text(point)} is unknown: nobody was given it")

    def at(self, time_s: float) -> int:
        """The newest point that has nothing from after a time; one second may be missing.

        Raises:
            InvalidBookmark: the history begins later.
        """
        low, high = 0, self.newest + 1
        before: tuple[int, float] | None = None
        following: int | None = None
        # Times never go backwards, so halving finds the last mark that is not later, and the one after it.
        while low < high:
            middle = (low + high) // 2
            found = self._mark_from(middle, high)
            if found is None:
                high = middle
            elif found[1] > time_s:
                high, following = middle, found[0]
            else:
                low, before = found[0] + 1, found
        if before is None:
            raise InvalidBookmark(f"{time_s!r} is too early: the history that is kept begins later")
        return before[0] if following is None or time_s < before[1] + INTERVAL_S else following

    def mark_before(self, row: int) -> tuple[int, float]:
        """The last point up to a row, and its time; the oldest one when there is none."""
        rows: list[Any] = self._connection.execute(
            "SELECT id, value FROM history WHERE id <= ? AND key IS NULL ORDER BY id DESC LIMIT 1", (row,)
        ).fetchall()
        found = (rows[0][0], rows[0][1]) if rows else self._mark_from(0, None)
        assert found is not None
        return found

    def _mark_from(self, low: int, high: int | None) -> tuple[int, float] | None:
        upper = "" if high is None else "AND id < ?"
        bindings = (low,) if high is None else (low, high)
        rows: list[Any] = self._connection.execute(
            f"SELECT id, value FROM history WHERE id >= ? {upper} AND key IS NULL ORDER BY id LIMIT 1",  # noqa: S608
            bindings,
        ).fetchall()
        return rows[0] if rows else None


class HistoryWriter(HistoryReader):
    """Adds to the history, brings actors back, and forgets what is too old or too much.

    Args:
        connection: the one that writes.
        retention: what is kept.
        now: wall clock, seconds; the beginning of a history that is new.
    """

    def __init__(self, connection: apsw.Connection, retention: Retention, now: float) -> None:
        super().__init__(connection)
        self.keeps = retention.keeps
        self._retention = retention
        self._known: set[tuple[int, bytes | None]] = set()
        self._recording: bool | None = True
        load_deflate(connection)
        connection.execute(_TRIGGERS)
        if connection.execute("SELECT count(*) FROM (SELECT 1 FROM history WHERE key IS NULL LIMIT 1)").get == 0:
            connection.execute("INSERT INTO history (owner, value) VALUES (0, ?)", (now,))
        self._time = self.mark_before(1 << 62)[1]
        self._marked_s = float("-inf")
        self._weighed: int = connection.execute("SELECT value FROM meta WHERE name = 'history weighed'").get or 0
        self._bytes: int = connection.execute("SELECT value FROM meta WHERE name = 'history bytes'").get or 0
        self._weigh()

    # Recording.

    def time(self, now: float) -> float:
        """The time of the commit that begins: never before that of the last one."""
        self._time = max(self._time, now)
        return self._time

    def begin(self) -> None:
        """Changes come: begin a new interval of the history if the last one is long enough."""
        if self._time >= self._marked_s + INTERVAL_S or len(self._known) > _KNOWN:
            self.mark()

    def mark(self) -> int:
        """Make now a point of the history."""
        statement = "INSERT INTO history (owner, value) VALUES (0, ?) RETURNING id"
        point: int = self._connection.execute(statement, (self._time,)).get
        self._marked_s = self._time
        self._known.clear()
        return point

    def is_new(self, owner: int, key: bytes | None, *, put: bool) -> bool:
        """Whether a key (None: the alarm) changes for the first time since the last point; once put, it has."""
        if (owner, key) in self._known:
            return False
        if put:  # a deletion leaves no record when there was nothing
            self._known.add((owner, key))
        return True

    def has_it(self, owner: int, key: bytes) -> bool:
        """Whether nothing is to be recorded of a key that is put, and nothing would be."""
        goes_on = self._time < self._marked_s + INTERVAL_S
        return goes_on and (owner, key) in self._known and self._recording is False

    def record(self, *, on: bool) -> None:
        """Whether what is changed from here on is recorded."""
        if on is not self._recording:
            self._connection.execute("DELETE FROM pause" if on else "INSERT INTO pause VALUES (1)")
            self._recording = on

    def rolled_back(self) -> None:
        """A transaction was undone, or a part of one."""
        self._known.clear()
        self._recording = None
        self._marked_s = float("-inf")

    def note_slot(self, actor: int, slot: int) -> int:
        """Record that an actor's keys are in another slot from now on; the id of the row."""
        statement = "INSERT INTO history (owner, key, value) VALUES (?, ?, ?) RETURNING id"
        found: int = self._connection.execute(statement, (actor, CHANGED_SLOT, slot)).get
        return found

    # Bringing an actor back.

    def slot_since(self, actor: int, point: int) -> int:
        """The slot that an actor has, if it can be brought back to a point.

        Raises:
            InvalidBookmark: the history of the actor does not reach back so far.
        """
        self.check(point)
        held: list[Any] = self._connection.execute(
            "SELECT slot, since FROM actors WHERE number = ?", (actor,)
        ).fetchall()
        slot, since = held[0]
        if since is None or point < since:
            raise InvalidBookmark(NO_HISTORY)
        return int(slot)

    @property
    def newest_row(self) -> int:
        """The id of the last change."""
        return int(self._connection.execute("SELECT max(id) FROM history").get)

    def first_of_actor(self, actor: int, after: int) -> Mapping[int, Any]:
        """Alarm and slot of an actor before their first changes after a row; those that were changed."""
        changed: list[Any] = self._connection.execute(_FIRST_OF_ACTOR, (after, actor)).fetchall()
        return {key: value for key, value, _ in changed}

    def restore(self, actor: int, point: int, prepared: Prepared | None = None) -> Restored:
        """Undo what was changed after a point, the newest first; recorded like every change.

        Args:
            actor: its number. point: of the history.
            prepared: for the same two.

        Raises:
            InvalidBookmark: the history of the actor does not reach back so far.
        """
        execute = self._connection.execute
        slot = self.slot_since(actor, point)
        undo = self.mark()
        self.record(on=True)
        if prepared is None:
            first = self.first_of_actor(actor, point)
        else:
            first = {**self.first_of_actor(actor, prepared.upto), **prepared.first}
        then = first.get(CHANGED_SLOT, slot)
        place = then if prepared is None or prepared.slot is None else prepared.slot
        if place != slot:
            self._swap(actor, slot, place)
        if place == then:
            put, removed, keys = self._put_back(place, point, undo)
        else:
            assert prepared is not None
            put, removed, keys = prepared.put, prepared.removed, prepared.keys
        due: float | None = execute("SELECT due FROM alarms WHERE actor = ?", (actor,)).get
        due_then = first.get(CHANGED_ALARM, due)
        if due_then != due:
            execute("DELETE FROM alarms WHERE actor = ?", (actor,))
            if due_then is not None:
                execute("INSERT INTO alarms VALUES (?, ?)", (actor, due_then))
        execute(
            "UPDATE actors SET pending = NULL, restored = ?, empty = ? IS NULL AND NOT "
            "EXISTS (SELECT 1 FROM keys WHERE keys.slot = ?) WHERE number = ?",
            (undo, due_then, place, actor),
        )
        return Restored(undo=undo, put=put, removed=removed, keys=keys, swapped=then != slot, alarm=(due, due_then))

    def _swap(self, actor: int, slot: int, before: int) -> None:
        row = self.note_slot(actor, slot)
        self._connection.execute("INSERT INTO dropped VALUES (?, ?, ?)", (row, slot, actor))
        self._connection.execute("DELETE FROM dropped WHERE slot = ?", (before,))
        self._connection.execute("UPDATE actors SET slot = ? WHERE number = ?", (before, actor))

    def _put_back(self, slot: int, point: int, upto: int) -> tuple[int, int, tuple[bytes, ...]]:
        """Give every key of a slot the value it had at a point, a piece of the history after the other."""
        execute, changes = self._connection.execute, self._connection.changes
        put, removed, keys = 0, 0, dict[bytes, None]()
        while upto > point:
            after = max(point, upto - _PIECE)
            execute("DELETE FROM undo")
            execute(
                "INSERT OR IGNORE INTO undo SELECT key, id FROM history "
                "WHERE id > ? AND id <= ? AND owner = ? AND typeof(key) = 'blob' ORDER BY id",
                (after, upto, slot),
            )
            upto = after
            if execute("SELECT count(*) FROM undo").get == 0:
                continue
            execute(
                f"INSERT INTO keys SELECT ?, undo.key, {VALUE_THEN} FROM undo JOIN history USING (id) "  # noqa: S608
                "WHERE value IS NOT NULL "
                "ON CONFLICT DO UPDATE SET value = excluded.value",
                (slot,),
            )
            put += changes()
            execute(
                "DELETE FROM keys WHERE slot = ? AND key IN "
                "(SELECT undo.key FROM undo JOIN history USING (id) WHERE value IS NULL)",
                (slot,),
            )
            removed += changes()
            if len(keys) < 100:
                keys |= dict.fromkeys(key for (key,) in execute("SELECT key FROM undo LIMIT 100"))
        execute("DELETE FROM undo")
        return put, removed, tuple(keys)[:100]

    # Forgetting.

    def is_too_much(self) -> bool:
        """There is something to sweep. To be asked now and then: it looks at what came since the last time."""
        self._weigh()
        if self._bytes > self._retention.total_bytes:
            return True
        return self.mark_before(0)[1] < self._time - self._retention.age_s and self.oldest < self.newest

    @property
    def is_far_too_much(self) -> bool:
        """Sweeping does not keep up."""
        return self._bytes > self._retention.total_bytes * _FAR_BEYOND

    def _weigh(self) -> None:
        found: list[Any] = self._connection.execute(_WEIGH, (self._weighed,)).fetchall()
        newest, count, size = found[0]
        if newest is not None:
            self._weighed = newest
            self._bytes += size + count * _ROW_BYTES
            self._remember()

    def _remember(self) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO meta VALUES ('history weighed', ?), ('history bytes', ?)",
            (self._weighed, self._bytes),
        )

    def sweep(self) -> bool:
        """Remove a piece of the oldest history, in the transaction of the caller; whether there may be more."""
        self._weigh()
        excess = self._bytes - self._retention.total_bytes
        early = self._time - self._retention.age_s
        newest: int = self._connection.execute("SELECT max(id) FROM history").get
        cut, freed = 0, 0
        for row, is_mark, value, size in self._connection.execute(f"{_SWEEP} LIMIT {_SWEEP_ROWS}"):
            too_old = not is_mark or value < early  # a row is as old as the mark before it
            if freed >= _SWEEP_BYTES or (freed >= excess and not too_old) or (row == newest and is_mark):
                break
            cut, freed = row, freed + size + _ROW_BYTES
        if cut == newest:
            self.mark()
        self._connection.execute("DELETE FROM history WHERE id <= ?", (cut,))
        self._bytes -= freed
        self._remember()
        return cut > 0
