"""What must always hold of any app: the rows of the published table of guarantees, each watched by a class of its own.

Those about storage and about alarms are in files of their own; `CLAIMS` has all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import trio

from runtime import limits
from runtime.actor.cell import Cell
from runtime.ids import ActorId
from runtime.sim.claim import Broken, Claim
from runtime.sim.claims_of_alarms import AlarmGoesWithItsEffect, AlarmNeverEarly, AlarmNotLost, AlarmPauses
from runtime.sim.claims_of_storage import (
    AcknowledgedIsSynced,
    AcknowledgedStays,
    DamageIsRefused,
    RecoveryChangesNothing,
)
from runtime.storage.store import ReadHandle


@attrs.define(eq=False)
class OneInstance(Claim):
    """At most one live instance for an id."""

    row = "G1"

    _live: dict[ActorId, tuple[Cell, int]] = attrs.field(factory=dict, init=False)

    def began(self, life: int, cell: Cell, event: int) -> None:
        """An instance was made."""
        self.checked += 1
        other = self._live.get(cell.id)
        if other is not None:
            self.broken(f"{cell.id!r} has two live instances", other[1], event)
        self._live[cell.id] = cell, event

    def ended(self, life: int, cell: Cell, event: int) -> None:
        """An instance was evicted or destroyed."""
        if self._live.get(cell.id, (None, 0))[0] is cell:
            del self._live[cell.id]

    def died(self, life: int, event: int) -> None:
        """All are gone."""
        self._live.clear()


@attrs.define(eq=False)
class OneTurn(Claim):
    """One handler of an instance runs at a time."""

    row = "G2"

    _holders: dict[object, int] = attrs.field(factory=dict, init=False)

    def turn_taken(self, cell: Cell, gate: object, event: int) -> None:
        """A handler has the turn."""
        self.checked += 1
        other = self._holders.get(gate)
        if other is not None:
            self.broken(f"two handlers of {cell.id!r} have the turn at the same time", other, event)
        self._holders[gate] = event

    def turn_let_go(self, cell: Cell, gate: object, event: int) -> None:
        """It has let it go."""
        self._holders.pop(gate, None)

    def died(self, life: int, event: int) -> None:
        """Nobody runs."""
        self._holders.clear()


@attrs.define(eq=False)
class NothingLeavesEarly(Claim):
    """Nothing leaves an actor before every write that it could be based on is durable; checked as it leaves."""

    row = "G5"

    _durable: dict[Cell, int] = attrs.field(factory=dict, init=False)

    def durable(self, cell: Cell, sequence: int, event: int) -> None:
        """Batches are durable."""
        self._durable[cell] = sequence

    def left(self, cell: Cell, needed: int, since: int, event: int) -> None:
        """An effect has left."""
        self.checked += 1
        durable = self._durable.get(cell, 0)
        if durable < needed:
            text = f"an effect of {cell.id!r} left when its batch {needed} was not durable (newest that is: {durable})"
            self.broken(text, since, event)

    def died(self, life: int, event: int) -> None:
        """Nobody is left."""
        self._durable.clear()


@attrs.define(eq=False)
class DeliveredOnce(Claim):
    """A call begins once at most, and never when it was refused."""

    row = "G3 G9"

    _begun: dict[object, int] = attrs.field(factory=dict, init=False)
    _refused: dict[object, int] = attrs.field(factory=dict, init=False)

    def call_refused(self, call: object, event: int) -> None:
        """A call was turned away."""
        self.checked += 1
        self._refused[call] = event

    def call_began(self, call: object, stub: object, cell: Cell, event: int) -> None:
        """A call begins to run."""
        self.checked += 1
        if call in self._refused:
            self.broken(f"a call of {cell.id!r} was refused and runs all the same", self._refused[call], event)
        if call in self._begun:
            self.broken(f"a call of {cell.id!r} was delivered twice", self._begun[call], event)
        self._begun[call] = event

    def died(self, life: int, event: int) -> None:
        """Nothing is on its way."""
        self._begun.clear()
        self._refused.clear()


@attrs.define(eq=False)
class InOrder(Claim):
    """Calls made through one stub begin in the order in which they were made."""

    row = "G4"

    _made: dict[object, int] = attrs.field(factory=dict, init=False)
    _newest: dict[object, tuple[int, int]] = attrs.field(factory=dict, init=False)

    def call_made(self, stub: object, call: object, event: int) -> None:
        """A call was made through a stub."""
        self._made[call] = event

    def call_began(self, call: object, stub: object, cell: Cell, event: int) -> None:
        """A call begins to run."""
        made = self._made.pop(call, None)
        if made is None:
            return
        self.checked += 1
        newest, begun = self._newest.get(stub, (0, 0))
        if made < newest:
            self.broken(
                f"a call of {cell.id!r} was made before another through the same stub and began after it", begun, event
            )
        self._newest[stub] = made, event

    def died(self, life: int, event: int) -> None:
        """Nothing is on its way."""
        self._made.clear()
        self._newest.clear()


@attrs.define(eq=False)
class WithinBounds(Claim):
    """A mailbox never has more calls than its bound, and every place in it is given back."""

    row = "G9"

    PATIENCE_S = 60.0  # a mailbox that has not been empty for so long, when nobody sends much any more

    _taken: dict[ActorId, tuple[float, int]] = attrs.field(factory=dict, init=False)

    def mailbox(self, actor: ActorId, calls: int, event: int) -> None:
        """One more call has a place, or one less."""
        self.checked += 1
        if calls > limits.MAILBOX_EVENTS:
            self.broken(f"{calls:,} calls wait for {actor!r}; at most {limits.MAILBOX_EVENTS:,}", event, event)
        if not calls:
            self._taken.pop(actor, None)
        elif actor not in self._taken:
            self._taken[actor] = trio.current_time(), event

    def died(self, life: int, event: int) -> None:
        """All are empty."""
        self._taken.clear()

    def opened(self, read: Callable[[ActorId], ReadHandle], event: int) -> None:
        """Another process has begun."""
        self._taken.clear()

    def patience_s(self, now: float) -> float:
        """Until a place that is taken now would be lost."""
        return self.PATIENCE_S + 1.0 if self._taken else 0.0

    def finished(self, now: float, event: int) -> None:
        """Everybody has had time to finish."""
        for actor, (since, taken) in self._taken.items():
            waits = trio.current_time() - since
            if waits > self.PATIENCE_S:
                self.broken(f"a place in the mailbox of {actor!r} has been taken for {waits:.1f} s", taken, event)


CLAIMS: Sequence[type[Claim]] = (
    OneInstance,
    OneTurn,
    DeliveredOnce,
    InOrder,
    NothingLeavesEarly,
    AcknowledgedIsSynced,
    AcknowledgedStays,
    DamageIsRefused,
    RecoveryChangesNothing,
    AlarmNeverEarly,
    AlarmNotLost,
    AlarmPauses,
    AlarmGoesWithItsEffect,
    WithinBounds,
)
"""The claims that hold of every app."""


def make_claims(classes: Sequence[type[Claim]], broken: Broken) -> list[Any]:
    """One of each."""
    return [cls(broken) for cls in classes]
