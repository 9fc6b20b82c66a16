"""When to try again: full jitter after trouble, the server's window after a planned move (section 2.13)."""

from __future__ import annotations

from collections.abc import Callable

import attrs

BASE_MS = 500
CAP_MS = 30_000
HEALTHY_MS = 10_000
WINDOW_MS = (0, 1_000)


def backoff_ms(attempt: int, draw: float) -> float:
    """`draw` in [0, 1) of the bound after `attempt` failures, counted from 0: 500 ms doubling up to 30 s."""
    return draw * min(CAP_MS, BASE_MS * (1 << min(attempt, 16)))


def drawn(window: tuple[float, float], draw: float) -> float:
    """`draw` in [0, 1) of the way through a window."""
    return window[0] + draw * (window[1] - window[0])


@attrs.define(eq=False)
class Backoff:
    """Counts the failures of one client in a row: a connection that was healthy for 10 s ends the row.

    So does one whose end was planned, or a server that is restarted often would see its clients later each time.
    """

    random: Callable[[], float]
    failures: int = 0

    def ended(self, uptime_ms: float, *, planned: bool = False) -> None:
        """A connection that had been welcomed has ended."""
        if planned or uptime_ms >= HEALTHY_MS:
            self.failures = 0

    def delay_ms(self, window: tuple[float, float] | None = None, retry_after_ms: float | None = None) -> float:
        """How long to wait before the next attempt; counts a failure, unless the move was planned.

        Args:
            window: of a planned move. retry_after_ms: what a refused handshake asked for; it wins.
        """
        draw = self.random()
        if window is not None and retry_after_ms is None:
            return drawn(window, draw)
        self.failures += 1
        if retry_after_ms is not None:
            return drawn((retry_after_ms, retry_after_ms + WINDOW_MS[1]), draw)
        return backoff_ms(self.failures - 1, draw)
