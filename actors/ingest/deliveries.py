"""What a webhook was sent: a bounded, durable memory by which a repeated delivery is answered like the first."""

from __future__ import annotations

import json

import attrs

from actors.signals import Draft
from runtime import Storage

ATTEMPTS = 64  # ours: of one delivery, each signed anew
DROPPED_AT_ONCE = 8  # entries that are forgotten with each new one, when there are too many

_ENTRY = "delivery/"
_SIGNATURE = "signature/"
_ORDER = "order/"


@attrs.frozen
class Answer:
    """What the sender is told.

    Attributes:
        text: of a refusal, why. retry_after_s: of a 429.
    """

    status: int
    text: str = ""
    signals: int = 0
    retry_after_s: int = 0


@attrs.frozen(kw_only=True)
class Delivery:
    """One request of a sender, its signature checked.

    Attributes:
        key: what the sender calls it, or its signature. signature, digest: of its body.
        drafts: the signals it carries.
    """

    key: str
    signature: str
    digest: str
    drafts: tuple[Draft, ...]

    @property
    def cursor(self) -> str:
        """What the stream keeps with the signals: enough to answer for this delivery when nothing else is left."""
        return json.dumps([self.key, self.signature, self.digest, len(self.drafts)])


@attrs.frozen
class Entry:
    """What is remembered of a delivery.

    Attributes:
        signatures: of its attempts, oldest first. at: when it was published, wall clock, seconds.
    """

    signatures: tuple[str, ...]
    digest: str
    signals: int
    at: float


class Deliveries:
    """The memory, in a source's own storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def recognise(self, delivery: Delivery) -> Answer | None:
        """The answer to a delivery that came before, or claims to be one that did; None for a new one.

        The signature of each attempt is remembered: under another id it is a replay.
        """
        entry = self._storage.get(f"{_ENTRY}{delivery.key}", Entry)
        if entry is not None and entry.digest != delivery.digest:
            return Answer(409, f"delivery {delivery.key!r} came before with another body; give each its own id")
        first = self._storage.get(f"{_SIGNATURE}{delivery.signature}", str)
        if first is not None and first != delivery.key:
            return Answer(409, f"this signature came before, with delivery {first!r}: a replay")
        if entry is None:
            return None
        if first is None:
            if len(entry.signatures) >= ATTEMPTS:
                return Answer(429, f"{ATTEMPTS} attempts came and were answered; stop sending", retry_after_s=3_600)
            evolved = attrs.evolve(entry, signatures=(*entry.signatures, delivery.signature))
            self._storage.put(f"{_ENTRY}{delivery.key}", evolved)
            self._storage.put(f"{_SIGNATURE}{delivery.signature}", delivery.key)
        return Answer(202, signals=entry.signals)

    def full(self, most: int, window_s: float, now: float) -> int:
        """Whole seconds to wait until the oldest of `most` entries may be forgotten; 0 when there is room.

        Younger than `window_s` an entry is what tells a replay.
        """
        oldest, newest = self._bounds()
        if newest - oldest + 1 < most:
            return 0
        entry = self._entry(oldest)
        return 0 if entry is None else max(0, round(entry.at + window_s - now))

    def record(self, cursor: str, now: float, *, most: int, remember_s: float) -> None:
        """Remember what a cursor says was published, and forget the oldest of too many and of too long ago."""
        key, signature, digest, signals = json.loads(cursor)
        oldest, newest = self._bounds()
        self._storage.put_many(
            {
                f"{_ENTRY}{key}": Entry((signature,), digest, signals, now),
                f"{_SIGNATURE}{signature}": key,
                _place(newest + 1): key,
            }
        )
        for number in range(oldest, min(oldest + DROPPED_AT_ONCE, newest + 1)):
            entry = self._entry(number)
            if entry is not None and newest + 2 - number <= most and entry.at + remember_s > now:
                return
            self._forget(number, entry)

    def _forget(self, number: int, entry: Entry | None) -> None:
        key = self._storage.get(_place(number), str)
        self._storage.delete_many([_place(number), f"{_ENTRY}{key}"])
        if entry is not None:
            self._storage.delete_many([f"{_SIGNATURE}{signature}" for signature in entry.signatures])

    def _entry(self, number: int) -> Entry | None:
        key = self._storage.get(_place(number), str)
        return None if key is None else self._storage.get(f"{_ENTRY}{key}", Entry)

    def _bounds(self) -> tuple[int, int]:
        """The oldest and the newest place; an empty memory has none, and the next place is 1."""
        first = next(iter(self._storage.list(str, prefix=_ORDER, limit=1)), None)
        if first is None:
            return 1, 0
        last = next(iter(self._storage.list(str, prefix=_ORDER, limit=1, reverse=True)))
        return int(first.removeprefix(_ORDER)), int(last.removeprefix(_ORDER))


def _place(number: int) -> str:
    return f"{_ORDER}{number:016d}"
