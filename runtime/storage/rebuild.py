"""Builds what an actor had at a point of the history in a slot of its own, a bounded piece in each transaction.

It is for an actor of which much was changed. Putting that back in place is one transaction, and it writes everything
twice: what was, and what is. Moving the actor to another slot writes what was; what is stays where it is, as after a
`delete_all`. Until the actor is moved, the new slot is among those that may be emptied at once, so that a crash leaves
nothing behind. Everything here blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import apsw
import attrs

from runtime.storage.deflated import VALUE_THEN
from runtime.storage.history import CHANGED_SLOT, HistoryWriter, Prepared

IN_PLACE_BYTES = 16 << 20
_PIECE_BYTES = 4 << 20  # that a transaction is to write
_WEIGHED = 20_000  # rows of the history at a time
_WORTH = 4  # times as many keys as were changed are written anew, rather than the changed ones with their history
_NAMED = 100

_OF_SLOT = "FROM history WHERE id > ?1 AND id <= ?2 AND owner = ?3 AND typeof(key) = 'blob'"
_WEIGH = f"SELECT count(*), ifnull(sum(length(key) + ifnull(length(value), 0)), 0) {_OF_SLOT}"
# What was there before its first change is what a key had; later changes find that in its place. A key that was absent
# is held by a number until the end.
_CHANGED = f"INSERT INTO keys SELECT ?4, key, ifnull({VALUE_THEN}, 0) {_OF_SLOT} ORDER BY id ON CONFLICT DO NOTHING"
_ABSENT = f"SELECT count(*) {_OF_SLOT} AND value IS NULL"
_HELD = f"slot = ?4 AND typeof(value) = 'integer' AND key IN (SELECT key {_OF_SLOT} AND value IS NULL)"
_GONE = f"SELECT count(*) FROM keys WHERE slot = ?3 AND key IN (SELECT key FROM keys WHERE {_HELD})"  # noqa: S608
_LET_GO = f"DELETE FROM keys WHERE {_HELD}"  # noqa: S608
_NAMES = f"SELECT DISTINCT key {_OF_SLOT} LIMIT ?4"
_UNCHANGED = (
    "INSERT INTO keys SELECT ?4, key, value FROM keys AS old WHERE slot = ?3 AND key >= ?1 AND key <= ?2 "
    "AND NOT EXISTS (SELECT 1 FROM keys WHERE keys.slot = ?4 AND keys.key = old.key)"
)
_LAST = "SELECT max(key) FROM (SELECT key FROM keys WHERE slot = ? AND key >= ? ORDER BY key LIMIT ?)"
_MANY = "SELECT count(*) FROM (SELECT 1 FROM keys WHERE slot = ? LIMIT ?)"


@attrs.frozen(kw_only=True)
class _Weight:
    """Of what was changed after a point, as far as it was looked at: rows of the history, those of the slot, bytes."""

    looked: int
    changed: int
    size: int


class Rebuilder:
    """Prepares the restores of a database.

    Args:
        connection: the one that writes. history: of the database.
        checkpoint: called after every piece.
        in_place_bytes: when no more than that was changed, nothing is built.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        history: HistoryWriter,
        checkpoint: Callable[[], None],
        in_place_bytes: int,
    ) -> None:
        self._connection = connection
        self._history = history
        self._checkpoint = checkpoint
        self._in_place_bytes = in_place_bytes

    def prepare(self, actor: int, point: int) -> Prepared:
        """Do most of the work of a restore; what the actor has now does not change.

        Args:
            actor: its number.
            point: of the history.

        Raises:
            InvalidBookmark: the history of the actor does not reach back so far.
            apsw.Error: the disk refuses.
        """
        history = self._history
        slot = history.slot_since(actor, point)
        found = Prepared(upto=history.newest_row, first=history.first_of_actor(actor, point))
        before: int = found.first.get(CHANGED_SLOT, slot)
        weight = self._weigh(before, point, found.upto)
        return found if weight is None else self._build(actor, before, point, found, weight)

    def _weigh(self, slot: int, point: int, upto: int) -> _Weight | None:
        """None when little was changed, or little of what there is."""
        changed, size, last = 0, 0, point
        while size <= self._in_place_bytes:
            if last >= upto:
                return None
            after, last = last, min(last + _WEIGHED, upto)
            rows: list[Any] = self._connection.execute(_WEIGH, (after, last, slot)).fetchall()
            changed, size = changed + rows[0][0], size + rows[0][1]
        looked = last - point
        most = _WORTH * changed * (upto - point) // looked  # if it goes on like that
        keys: int = self._connection.execute(_MANY, (slot, most + 1)).get
        return None if keys > most else _Weight(looked=looked, changed=changed, size=size)

    def _build(self, actor: int, before: int, point: int, found: Prepared, weight: _Weight) -> Prepared:
        execute = self._connection.execute
        slot = -self._history.mark()
        execute("INSERT INTO dropped VALUES (?, ?, ?)", (slot, slot, actor))
        rows = max(1, weight.looked * _PIECE_BYTES // weight.size)
        pieces = [(after, min(after + rows, found.upto), before) for after in range(point, found.upto, rows)]
        put, absent, removed = 0, 0, 0
        for piece in pieces:
            put += self._write(_CHANGED, *piece, slot)
            absent += execute(_ABSENT, piece).get
        for low, high in self._key_ranges(before, max(1, weight.changed * _PIECE_BYTES // weight.size)):
            self._write(_UNCHANGED, low, high, before, slot)
        for piece in pieces if absent else ():
            removed += execute(_GONE, (*piece, slot)).get
            put -= self._write(_LET_GO, *piece, slot)
        names: list[Any] = execute(_NAMES, (point, found.upto, before, _NAMED)).fetchall()
        return attrs.evolve(found, slot=slot, put=put, removed=removed, keys=tuple(key for (key,) in names))

    def _write(self, statement: str, *bindings: Any) -> int:
        with self._connection:
            self._history.record(on=False)
            self._connection.execute(statement, bindings)
        changed = self._connection.changes()
        self._checkpoint()
        return changed

    def _key_ranges(self, slot: int, rows: int) -> Iterator[tuple[bytes, bytes]]:
        low = b""
        while (high := self._connection.execute(_LAST, (slot, low, rows)).get) is not None:
            yield low, high
            low = high + b"\0"
