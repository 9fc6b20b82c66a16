"""What an instance holds until it lets go of it or ends: pending timers, and references to others."""

from __future__ import annotations

from typing import Protocol

from runtime.actor.due_timers import GateTimer
from runtime.actor.frame import Held, release_all


class Instance(Protocol):
    """What holds them: the cell."""

    def busy(self, change: int, /) -> None:
        """Count what keeps it in memory."""
        ...


class Holdings:
    """The timers and references of one instance; a pending timer keeps it in memory."""

    __slots__ = ("_instance", "_references", "_timers")

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        # None while empty: most actors are idle most of the time.
        self._timers: dict[GateTimer, None] | None = None
        self._references: dict[Held, None] | None = None

    @property
    def timers(self) -> int:
        """How many timers are pending."""
        return 0 if self._timers is None else len(self._timers)

    def keep_timer(self, timer: GateTimer) -> None:
        """A pending timer keeps the instance in memory, and is cancelled with it."""
        if self._timers is None:
            self._timers = {}
        self._timers[timer] = None
        self._instance.busy(1)

    def drop_timer(self, timer: GateTimer) -> bool:
        """It fired, or is not wanted any more; False when it was dropped already."""
        if self._timers is None or timer not in self._timers:
            return False
        del self._timers[timer]
        self._timers = self._timers or None
        self._instance.busy(-1)
        return True

    def keep_reference(self, reference: Held) -> None:
        """A reference that ends with the instance."""
        if self._references is None:
            self._references = {}
        self._references[reference] = None

    def drop_reference(self, reference: Held) -> None:
        """It was disposed."""
        if self._references is not None:
            self._references.pop(reference, None)

    def end(self) -> None:
        """The instance ends: cancel the timers, release the references."""
        for timer in self._timers or ():
            timer.cancel()
        release_all(self._references or ())
        self._timers = self._references = None
