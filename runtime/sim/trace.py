"""What happened in a run: numbered events, the newest kept, all of them in one hash."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import overload

import attrs

EVENTS_KEPT = 50_000
POINT = "point: "
"""What an event is called that says that a rare branch begins: this, and the name of the point."""
_HASHED_AT_ONCE = 512

_Entry = tuple[int, float, str, str, str]


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

    def same_as(self, other: Event) -> bool:
        """Everything but its number and its time."""
        return (self.what, self.who, self.detail) == (other.what, other.who, other.detail)

    def __str__(self) -> str:
        return f"#{self.number:<5} {self.at:10.6f} s  {self.who:<24} {self.what:<12} {self.detail}".rstrip()


@attrs.frozen
class _Events(Sequence[Event]):
    """Made when they are asked for: of most runs nobody looks at one."""

    _entries: tuple[_Entry, ...]

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, at: int) -> Event: ...

    @overload
    def __getitem__(self, at: slice) -> list[Event]: ...

    def __getitem__(self, at: int | slice) -> Event | list[Event]:
        if isinstance(at, slice):
            return [Event(*entry) for entry in self._entries[at]]
        return Event(*self._entries[at])


class Trace:
    """The events of one run.

    Args:
        now: virtual seconds since the run began.
        folder: of the run, which is another one each time; it is left out of details.

    Attributes:
        count: how many there were. fired: how often each kind of event happened.
    """

    def __init__(self, now: Callable[[], float], folder: str = "/dev/null") -> None:
        self.count = 0
        self.fired: Counter[str] = Counter()
        self._now = now
        self._folder = folder
        self._events: deque[_Entry] = deque(maxlen=EVENTS_KEPT)
        self._hash = hashlib.blake2b(digest_size=16)
        self._unhashed: list[str] = []
        self._shown_at, self._shown = -1.0, ""

    def note(self, what: str, who: str, detail: str = "") -> int:
        """Something happened; its number."""
        self.count += 1
        at = self._now()
        if self._folder in detail:
            detail = detail.replace(self._folder, "")
        self.fired[what] += 1
        if at != self._shown_at:  # much happens at the same time
            self._shown_at, self._shown = at, f"{at:.9f}"
        self._unhashed.append(f"{self._shown} {what} {who} {detail}\n")
        if len(self._unhashed) == _HASHED_AT_ONCE:
            self._add_to_hash()
        self._events.append((self.count, at, what, who, detail))
        return self.count

    def _add_to_hash(self) -> None:
        self._hash.update("".join(self._unhashed).encode("utf-8", "surrogatepass"))
        self._unhashed.clear()

    @property
    def digest(self) -> str:
        """The same for two runs in which the same happened."""
        self._add_to_hash()
        return self._hash.hexdigest()

    @property
    def events(self) -> Sequence[Event]:
        """The newest, at most 50,000, in order."""
        return _Events(tuple(self._events))

    def event(self, number: int) -> Event | None:
        """One of those, if it is kept."""
        at = number - 1 - (self.count - len(self._events))
        return Event(*self._events[at]) if 0 <= at < len(self._events) else None
