"""The output gate: nothing leaves an actor before what it could have observed is durable.

Every effect (a reply, a call, a frame) carries the number of the newest batch that was written before it. It leaves
at the end of its turn when that batch is durable, and else in order when it becomes so. An instance that is destroyed
within the turn has sent nothing of it. (Durable Objects: output gates.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from runtime import limits
from runtime.errors import Overloaded

Effect = Callable[[], None]
Dropped = Callable[[Exception], None]


class OutputGate:
    """Effects of one instance, in order, behind its batches."""

    __slots__ = ("_broken", "_durable", "_held", "_required", "_turn")

    def __init__(self) -> None:
        self._required = 0
        self._durable = 0
        self._held: deque[tuple[int, Effect, Dropped | None]] = deque()
        self._turn: list[tuple[int, Effect, Dropped | None]] = []
        self._broken = False

    @property
    def open(self) -> bool:
        """Nothing is held back and nothing needs to be."""
        return not self._held and not self._turn and self._required <= self._durable

    @property
    def turn_has_effects(self) -> bool:
        """The running turn has emitted something."""
        return bool(self._turn)

    def __len__(self) -> int:
        return len(self._held)

    def shut(self, sequence: int) -> None:
        """Effects from now on wait for this batch."""
        self._required = sequence

    def check_room(self) -> None:
        """Refuse one more effect of the actor's own when too many are held already.

        Raises:
            Overloaded: with the bound.
        """
        if len(self._held) >= limits.HELD_EFFECTS:
            raise Overloaded(
                f"{len(self._held):,} effects wait for storage; at most {limits.HELD_EFFECTS:,} "
                "(limits.HELD_EFFECTS): await something before sending more"
            )

    def emit(self, effect: Effect, dropped: Dropped | None = None) -> None:
        """Let an effect out now or behind those that are held; `dropped` is told when it never will leave."""
        if self._broken:
            return
        if self._turn:
            self.end_turn()
        if not self._held and self._required <= self._durable:
            effect()
        else:
            self._held.append((self._required, effect, dropped))

    def emit_in_turn(self, effect: Effect, dropped: Dropped | None = None) -> None:
        """Let an effect out when the turn ends, or before when the turn has many."""
        self._turn.append((self._required, effect, dropped))
        if len(self._turn) >= limits.TURN_EFFECTS:
            self.end_turn()

    def emit_aside(self, effect: Effect) -> None:
        """Let out what no handler made: behind what was emitted before it, and at once when nothing waits.

        It begins no turn's effects: a broadcast under way would otherwise be held back to the turn's end.
        """
        if self._turn:
            self.emit_in_turn(effect)
        elif 0 < len(self._held) < limits.HELD_EFFECTS:
            self._held.append((self._held[-1][0], effect, None))
        else:
            effect()

    def end_turn(self) -> None:
        """The turn is let go: its effects leave or are held."""
        turn, self._turn = self._turn, []
        if not self._held and self._required <= self._durable:
            for _, effect, _ in turn:
                effect()
        else:
            self._held.extend(turn)
            self._release()

    def durable(self, sequence: int) -> None:
        """A batch and all before it are durable: release what waited for them."""
        self._durable = max(self._durable, sequence)
        self._release()

    def _release(self) -> None:
        while self._held and self._held[0][0] <= self._durable:
            self._held.popleft()[1]()

    def break_(self, error: Exception) -> None:
        """Nothing leaves any more; what was held is dropped."""
        self._broken = True
        held, self._held, turn, self._turn = self._held, deque(), self._turn, []
        for _, _, dropped in (*held, *turn):
            if dropped is not None:
                dropped(error)
