"""Finds handlers that keep their actor's turn for long, and says in the log what they wait for.

A foreign await inside a handler (a library's call without `ctx.outside`) stops every other event of its actor, without
an error. The look is periodic and only while some actor is busy; nothing is measured on the way of an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog
import trio

from runtime import limits
from runtime.actor.frame import Frame
from runtime.actor.input_gate import Waiter
from runtime.timers import Timer, Timers


class TurnWatch:
    """The periodic look.

    Args:
        frames: the handlers that run or wait.
    """

    def __init__(
        self, timers: Timers, frames: Callable[[], Iterable[Frame]], log: structlog.stdlib.BoundLogger
    ) -> None:
        self._timers = timers
        self._frames = frames
        self._log = log
        self._timer: Timer | None = None
        self._seen: dict[Frame, tuple[int, bool]] = {}  # at the last look: turns, reported

    def busy(self) -> None:
        """Some actor has something to do."""
        if self._timer is None:
            self._timer = self._timers.call_after(limits.TURN_S, self._look)

    def _look(self) -> None:
        self._timer = None
        before, self._seen = self._seen, {}
        for frame in self._frames():
            self.busy()
            if frame.outside or not frame.cell.gate.held:
                continue
            place = awaits(frame.task)
            if place is None:
                continue
            turns, reported = before.get(frame, (-1, False))
            same = turns == frame.gate.turns
            if same and not reported:
                self._log.error(
                    "a handler keeps its actor's turn; run foreign code through ctx.outside",
                    actor=repr(frame.cell.id),
                    handler=frame.job.label,
                    awaits=place,
                    longer_than_s=limits.TURN_S,
                )
            self._seen[frame] = frame.gate.turns, same


def awaits(task: trio.lowlevel.Task) -> str | None:
    """Where a suspended task is, as file, line and function outside of trio; None in a wait of the runtime."""
    if isinstance(task.custom_sleep_data, Waiter):
        return None
    place: str | None = None
    for frame, line in task.iter_await_frames():
        if not frame.f_globals.get("__name__", "").startswith("trio"):
            place = f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_qualname}"
    return place
