"""Which instances were destroyed lately, and why: what an operator looks at first."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Literal

import attrs

from runtime.errors import ActorReset, StorageFailed
from runtime.ids import ActorId

KEPT = 256
ERROR_CHARACTERS = 500
Reason = Literal["storage", "reset", "error"]
"""A commit failed; it was aborted, or a critical section took too long; any other error of its own code."""


@attrs.frozen
class Failure:
    """One destroyed instance.

    Attributes:
        actor: whose. at: wall clock, seconds. error: what destroyed it, shortened.
    """

    actor: ActorId
    at: float
    error: str


class Failures:
    """The newest of them, at most 256.

    Attributes:
        totals: how many there were, by namespace and reason.
    """

    def __init__(self) -> None:
        self._newest: deque[Failure] = deque(maxlen=KEPT)
        self.totals: Counter[tuple[str, Reason]] = Counter()

    def __iter__(self) -> Iterator[Failure]:
        """The newest first."""
        return reversed(self._newest)

    def note(self, actor: ActorId, at: float, error: Exception) -> None:
        """One more."""
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        self.totals[actor.namespace, _reason(error)] += 1
        self._newest.append(Failure(actor, at, text[:ERROR_CHARACTERS]))


def _reason(error: Exception) -> Reason:
    if isinstance(error, StorageFailed):
        return "storage"
    return "reset" if isinstance(error, ActorReset) else "error"
