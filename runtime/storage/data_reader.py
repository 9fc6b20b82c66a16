"""What a data directory holds, for people: actors, keys, alarms, bookmarks; whether a server has it or not."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import attrs

from runtime import ids
from runtime.ids import ActorId
from runtime.storage.bookmarks import bookmark_text
from runtime.storage.database_file import open_read_only
from runtime.storage.history import HistoryReader
from runtime.storage.object_keys import REGISTERED

_ACTORS = """
SELECT number, namespace, id, name, slot, since IS NOT NULL, due FROM actors
LEFT JOIN alarms ON actor = number
"""
_OF_APP = "key < x'ff'"  # what begins so is the runtime's own
_SIZES = (
    f"SELECT slot, count(*), sum(length(key) + length(value)), max(key = ?) FROM keys WHERE {_OF_APP} "  # noqa: S608
    "GROUP BY slot"
)
_SIZE = (
    "SELECT count(*), ifnull(sum(length(key) + length(value)), 0), max(key = ?) FROM keys "  # noqa: S608
    f"WHERE slot = ? AND {_OF_APP}"
)
_NEWEST = "SELECT owner, max(id) FROM history WHERE typeof(key) = ? GROUP BY owner"
_CHANGES = """
SELECT id FROM history WHERE (owner = ?1 AND typeof(key) = 'integer') OR (typeof(key) = 'blob' AND (owner = ?2
OR owner IN (SELECT value FROM history WHERE owner = ?1 AND key = 1))) ORDER BY id DESC
"""


@attrs.frozen(kw_only=True)
class Bookmark:
    """A point of the history before changes of an actor, and from when on they were made (wall clock, seconds)."""

    text: str
    time_s: float


@attrs.frozen(kw_only=True)
class StoredActor:
    """An actor as it is stored.

    Attributes:
        keys, size_bytes: how many, and the bytes of keys and values.
        alarm: the due time. bookmark: before its last changes; None when the history that is kept begins later.
        records: its class keeps history. has_file: what it stores is in a database of its own.
    """

    id: ActorId
    keys: int
    size_bytes: int
    alarm: float | None
    bookmark: Bookmark | None
    records: bool
    has_file: bool
    number: int = attrs.field(repr=False)
    slot: int = attrs.field(repr=False)


@attrs.define(eq=False)
class DataReader:
    """One consistent look at a data directory."""

    lineage: str
    _connection: apsw.Connection
    _history: HistoryReader

    def actors(self, namespace: str | None = None) -> list[StoredActor]:
        """Everybody who has stored something, deleted or not, by namespace, name and id; facets behind their actor."""
        sizes = {slot: sums for slot, *sums in self._rows(_SIZES, REGISTERED)}
        of_keys, of_actors = dict(self._rows(_NEWEST, "blob")), dict(self._rows(_NEWEST, "integer"))
        found: list[StoredActor] = []
        for number, key, raw, name, slot, records, due in self._rows(f"{_ACTORS} ORDER BY namespace, name, id"):
            if namespace in {None, key}:
                row = max(of_keys.get(slot, 0), of_actors.get(number, 0))
                keys, size, has_file = sizes.get(slot, (0, 0, 0))
                actor = ActorId(key, raw, None if name is None else name.decode("utf-8", "surrogatepass"))
                found.append(
                    StoredActor(
                        id=actor,
                        keys=keys,
                        size_bytes=size,
                        alarm=due,
                        bookmark=self._bookmark(row) if row else None,
                        records=bool(records),
                        has_file=bool(has_file),
                        number=number,
                        slot=slot,
                    )
                )
        order = {one.id.raw[: ids.ID_BYTES]: place for place, one in enumerate(found) if not one.id.is_facet}
        last = len(found)
        return sorted(
            found,
            key=lambda one: (
                one.id.namespace,
                order.get(one.id.raw[: ids.ID_BYTES], last),
                one.id.raw if one.id.is_facet else b"",
            ),
        )

    def actor(self, actor: ActorId) -> StoredActor | None:
        """One actor, None when it has stored nothing."""
        for number, key, raw, name, slot, records, due in self._rows(
            f"{_ACTORS} WHERE namespace = ? AND id = ?", actor.namespace, actor.raw
        ):
            ((keys, size, has_file),) = self._rows(_SIZE, REGISTERED, slot)
            stored = StoredActor(
                id=ActorId(key, raw, None if name is None else name.decode("utf-8", "surrogatepass")),
                keys=keys,
                size_bytes=size,
                alarm=due,
                bookmark=None,
                records=bool(records),
                has_file=bool(has_file),
                number=number,
                slot=slot,
            )
            return attrs.evolve(stored, bookmark=next(iter(self.bookmarks(stored, 1)), None))
        return None

    def pairs(self, actor: StoredActor, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Its keys and values in byte order."""
        statement = f"SELECT key, value FROM keys WHERE slot = ? AND key >= ? AND {_OF_APP} ORDER BY key"  # noqa: S608
        for key, value in self._connection.execute(statement, (actor.slot, prefix)):
            if not key.startswith(prefix):
                return
            yield key, value

    def bookmarks(self, actor: StoredActor, limit: int) -> list[Bookmark]:
        """Those before its changes, the newest first."""
        found: list[Bookmark] = []
        seen: int | None = None
        for (row,) in self._connection.execute(_CHANGES, (actor.number, actor.slot)):
            point, _ = self._history.mark_before(row)
            if point != seen:
                seen = point
                found.append(self._bookmark(row))
                if len(found) >= limit:
                    break
        return found

    def _bookmark(self, row: int) -> Bookmark:
        point, time_s = self._history.mark_before(row)
        return Bookmark(text=bookmark_text(point, self.lineage), time_s=time_s)

    def _rows(self, statement: str, *bindings: Any) -> list[Any]:
        return self._connection.execute(statement, bindings).fetchall()


@contextmanager
def read_data(directory: Path) -> Generator[DataReader, None, None]:
    """Look at a data directory without changing or locking it. Blocks.

    Raises:
        StoreUnusable: there is none, or it is damaged.
    """
    connection, lineage = open_read_only(directory)
    try:
        with connection:  # one transaction, so that all of it is of one moment
            yield DataReader(lineage, connection, HistoryReader(connection))
    finally:
        connection.close()
