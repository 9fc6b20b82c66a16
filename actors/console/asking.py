"""Asking actors how they are without keeping them busy, or in memory, by that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import attrs
import trio

from runtime import ActorId, Operator

SAME_S = 1e-6
TRUSTED_S = 5.0  # an actor leaves memory only after ten idle seconds, and cannot have come and gone in so few

T = TypeVar("T")


@attrs.frozen
class _Answer(Generic[T]):
    value: T
    idle_since: float | None
    looked_at: float


@attrs.define(eq=False)
class Asking(Generic[T]):
    """The newest answers of some actors, each of which is asked again only once something has run in it.

    Args:
        operator: sees whether it has. event: what asking is called among an actor's events.
        rests: whether an answer stays what it is while nothing runs.
    """

    operator: Operator
    event: str
    rests: Callable[[T], bool] = lambda _: True
    _answers: dict[ActorId, _Answer[T]] = attrs.field(factory=dict, init=False)

    async def answer(self, namespace: str, name: str, ask: Callable[[], Awaitable[T]]) -> T:
        """What an actor says, or said.

        Raises:
            ActorError: it was asked, and did not answer.
        """
        actor = self.operator.find(namespace, name)
        known = self._answers.get(actor)
        if known is not None and self.rests(known.value) and not self._has_run(actor, known):
            self._answers[actor] = attrs.evolve(known, looked_at=trio.current_time())
            return known.value
        was_idle = self._idle_since(actor) is not None
        value = await ask()
        # What went on while it was asked, or came before this task had the answer, may have changed something since.
        newest = was_idle and self.operator.actor(actor).last_event == self.event
        self._answers[actor] = _Answer(value, self._idle_since(actor) if newest else None, trio.current_time())
        return value

    def _has_run(self, actor: ActorId, known: _Answer[T]) -> bool:
        view = self.operator.actor(actor)
        if view.state == "hibernated":
            return known.idle_since is None or trio.current_time() - known.looked_at > TRUSTED_S
        idle_since = self._idle_since(actor)
        if view.last_event != self.event:
            return True
        return idle_since is None or known.idle_since is None or idle_since > known.idle_since + SAME_S

    def _idle_since(self, actor: ActorId) -> float | None:
        idle_s = self.operator.actor(actor).idle_s
        return None if idle_s is None else trio.current_time() - idle_s
