"""The audit log: who did what with the console, durable, the last 10,000 entries."""

from __future__ import annotations

import attrs

from runtime import Storage

KEPT = 10_000
_PREFIX = "audit/"
_TEXT = 500


@attrs.frozen(kw_only=True)
class Entry:
    """One deed.

    Attributes:
        at: wall clock, seconds. who: `local`, or `password` and the beginning of the session's hash. peer: from where.
        what: was done. target: to what. result: what came of it.
    """

    at: float
    who: str
    peer: str
    what: str
    target: str
    result: str


class AuditLog:
    """Kept in the storage of an actor.

    Args:
        storage: of the actor.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        newest = storage.list(Entry, prefix=_PREFIX, reverse=True, limit=1)
        self._next = int(next(iter(newest)).removeprefix(_PREFIX), 16) + 1 if newest else 0

    def __len__(self) -> int:
        return min(self._next, KEPT)

    def add(self, entry: Entry) -> None:
        """One more; the oldest goes when there are too many."""
        short = attrs.evolve(entry, target=entry.target[:_TEXT], result=entry.result[:_TEXT])
        self._storage.put(_key(self._next), short)
        if self._next >= KEPT:
            self._storage.delete(_key(self._next - KEPT))
        self._next += 1

    def newest(self, offset: int, limit: int) -> list[Entry]:
        """The newest first."""
        end = self._next - offset
        if end <= 0:
            return []
        found = self._storage.list(Entry, prefix=_PREFIX, end=_key(end), reverse=True, limit=limit)
        return list(found.values())


def _key(number: int) -> str:
    return f"{_PREFIX}{number:012x}"
