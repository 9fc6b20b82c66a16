"""How a shard reaches the broadcaster: whatever instance of it is alive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import attrs

from actors.groups import Page
from actors.stream import stream_of
from runtime import ActorError, ActorId, Context, Namespace

if TYPE_CHECKING:
    from actors.broadcaster import SignalBroadcaster

T = TypeVar("T")

ASK_AGAIN = 6
ASK_AGAIN_S = 0.05


@attrs.define(eq=False)
class StreamReach:
    """Calls of one shard to the broadcaster; each through a new stub, so the end of an instance ends nothing here.

    Args:
        ctx: the shard's. broadcasters: where the broadcaster lives.

    Attributes:
        asking: subscriptions that are on their way.
    """

    ctx: Context
    broadcasters: Namespace[SignalBroadcaster]
    asking: int = 0
    _id: ActorId = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._id = self.broadcasters.id_from_name(stream_of(self.shard))

    @property
    def shard(self) -> str:
        """The name that the broadcaster knows this shard by."""
        name = self.ctx.id.name
        assert name is not None, "a shard is reached by name"
        return name

    async def ask(self, call: Callable[[SignalBroadcaster], Awaitable[T]]) -> T:
        """Make a call that may be repeated; it is, some 3 s long, when the instance ends in between.

        Raises: ActorError, of the last attempt.
        """
        for attempt in range(ASK_AGAIN):
            try:
                return await call(self._stub())
            except ActorError:
                if attempt == ASK_AGAIN - 1:
                    raise
            self.ctx.point("a shard asks again")
            await self.ctx.sleep(ASK_AGAIN_S * 2**attempt)
        raise AssertionError

    async def page(self, group: int, after: int) -> Page | None:
        """A piece of the log for a group. Raises: ActorError."""
        return await self.ask(lambda stream: stream.page(group, after))

    async def settle(self, groups: tuple[int, ...] | None = None) -> None:
        """Let the cursors of these groups, or of all, move to the head if they are quiet. Raises: ActorError."""
        await self.ask(lambda stream: stream.settle(groups))

    def leave(self, groups: list[int]) -> None:
        """Say that nobody here listens to these groups; if it is not heard, the next frame for them repeats it."""
        if not groups or self.asking:
            return  # a subscription on its way may be for one of them
        try:
            self.ctx.notify(self._stub().leave, self.shard, tuple(groups))
        except ActorError:
            self.ctx.log.info("the broadcaster is busy; it hears later who left", groups=len(groups))

    def _stub(self) -> SignalBroadcaster:
        return self.broadcasters.get(self._id)
