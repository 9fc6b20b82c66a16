"""What happened in a run: numbered events, the newest kept, all of them in one hash."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable

import attrs

EVENTS_KEPT = 50_000


@attrs.frozen(slots=True)
class Event:
    """One thing that happened.

    Attributes:
        number: its place in the run, from 1.
        at: virtual seconds since the run began.
        what: `turn`, `commit`, `crash`, …
        who: a node, an actor, a client; a lane of the timeline.
        detail: more of it.
    """

    number: int
    at: float
    what: str
    who: str
    detail: str

    def __str__(self) -> str:
        return f"#{self.number:<5} {self.at:10.6f} s  {self.who:<24} {self.what:<12} {self.detail}".rstrip()


class Trace:
    """The events of one run.

    Args:
        now: virtual seconds since the run began.

    Attributes:
        count: how many there were. fired: how often each kind of event happened.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.count = 0
        self.fired: Counter[str] = Counter()
        self._now = now
        self._events: deque[tuple[int, float, str, str, str]] = deque(maxlen=EVENTS_KEPT)
        self._hash = hashlib.blake2b(digest_size=16)

    def note(self, what: str, who: str, detail: str = "") -> int:
        """Something happened; its number."""
        self.count += 1
        at = self._now()
        self.fired[what] += 1
        self._hash.update(f"{at:.9f} {what} {who} {detail}\n".encode("utf-8", "surrogatepass"))
        self._events.append((self.count, at, what, who, detail))
        return self.count

    @property
    def digest(self) -> str:
        """The same for two runs in which the same happened."""
        return self._hash.hexdigest()

    @property
    def events(self) -> list[Event]:
        """The newest, at most 50,000, in order."""
        return [Event(*entry) for entry in self._events]

    def event(self, number: int) -> Event | None:
        """One of those, if it is kept."""
        at = number - 1 - (self.count - len(self._events))
        return Event(*self._events[at]) if 0 <= at < len(self._events) else None
