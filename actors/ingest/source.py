"""What a source of signals is, and the kinds there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs

from actors.signals import Draft

BATCH_SIGNALS = 1_000


class RunBlocking(Protocol):
    """Runs a blocking function without stalling the server and returns its value."""

    def __call__(self, fn: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        """Await it for the value."""
        ...


@attrs.frozen(kw_only=True)
class World:
    """What a source may use of the world.

    Attributes:
        name: the source's name, the first part of its signals' ids.
        now: wall clock, seconds. run_blocking: for calls that block.
    """

    name: str
    now: Callable[[], float]
    run_blocking: RunBlocking


@attrs.frozen
class Batch:
    """What one fetch found.

    Attributes:
        cursor: the place after it, in the source's own words. signals: at most 1,000.
    """

    cursor: str
    signals: tuple[Draft, ...]


class Source(Protocol):
    """Somewhere signals come from.

    The same cursor must give the same ids, so that signals published just before a crash are recognised.
    """

    async def fetch(self, cursor: str | None) -> Batch:
        """What follows a cursor; None is the beginning. Whatever it raises is shown, and it is asked again later."""
        ...


Kind = Callable[[World, Mapping[str, Any]], Source]


class InvalidOptions(ValueError):
    """A source's `options` cannot be used; the text says which, what was seen and what is allowed."""
