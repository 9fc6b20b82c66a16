"""How single connections of a shard end, or are sent elsewhere: their clients know first how far they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import attrs

from actors.moving import STEP_S, Departure
from actors.protocol.codes import CloseCode
from actors.reach import StreamReach
from actors.session import Connection
from actors.settings import ConnectionSettings
from actors.shard_groups import ShardGroups
from runtime import ActorError, Context


@attrs.frozen
class Words:
    """What a connection is closed with."""

    code: int
    reason: str


@attrs.frozen(eq=False)
class Parting:
    """Ends connections; a quiet subscription gets its newest cursor before (signals.v1, section 2.5, rule 5).

    Args:
        ctx: the shard's. stream: the way to the broadcaster. groups: those of the shard.
        settings: how clients are sent elsewhere. shards: that share the rate of that.
    """

    ctx: Context
    stream: StreamReach
    groups: ShardGroups
    settings: ConnectionSettings
    shards: int

    async def close(self, connections: Mapping[Connection, Words]) -> None:
        """Close them."""
        await self._settle(connections)
        for connection, words in connections.items():
            if connection.closed:
                continue
            if texts := self.groups.rest(connection):
                connection.send("\n".join(texts))
            connection.close(words.code, words.reason)

    async def send_away(self, connections: Sequence[Connection]) -> None:
        """Let their clients connect anew, without a loss where they know how."""
        await self._settle(connections)
        departure = Departure(connections, CloseCode.REBALANCE, self.settings, self.shards)
        while True:
            await self.ctx.sleep(STEP_S)  # the newest cursors leave before the first one is asked
            if not departure.step():
                return

    async def _settle(self, connections: Iterable[Connection]) -> None:
        groups = tuple({group for one in connections for group in one.groups})
        if groups:
            with suppress(ActorError):  # then it reads a little more when it comes back
                await self.stream.settle(groups)
