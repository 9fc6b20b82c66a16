"""One heap of timers, keyed by deadline and then by age, on the trio clock.

No order is left to the scheduler: timers that are due together fire in the order they were made.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count

import trio

from runtime.meter import Meter


class Timer:
    """One future call; `cancel()` takes it back."""

    __slots__ = ("_fn", "_timers", "deadline")

    def __init__(self, timers: Timers, deadline: float, fn: Callable[[], None]) -> None:
        self.deadline = deadline
        self._timers = timers
        self._fn: Callable[[], None] | None = fn

    @property
    def pending(self) -> bool:
        """Neither fired nor cancelled."""
        return self._fn is not None

    def cancel(self) -> None:
        """Never fire. Harmless when it fired already."""
        if self._fn is not None:
            self._fn = None
            self._timers._cancelled += 1
            self._timers._compact()

    def _fire(self) -> None:
        fn, self._fn = self._fn, None
        if fn is not None:
            fn()
        else:
            self._timers._cancelled -= 1


class Timers:
    """Timers of one server, fired by its `run` task. What they call must be short and must not raise.

    Args:
        meter: is told how late they are.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        self._meter = meter
        self._heap: list[tuple[float, int, Timer]] = []
        self._ages = count()
        self._cancelled = 0
        self._sleeps_until = -math.inf
        self._earlier = trio.Event()

    def call_at(self, deadline: float, fn: Callable[[], None]) -> Timer:
        """Call `fn` at a trio time; one that has passed fires at the next turn of the loop."""
        timer = Timer(self, deadline, fn)
        heapq.heappush(self._heap, (deadline, next(self._ages), timer))
        if deadline < self._sleeps_until:
            self._sleeps_until = -math.inf
            self._earlier.set()
        return timer

    def call_after(self, seconds: float, fn: Callable[[], None]) -> Timer:
        """Call `fn` after so many seconds."""
        return self.call_at(trio.current_time() + seconds, fn)

    async def run(self) -> None:
        """Fire timers until cancelled."""
        now = trio.current_time()
        while True:
            while self._heap and self._heap[0][0] <= now:
                heapq.heappop(self._heap)[2]._fire()
            self._earlier = trio.Event()
            due = self._sleeps_until = self._heap[0][0] if self._heap else math.inf
            with trio.move_on_at(due) as scope:
                await self._earlier.wait()
            self._sleeps_until = -math.inf
            now = trio.current_time()
            if scope.cancelled_caught and self._meter is not None:
                self._meter.timer(now - due)

    def _compact(self) -> None:
        # Without this a timer that is set and cancelled all the time would grow the heap without bound.
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].pending]
            heapq.heapify(self._heap)
            self._cancelled = 0
