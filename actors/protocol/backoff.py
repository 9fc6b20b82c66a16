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
    """Counts the retries of one client; only a connection that stayed healthy for 10 s starts the count again."""

    random: Callable[[], float]
    attempts: int = 0

    def ended(self, uptime_ms: float) -> None:
        """A connection that had been welcomed has ended."""
        if uptime_ms >= HEALTHY_MS:
            self.attempts = 0

    def delay_ms(self, window: tuple[float, float] | None = None, retry_after_ms: float | None = None) -> float:
        """How long to wait before the next attempt, which this counts.

        Args:
            window: of a planned move. retry_after_ms: what a refused handshake asked for; it wins.
        """
        if retry_after_ms is not None:
            window = (retry_after_ms, retry_after_ms + WINDOW_MS[1])
        draw = self.random()
        delay = backoff_ms(self.attempts, draw) if window is None else drawn(window, draw)
        self.attempts += 1
        return delay
