"""What a source of signals is, and what it may use of the world."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs

from actors.signals import ID_CHARACTERS, Draft

BATCH_SIGNALS = 1_000
BATCH_BYTES = 4 * 1024 * 1024  # half of what one publication may have


class RunBlocking(Protocol):
    """Runs a blocking function without stalling the server and returns its value."""

    def __call__(self, fn: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        """Await it for the value."""
        ...


def _nothing() -> float:
    return 0.0


@attrs.frozen(kw_only=True)
class World:
    """What a source may use of the world.

    Attributes:
        name: the source's name, the first part of its signals' ids.
        now: wall clock, seconds. run_blocking: for calls that block.
        random: 0 to 1, for jitter.
        due: when the run that asks was due, wall clock, seconds; earlier than now for a run that is caught up.
    """

    name: str
    now: Callable[[], float]
    run_blocking: RunBlocking
    due: Callable[[], float] = _nothing
    random: Callable[[], float] = _nothing

    def id(self, own: str) -> str:
        """The id of a signal from what the source calls it; a long one becomes a hash."""
        text = f"{self.name}:{own}"
        if len(text) <= ID_CHARACTERS:
            return text
        digest = hashlib.sha256(own.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self.name[: ID_CHARACTERS - len(digest) - 1]}:{digest}"


@attrs.frozen
class Rejected:
    """Something a source offered that is no signal: where it was, and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@attrs.frozen
class Batch:
    """What one fetch found.

    Attributes:
        cursor: the place after it, in the source's own words.
        signals: at most 1,000, and 4 MiB.
        more: there is more already; the source is asked again at once.
        rejected: what was passed over.
        pause_s: how long the other side wants to be left alone.
    """

    cursor: str
    signals: tuple[Draft, ...] = ()
    more: bool = False
    rejected: tuple[Rejected, ...] = ()
    pause_s: float = 0.0


class Source(Protocol):
    """Somewhere signals come from.

    A fetch must not count on having been the last one: until its cursor comes back as the argument, nothing says that
    what it returned was published, and the next call may have the same argument again, or that of another instance.
    """

    async def fetch(self, cursor: str | None) -> Batch:
        """What follows a cursor; None is the beginning. Whatever it raises is shown, and it is asked again later."""
        ...


Kind = Callable[[World, Mapping[str, Any]], Any]
"""Makes a source from its `options`, which it checks; it does nothing else. Raises: InvalidOptions."""


class InvalidOptions(ValueError):
    """A source's `options` cannot be used; the text says which, what was seen and what is allowed."""


class InvalidCursor(ValueError):
    """What is stored as the place of a source was not written by its kind."""


class SourceFailed(Exception):
    """The other side did not give what was asked for; the text says what it did.

    Attributes:
        retry_s: how long it wants to be left alone, or None for the usual pause.
    """

    def __init__(self, message: str, *, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_s = retry_s


@attrs.define(eq=False)
class Gathering:
    """Signals of one batch, up to its bounds."""

    signals: list[Draft] = attrs.field(factory=list[Draft], init=False)
    _bytes: int = attrs.field(default=0, init=False)

    def has_room(self, draft: Draft) -> bool:
        """Whether this one fits too."""
        return len(self.signals) < BATCH_SIGNALS and self._bytes + draft.size_bytes <= BATCH_BYTES

    def add(self, draft: Draft) -> None:
        """Take it in; ask `has_room` first."""
        self.signals.append(draft)
        self._bytes += draft.size_bytes
