"""The output gate: nothing leaves an actor before what it could have observed is durable.

Every effect (a reply, a call, a frame) carries the number of the newest batch that was written before it. It leaves
at once when that batch is durable, and else in order when it becomes so. (Durable Objects: output gates.)
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

    __slots__ = ("_broken", "_durable", "_held", "_required")

    def __init__(self) -> None:
        self._required = 0
        self._durable = 0
        self._held: deque[tuple[int, Effect, Dropped | None]] = deque()
        self._broken = False

    @property
    def open(self) -> bool:
        """Nothing is held back and nothing needs to be."""
        return not self._held and self._required <= self._durable

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
        """Let an effect out now or when its turn comes; `dropped` is told when it never will."""
        if self._broken:
            return
        if not self._held and self._required <= self._durable:
            effect()
        else:
            self._held.append((self._required, effect, dropped))

    def durable(self, sequence: int) -> None:
        """A batch and all before it are durable: release what waited for them."""
        self._durable = max(self._durable, sequence)
        while self._held and self._held[0][0] <= self._durable:
            self._held.popleft()[1]()

    def break_(self, error: Exception) -> None:
        """Nothing leaves any more; what was held is dropped."""
        self._broken = True
        held, self._held = self._held, deque()
        for _, _, dropped in held:
            if dropped is not None:
                dropped(error)
