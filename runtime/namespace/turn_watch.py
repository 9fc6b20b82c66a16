"""Finds handlers that keep their actor's turn for long, and says in the log what they wait for.

A foreign await inside a handler (a library's call without `ctx.outside`) stops every other event of its actor, without
an error. The look is periodic and only while some actor is busy; nothing is measured on the way of an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import structlog
import trio

from runtime import limits
from runtime.actor.cell import Cell
from runtime.actor.frame import Frame
from runtime.actor.input_gate import Job, Waiter
from runtime.timers import Timer, Timers

CELLS_PER_TURN = 1_000  # of the loop: the rest of the server runs in between


class TurnWatch:
    """The periodic look.

    Args:
        cells: the instances in memory.
    """

    def __init__(
        self, timers: Timers, cells: Callable[[], Iterable[Cell | None]], log: structlog.stdlib.BoundLogger
    ) -> None:
        self._timers = timers
        self._cells = cells
        self._log = log
        self._timer: Timer | None = None
        self._rest: Iterator[Cell | None] = iter(())
        self._seen: dict[Frame, tuple[Job | None, int, bool]] = {}  # at the last look: event, turns, reported
        self._now: dict[Frame, tuple[Job | None, int, bool]] = {}
        self._busy = False

    def busy(self) -> None:
        """Some actor has something to do."""
        if self._timer is None:
            self._timer = self._timers.call_after(limits.TURN_S, self._look)

    def _look(self) -> None:
        self._rest = iter(list(self._cells()))
        self._seen, self._now = self._now, {}
        self._busy = False
        self._go_on()

    def _go_on(self) -> None:
        for number, cell in enumerate(self._rest):
            if cell is not None and not cell.idle:
                self._busy = True
                if cell.gate.held:
                    self._check(cell)
            if number >= CELLS_PER_TURN:
                self._timer = self._timers.call_after(0.001, self._go_on)
                return
        self._timer = self._timers.call_after(limits.TURN_S, self._look) if self._busy else None

    def _check(self, cell: Cell) -> None:
        for frame in cell.frames:
            if frame.outside:
                continue
            place = awaits(frame.task)
            if place is None:
                continue
            job, turns, reported = self._seen.get(frame, (None, -1, False))
            same = job is frame.job and turns == frame.gate.turns
            if same and not reported and frame.job is not None:
                self._log.error(
                    "a handler keeps its actor's turn; run foreign code through ctx.outside",
                    actor=repr(cell.id),
                    handler=frame.job.label,
                    awaits=place,
                    longer_than_s=limits.TURN_S,
                )
            self._now[frame] = (frame.job, frame.gate.turns, same)


def awaits(task: trio.lowlevel.Task) -> str | None:
    """Where a suspended task is, as file, line and function outside of trio; None in a wait of the runtime."""
    if isinstance(task.custom_sleep_data, Waiter):
        return None
    place: str | None = None
    for frame, line in task.iter_await_frames():
        if not frame.f_globals.get("__name__", "").startswith("trio"):
            place = f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_qualname}"
    return place
