"""What storage needs from the live instance that it belongs to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class StorageGate(Protocol):
    """What storage needs from the live instance that it belongs to."""

    def check(self) -> None:
        """Raises when the instance is broken: its storage is no longer accessible."""
        ...

    def wrote(self, *, confirmed: bool) -> None:
        """A write is about to join the open batch; not confirmed: effects need not wait for it."""
        ...

    def clearing(self) -> None:
        """Everything is about to be deleted in the open batch: what belongs to the actor goes with it."""
        ...

    async def sync(self) -> None:
        """A real wait until everything written so far is durable."""
        ...

    async def critical_section(self, fn: Callable[[], Awaitable[T]], /) -> T:
        """Runs `fn` with every other event kept out; an exception inside destroys the instance."""
        ...
