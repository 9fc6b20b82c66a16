"""What a server measures of itself while it runs: turns, mailboxes, commits, and how late its timers are.

Only totals that grow, in as many histograms as there are actor classes and kinds of storage.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import ClassVar

import attrs

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
EVENTS = (0, 1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)


@attrs.define(eq=False)
class Histogram:
    """How many values there were up to each bound; the last place has those beyond all of them.

    Attributes:
        bounds: ascending. counts: one more than bounds. total: the sum of all values.
    """

    bounds: Sequence[float]
    counts: list[int] = attrs.field(init=False)
    total: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def note(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@attrs.define(eq=False)
class Meter:
    """What was measured since the server began.

    Attributes:
        turns: how long an actor kept its turn, in seconds, by class; of one turn of 64.
        mailboxes: how many events waited at the end of those turns, by class.
        commits: how long a group of writes took to become durable, in seconds, by kind of storage.
        timers: how late the server's timers fired, in seconds: what else is to run waits as long.
        TURNS: one turn of so many is measured, a power of two. Two looks at the clock would make each of them a tenth
            longer.
    """

    TURNS: ClassVar[int] = 64

    turns: dict[str, Histogram] = attrs.field(factory=dict, init=False)
    mailboxes: dict[str, Histogram] = attrs.field(factory=dict, init=False)
    commits: dict[str, Histogram] = attrs.field(factory=dict, init=False)
    timers: Histogram = attrs.field(factory=lambda: Histogram(SECONDS), init=False)
    _gates: int = attrs.field(default=0, init=False)

    def first_turn(self) -> int:
        """What a gate counts its turns from, so that of many actors with few turns no turn is measured more often."""
        self._gates += 1
        return self._gates % self.TURNS

    def turn(self, actor_class: str, seconds: float, waiting: int) -> None:
        """A turn has ended."""
        turns = self.turns.get(actor_class)
        if turns is None:
            turns = self.turns[actor_class] = Histogram(SECONDS)
            self.mailboxes[actor_class] = Histogram(EVENTS)
        turns.note(seconds)
        self.mailboxes[actor_class].note(waiting)

    def commit(self, storage: str, seconds: float) -> None:
        """A group of writes is durable, or has failed."""
        commits = self.commits.get(storage)
        if commits is None:
            commits = self.commits[storage] = Histogram(SECONDS)
        commits.note(seconds)

    def timer(self, late_s: float) -> None:
        """A timer has fired."""
        self.timers.note(late_s)
