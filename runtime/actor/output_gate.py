"""The output gate: nothing leaves an actor before what it could have observed is durable.

Every effect (a reply, a call, a frame) carries the number of the newest batch that was written before it. It leaves
at the end of its turn when that batch is durable, and else in order when it becomes so. An instance that is destroyed
within the turn has sent nothing of it. (Durable Objects: output gates.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from runtime import limits
from runtime.errors import Overloaded

Effect = Callable[[], None]
Dropped = Callable[[Exception], None]
Entry = tuple[int, Effect, Dropped | None]


class OutputGate:
    """Effects of one instance, in order, behind its batches."""

    __slots__ = ("_broken", "_durable", "_held", "_required", "_turn")

    def __init__(self) -> None:
        self._required = 0
        self._durable = 0
        self._held: deque[Entry] | None = None  # None while empty, as mostly
        self._turn: list[Entry] | None = None
        self._broken = False

    @property
    def open(self) -> bool:
        """Nothing is held back and nothing needs to be."""
        return self._required <= self._durable and self._held is None and self._turn is None

    @property
    def turn_has_effects(self) -> bool:
        """The running turn has emitted something."""
        return self._turn is not None

    def __len__(self) -> int:
        return 0 if self._held is None else len(self._held)

    def shut(self, sequence: int) -> None:
        """Effects from now on wait for this batch."""
        self._required = sequence

    def check_room(self) -> None:
        """Refuse one more effect of the actor's own when too many are held already.

        Raises:
            Overloaded: with the bound.
        """
        if self._held is not None and len(self._held) >= limits.HELD_EFFECTS:
            raise Overloaded(
                f"{len(self._held):,} effects wait for storage; at most {limits.HELD_EFFECTS:,} "
                "(limits.HELD_EFFECTS): await something before sending more"
            )

    def emit(self, effect: Effect, dropped: Dropped | None = None) -> None:
        """Let an effect out now or behind those that are held; `dropped` is told when it never will leave."""
        if self._broken:
            return
        if self._turn is not None:
            self.end_turn()
        if self._held is None and self._required <= self._durable:
            effect()
        else:
            self._hold(((self._required, effect, dropped),))

    def emit_in_turn(self, effect: Effect, dropped: Dropped | None = None) -> None:
        """Let an effect out when the turn ends, or before when the turn has many."""
        if self._turn is None:
            self._turn = []
        self._turn.append((self._required, effect, dropped))
        if len(self._turn) >= limits.TURN_EFFECTS:
            self.end_turn()

    def emit_aside(self, effect: Effect) -> None:
        """Let out what no handler made: behind what was emitted before it, and at once when nothing waits.

        It begins no turn's effects: a broadcast under way would otherwise be held back to the turn's end.
        """
        if self._turn is not None:
            self.emit_in_turn(effect)
        elif self._held and len(self._held) < limits.HELD_EFFECTS:
            self._held.append((self._held[-1][0], effect, None))
        else:
            effect()

    def end_turn(self) -> None:
        """The turn is let go: its effects leave or are held."""
        turn, self._turn = self._turn or (), None
        if self._held is None and self._required <= self._durable:
            for _, effect, _ in turn:
                effect()
        else:
            self._hold(turn)
            self._release()

    def _hold(self, entries: Iterable[Entry]) -> None:
        if self._held is None:
            self._held = deque()
        self._held.extend(entries)

    def durable(self, sequence: int) -> None:
        """A batch and all before it are durable: release what waited for them."""
        self._durable = max(self._durable, sequence)
        self._release()

    def _release(self) -> None:
        held = self._held
        if held is None:
            return
        while held and held[0][0] <= self._durable:
            held.popleft()[1]()
        if not held and self._held is held:
            self._held = None

    def break_(self, error: Exception) -> None:
        """Nothing leaves any more; what was held is dropped."""
        self._broken = True
        dropped_now = (*(self._held or ()), *(self._turn or ()))
        if self._held is not None:
            self._held.clear()
        self._turn = None
        for _, _, dropped in dropped_now:
            if dropped is not None:
                dropped(error)
