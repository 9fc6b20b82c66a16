"""Writes groups of batches into the shared database, one transaction each; everything here blocks.

All keys of a group go in one statement: a thread gives the interpreter up and asks for it back around every
statement, and with a busy loop each of these waits, so a statement per key would make a group a hundred times slower.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from runtime.errors import StorageFailed
from runtime.ids import ActorId
from runtime.storage.store import KEEP, WriteBatch

_SLOTS = 100_000  # remembered; others cost a look-up
_SWEEP_KEYS = 1_000
_CHECKPOINT_PAGES = 4_000  # of 4 KiB

# One row arrives as one blob: slot (12 digits), length of the key (5 digits), key, value.
_ROW = b"%012d%05d%b%b"
_SLOT, _KEY = "CAST(substr(value, 1, 12) AS INTEGER)", "substr(value, 18, CAST(substr(value, 13, 5) AS INTEGER))"
_VALUE = "substr(value, 18 + CAST(substr(value, 13, 5) AS INTEGER))"
_PUT = (
    f"INSERT INTO keys SELECT {_SLOT}, {_KEY}, {_VALUE} FROM carray(?) WHERE true "  # noqa: S608 -- constants
    "ON CONFLICT DO UPDATE SET value = excluded.value"
)
_DELETE = f"DELETE FROM keys WHERE (slot, key) IN (SELECT {_SLOT}, {_KEY} FROM carray(?))"  # noqa: S608

Changes = dict[tuple[int, bytes], bytes | None]


class GroupWriter:
    """The one writer of a database. Its calls come one after another, from any thread."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._slots: dict[tuple[str, bytes], tuple[int, bool]] = {}
        self._wal_pages = 0
        self.sweeping = connection.execute("SELECT count(*) FROM dropped").get != 0
        connection.set_wal_hook(self._wal_grew)

    @property
    def checkpoint_due(self) -> bool:
        """The write-ahead log is long enough to be moved into the database."""
        return self._wal_pages >= _CHECKPOINT_PAGES

    def write(self, batches: Sequence[WriteBatch]) -> Mapping[int, Exception]:
        """Make the batches durable in one transaction; errors by place of those that are not.

        A batch that fails takes along the later ones of its actor and no other; a failed COMMIT takes all.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            return dict.fromkeys(range(len(batches)), _failed(error))
        try:
            self._apply(batches)
        except apsw.Error:
            self._roll_back()
            return self._write_apart(batches)
        return self._commit(batches, {})

    def _write_apart(self, batches: Sequence[WriteBatch]) -> Mapping[int, Exception]:
        """Again with a savepoint for each batch, to find those that fail."""
        failed: dict[int, Exception] = {}
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
                    self._apply([batch])
                    self._connection.execute("RELEASE batch")
                except apsw.Error as error:
                    failed[place], broken[batch.actor] = _failed(error), place
                    self._slots.clear()
                    if not self._connection.in_transaction:  # SQLite undid all of it, the good ones too
                        begin = True
                        break
                    self._connection.execute("ROLLBACK TO batch; RELEASE batch")
        return self._commit(batches, failed)

    def _commit(self, batches: Sequence[WriteBatch], failed: Mapping[int, Exception]) -> Mapping[int, Exception]:
        try:
            self._connection.execute("COMMIT")
        except apsw.Error as error:
            self._roll_back()
            return {place: failed.get(place, _failed(error)) for place in range(len(batches))}
        return failed

    def _roll_back(self) -> None:
        self._slots.clear()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    # What a batch does.

    def _apply(self, batches: Sequence[WriteBatch]) -> None:
        changes: Changes = {}
        alarms: dict[int, float | None] = {}
        for batch in batches:
            if batch.delete_all:
                self._flush(changes, alarms)
                self._drop(batch)
            if not batch.writes and batch.alarm is KEEP:
                continue
            if batch.delete_all and batch.alarm in {None, KEEP} and not any(batch.writes.values()):
                continue
            slot = self._slot(batch.actor)
            for key, value in batch.writes.items():
                changes[slot, key] = value
            if batch.alarm is not KEEP:
                alarms[slot] = batch.alarm
        self._flush(changes, alarms)

    def _flush(self, changes: Changes, alarms: dict[int, float | None]) -> None:
        execute = self._connection.execute
        puts = tuple([_ROW % (s, len(k), k, v) for (s, k), v in changes.items() if v is not None])
        if puts:
            execute(_PUT, (apsw.carray(puts),))
        if len(puts) < len(changes):
            deletes = tuple([_ROW % (s, len(k), k, b"") for (s, k), v in changes.items() if v is None])
            execute(_DELETE, (apsw.carray(deletes),))
        for slot, due in alarms.items():
            if due is None:
                execute("DELETE FROM alarms WHERE slot = ?", (slot,))
            else:
                execute("INSERT OR REPLACE INTO alarms VALUES (?, ?)", (slot, due))
        changes.clear()
        alarms.clear()

    def _slot(self, actor: ActorId) -> int:
        """The actor's slot, made if it has none; its name is stored as soon as it is known."""
        key = (actor.namespace, actor.raw)
        held = self._slots.get(key) or self._find(actor)
        name = None if actor.name is None else actor.name.encode("utf-8", "surrogatepass")
        if held is None:
            insert = "INSERT INTO actors (namespace, id, name) VALUES (?, ?, ?) RETURNING slot"
            held = (self._connection.execute(insert, (*key, name)).get, name is not None)
        elif name is not None and not held[1]:
            self._connection.execute("UPDATE actors SET name = ? WHERE slot = ?", (name, held[0]))
            held = (held[0], True)
        if len(self._slots) >= _SLOTS:
            del self._slots[next(iter(self._slots))]
        self._slots[key] = held
        return held[0]

    def _find(self, actor: ActorId) -> tuple[int, bool] | None:
        found: list[Any] = self._connection.execute(
            "SELECT slot, name IS NOT NULL FROM actors WHERE namespace = ? AND id = ?",
            (actor.namespace, actor.raw),
        ).fetchall()
        return (found[0][0], bool(found[0][1])) if found else None

    def _drop(self, batch: WriteBatch) -> None:
        """Forget every key of an actor: its slot is given up and emptied later."""
        actor, execute = batch.actor, self._connection.execute
        found = self._find(actor)
        if found is None:
            return
        slot = found[0]
        due = execute("SELECT due FROM alarms WHERE slot = ?", (slot,)).get
        execute("DELETE FROM alarms WHERE slot = ?", (slot,))
        execute("DELETE FROM actors WHERE slot = ?", (slot,))
        execute("INSERT INTO dropped VALUES (?)", (slot,))
        self._slots.pop((actor.namespace, actor.raw), None)
        self.sweeping = True
        if due is not None and batch.alarm is KEEP:
            execute("INSERT INTO alarms VALUES (?, ?)", (self._slot(actor), due))

    # Housekeeping.

    def sweep(self) -> None:
        """Remove a piece of what `delete_all` left behind; `sweeping` says whether there is more."""
        execute = self._connection.execute
        slot = execute("SELECT slot FROM dropped LIMIT 1").get
        if slot is None:
            self.sweeping = False
            return
        try:
            with self._connection:
                execute(
                    "DELETE FROM keys WHERE slot = ?1 AND key IN (SELECT key FROM keys WHERE slot = ?1 LIMIT ?2)",
                    (slot, _SWEEP_KEYS),
                )
                if self._connection.changes() < _SWEEP_KEYS:
                    execute("DELETE FROM dropped WHERE slot = ?", (slot,))
        except apsw.Error:
            self.sweeping = False  # no space or a damaged page: the next start tries again

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database, so that the log starts again from its beginning."""
        self._wal_pages = 0
        with contextlib.suppress(apsw.Error):  # nothing is lost, the log only stays long; the next commit asks again
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _wal_grew(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK


def _failed(error: apsw.Error) -> StorageFailed:
    if isinstance(error, apsw.FullError):
        return StorageFailed("the disk is full: the writes were not stored; make space where the data is (--data)")
    return StorageFailed(f"the writes were not stored: {error}")
