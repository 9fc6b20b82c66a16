"""Which actor's handler the running task is, so that a wait finds its turn and a call its caller."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from runtime.actor.cell import Cell
    from runtime.actor.input_gate import InputGate, Work


class OpenCall(Protocol):
    """A call that a handler made and has not awaited."""

    def _abandon(self) -> None:
        """Its handler ended; log its error, now or when it comes."""
        ...


class Held(Protocol):
    """A reference to something of another actor."""

    def release(self) -> None:
        """Let go of it."""
        ...


def release_all(references: Iterable[Held]) -> None:
    """Let go of every reference."""
    for reference in references:
        reference.release()


class Frame:
    """One running handler: its instance, its event, the gate it takes turns in, its task.

    Attributes:
        outside: the handler has let the turn go to run foreign code (`ctx.outside`).
        scope: cancelled when the instance is destroyed; None where it cannot be waiting then.
        calls: what it called and has not awaited.
        references: what it holds of other actors until it ends.
    """

    __slots__ = ("calls", "cell", "gate", "job", "outside", "references", "scope", "task")

    def __init__(self, cell: Cell, job: Work, task: trio.lowlevel.Task, scope: trio.CancelScope | None) -> None:
        self.cell = cell
        self.job = job
        self.gate: InputGate = job.gate
        self.task = task
        self.scope = scope
        self.outside = False
        self.calls: dict[OpenCall, None] | None = None
        self.references: list[Held] | None = None

    def check_task(self) -> None:
        """Refuse a task that the handler started in a nursery of its own.

        Raises:
            RuntimeError: with what to use instead.
        """
        if trio.lowlevel.current_task() is not self.task:
            raise RuntimeError(
                "a task in a nursery of the handler's own cannot take the actor's turn (its parent holds it, so this "
                "would never end): use ctx.start_soon(fn, *args) for concurrent work of the actor, several stub calls "
                "awaited later for parallel calls, or ctx.outside(fn, *args) for foreign code"
            )


def cycle(cell: Cell, job: Work) -> list[str] | None:
    """The handlers, each called by the one before, by which a critical section of an actor waits for a call to it.

    It cannot end well: the section waits for the call, and the call for the section, until the section's 30 s.
    """
    chain = [f"{cell.id!r}.{job.label}"]
    frame = job.caller
    while frame is not None:
        chain.insert(0, f"{frame.cell.id!r}.{frame.job.label}")
        if frame.cell is cell and frame.gate is not cell.gate and not frame.gate.closed:
            return chain
        frame = frame.job.caller
    return None


current_frame: ContextVar[Frame | None] = ContextVar("current_frame", default=None)
