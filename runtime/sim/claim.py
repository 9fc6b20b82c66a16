"""Something that must always hold: what it hears of, and how it says that it does not.

A claim hears of what happens through its methods and calls `broken` with the two events that contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from runtime.actor.cell import Cell
from runtime.ids import ActorId
from runtime.storage.store import ReadHandle, WriteBatch

Broken = Callable[["Claim", str, int, int], None]


@attrs.frozen
class Violation:
    """A claim that does not hold.

    Attributes:
        claim: its name, with the row of the table. text: what was seen.
        first, second: the numbers of the events that contradict each other; 0: none.
    """

    claim: str
    text: str
    first: int = 0
    second: int = 0


@attrs.define(eq=False)
class Claim:
    """Something that must hold; hears of everything, and says when it does not.

    Attributes:
        row: of the table of guarantees.
        checked: how often it had something to compare.
    """

    row = ""

    _broken: Broken = attrs.field(alias="broken")
    checked: int = attrs.field(default=0, init=False)

    @property
    def name(self) -> str:
        """For reports."""
        return f"{self.row} {type(self).__name__}"

    def broken(self, text: str, first: int, second: int) -> None:
        """It does not hold."""
        self._broken(self, text, first, second)

    def began(self, life: int, cell: Cell, event: int) -> None:
        """An instance was made, in the so manieth process."""

    def ended(self, life: int, cell: Cell, event: int) -> None:
        """An instance was evicted or destroyed."""

    def turn_taken(self, cell: Cell, gate: object, event: int) -> None:
        """A handler has the turn of a gate."""

    def turn_let_go(self, cell: Cell, gate: object, event: int) -> None:
        """It has let it go."""

    def wrote(self, cell: Cell, sequence: int, event: int) -> None:
        """A handler wrote something that is to be waited for, into this batch."""

    def durable(self, cell: Cell, sequence: int, event: int) -> None:
        """The instance was told that its batches up to this one are durable."""

    def left(self, cell: Cell, needed: int, since: int, event: int) -> None:
        """An effect has left an actor that may be based on its batches up to `needed`, written at the event `since`."""

    def submitted(self, batch: WriteBatch, event: int) -> None:
        """A batch is on its way to the store."""

    def acknowledged(self, batch: WriteBatch, unsynced: int, event: int) -> None:
        """The store says that it is durable; so many operations on its log are not."""

    def refused(self, batch: WriteBatch, event: int) -> None:
        """The store says that it is not stored."""

    def died(self, life: int, event: int) -> None:
        """The process ended without a word."""

    def damage_met(self, served: bool, event: int) -> None:
        """A page in which a bit has flipped was needed to read what is stored; it was served, or refused."""

    def opened(self, read: Callable[[ActorId], ReadHandle], event: int) -> None:
        """The store was opened again."""

    def alarm_began(self, actor: ActorId, scheduled: float, tries: int, now: float, event: int) -> None:
        """An alarm handler begins, after so many tries that failed."""

    def call_made(self, stub: object, call: object, event: int) -> None:
        """A call was made through a stub."""

    def call_refused(self, call: object, event: int) -> None:
        """A call was turned away with `Overloaded` before it began."""

    def call_began(self, call: object, stub: object, cell: Cell, event: int) -> None:
        """A call begins to run."""

    def mailbox(self, actor: ActorId, calls: int, event: int) -> None:
        """So many calls have a place in an actor's mailbox, after one more or one less."""

    def alarm_deleted(self, actor: ActorId, event: int) -> None:
        """Code of the actor deletes its alarm, or says that it is not to be tried again."""

    def alarm_given_up(self, actor: ActorId, event: int) -> None:
        """The runtime deletes an alarm that failed too often."""

    def alarm_ended(self, actor: ActorId, failed: bool, now: float, event: int) -> None:
        """An alarm handler has ended."""

    def clock_set(self, before: float, event: int) -> None:
        """The wall clock of a node, which showed `before`, was set to another time."""

    def patience_s(self, now: float) -> float:
        """How long the world is to go on before `finished`."""
        return 0.0

    def finished(self, now: float, event: int) -> None:
        """Faults are over, and everybody has had time to finish."""


class Audience:
    """The claims of a run: `audience.died(…)` tells all those that have a `died` of their own."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self.claims = claims

    def __getattr__(self, hook: str) -> Callable[..., None]:
        silent = getattr(Claim, hook)
        listeners = [getattr(claim, hook) for claim in self.claims if getattr(type(claim), hook) is not silent]

        def tell(*args: object) -> None:
            for listener in listeners:
                listener(*args)

        told: Callable[..., None] = listeners[0] if len(listeners) == 1 else tell
        self.__dict__[hook] = told  # asked for once
        return told
