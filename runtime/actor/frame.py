"""Which actor's handler the running task is, so that a wait finds its turn and a call its caller."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from runtime.actor.cell import Cell
    from runtime.actor.input_gate import InputGate, Job


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

    `outside` is true while the handler has let the turn go to run foreign code (`ctx.outside`).
    """

    __slots__ = ("calls", "cell", "gate", "job", "outside", "references", "scope", "task")

    def __init__(self, cell: Cell, gate: InputGate, task: trio.lowlevel.Task) -> None:
        self.cell = cell
        self.gate = gate
        self.task = task
        self.job: Job | None = None
        self.outside = False
        self.scope = trio.CancelScope()
        self.calls: dict[OpenCall, None] = {}
        self.references: list[Held] = []

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


current_frame: ContextVar[Frame | None] = ContextVar("current_frame", default=None)
