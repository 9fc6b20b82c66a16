"""Waiting for other processes, in real time."""

import time
from collections.abc import Callable

PATIENCE_S = 240


def wait_until(condition: Callable[[], object]) -> None:
    """Return once it holds. Raises: AssertionError after four minutes."""
    end = time.monotonic() + PATIENCE_S  # noqa: TID251 - another process
    while not condition():
        assert time.monotonic() < end, "waited for four minutes"  # noqa: TID251
        time.sleep(0.02)
