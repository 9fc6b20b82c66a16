"""How long a client may say nothing, on trio's clock: no wall clock that is set makes that longer or shorter."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from runtime.timers import Timers


class SilenceLimit:
    """Finds out that nothing was heard for so many seconds, at most a second later.

    What is heard costs no more than a look at the clock: the timer runs to its end and then asks again.

    Args:
        over: called with code and reason when it was silent for so long. False: that does not count, and the time
            begins anew.
        code, reason: what for.
    """

    __slots__ = ("_code", "_heard_at", "_limit_s", "_over", "_reason", "_timer", "_timers")

    def __init__(
        self, timers: Timers, limit_s: float, over: Callable[[int, str], bool], code: int, reason: str
    ) -> None:
        self._timers = timers
        self._limit_s = limit_s
        self._over = over
        self._code = code
        self._reason = reason
        self._heard_at = trio.current_time()
        self._arm()

    def heard(self) -> None:
        """Something came."""
        self._heard_at = trio.current_time()

    def cancel(self) -> None:
        """Nobody asks any more."""
        self._timer.cancel()

    def _arm(self) -> None:
        # In whole seconds, so that thousands of idle connections wake the loop once in a second.
        self._timer = self._timers.call_at(math.ceil(self._heard_at + self._limit_s), self._due)

    def _due(self) -> None:
        if trio.current_time() < self._heard_at + self._limit_s:
            self._arm()
        elif not self._over(self._code, self._reason):
            self.heard()
            self._arm()
