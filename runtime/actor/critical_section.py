"""A critical section: while its body runs, only what the body itself started is delivered to the actor.

If the body raises, or lasts over 30 s, the instance is destroyed. (Durable Objects: `blockConcurrencyWhile`.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from runtime import limits
from runtime.actor.breaking import reset_copy
from runtime.actor.input_gate import InputGate, Job, Waiter
from runtime.actor.result import DONE, Error, Result
from runtime.errors import ActorReset

if TYPE_CHECKING:
    from runtime.actor.cell import Cell
    from runtime.timers import Timer


class CriticalSection(Awaitable[Any]):
    """A critical section that was asked for; awaiting it gives its value."""

    def __init__(self, cell: Cell, fn: Callable[[], Awaitable[Any]], outer: InputGate) -> None:
        self.gate = InputGate(cell, outer)
        self._cell = cell
        self._fn = fn
        self._timeout: Timer | None = None
        self._result: Result | None = None
        self._waiter: Waiter | None = None

    def begin(self) -> None:
        """Run it; the outer turn is kept until it ends."""
        self._timeout = self._cell.services.timers.call_after(limits.CRITICAL_SECTION_S, self._too_long)
        self.gate.enter(SectionJob(self, self._fn))

    def __await__(self) -> Any:
        return self._wait().__await__()

    async def _wait(self) -> Any:
        cell = self._cell
        frame = cell.frame()
        if self._result is None:
            cell.seal()
            self._waiter = waiter = Waiter(frame)
            frame.gate.outermost_open().leave()
            # Not cancellable: the section decides when the turn comes back. A broken instance is.
            await waiter.park(cell.abort_if_broken)
        assert self._result is not None
        return self._result.unwrap()

    def end(self, result: Result) -> None:
        """It ended: an error breaks the instance, a value gives the outer turn to whoever awaits, or to the next."""
        assert self._timeout is not None
        self._timeout.cancel()
        if isinstance(result, Error):
            self._cell.break_(reset_copy(result.error))
            return
        self._result = result
        outer = self.gate.close()
        if self._waiter is not None:
            self._waiter.resume(DONE)
        else:
            outer.leave()

    def _too_long(self) -> None:
        self._cell.services.log.error("critical section timed out", actor=repr(self._cell.id))
        self._cell.break_(
            ActorReset(
                "A call to blockConcurrencyWhile() in a Durable Object waited for too long. "
                "The call was canceled and the Durable Object was reset.",
                overloaded=True,
            )
        )


class SectionJob(Job):
    """The body of a critical section."""

    __slots__ = ("section",)

    def __init__(self, section: CriticalSection, fn: Callable[[], Awaitable[Any]]) -> None:
        super().__init__("block_concurrency_while", lambda _: fn(), logs=False)
        self.section = section
