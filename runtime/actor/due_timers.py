"""The timers of one actor that are due: only one of them queues for the turn at a time.

The next one queues when the one before has got the turn and the loop has nothing else to do, so that what has come
meanwhile goes before it: many late timers do not hold up an event by more than one of them. A critical section counts
its own timers while it runs. (Durable Objects: an object waits for the nearest of its `setTimeout`s only.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.actor.input_gate import InputGate
    from runtime.timers import Timer, Timers

IDLE_S = 0.000_001
"""In virtual time this passes only when no task can run."""


class DueTimers:
    """Those of one gate: how many queue for its turn, and those that will."""

    __slots__ = ("queued", "waiting")

    def __init__(self) -> None:
        self.queued = 0
        self.waiting: deque[GateTimer] = deque()

    def join(self, inner: DueTimers) -> None:
        """The section of `inner` has ended: its timers are this gate's from now on."""
        self.queued += inner.queued
        self.waiting = deque(sorted((*self.waiting, *inner.waiting), key=lambda timer: timer.deadline))


class GateTimer:
    """Lets something queue for a gate's turn once its time has come.

    Args:
        gate: that of the actor or of the critical section that made it.
        enter: queues for the turn. Whoever then has it says so with `ran`.
        seconds: from now; less than nothing is nothing.
    """

    __slots__ = ("_enter", "_gate", "_queued", "_timer", "_timers", "deadline")

    def __init__(self, gate: InputGate, timers: Timers, seconds: float, enter: Callable[[], None]) -> None:
        self._gate = gate
        self._timers = timers
        self._enter = enter
        self._queued = False
        self._timer: Timer = timers.call_after(max(seconds, 0.0), self._due)
        self.deadline = self._timer.deadline

    def cancel(self) -> None:
        """Do not queue any more."""
        self._timer.cancel()
        due = self._gate.outermost_open().due
        if due is not None and self in due.waiting:
            due.waiting.remove(self)

    def ran(self) -> None:
        """What has queued has got its turn, or never will."""
        if self._queued:
            self._queued = False
            gate = self._gate.outermost_open()
            assert gate.due is not None
            gate.due.queued -= 1
            if gate.due.waiting:
                self._timers.call_after(IDLE_S, self._next)
            elif not gate.due.queued:
                gate.due = None

    def _due(self) -> None:
        gate = self._gate.outermost_open()
        if gate.due is None:
            gate.due = DueTimers()
            self._queue(gate.due)
        else:
            gate.due.waiting.append(self)

    def _next(self) -> None:
        gate = self._gate.outermost_open()
        if gate.due is None or gate.due.queued:
            return
        if gate.due.waiting:
            gate.due.waiting.popleft()._queue(gate.due)
        else:
            gate.due = None

    def _queue(self, due: DueTimers) -> None:
        self._queued = True
        due.queued += 1
        self._enter()
