"""How older sockets of a session end once a newer one has everything that they had (signals.v1, section 2.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from actors.protocol.codes import CloseCode
from actors.session import Connection
from actors.stream import shard_name, stream_of
from runtime import ActorError, Context, Namespace, Timeout

if TYPE_CHECKING:
    from actors.connections import ConnectionManager

REPLACES_S = 5.0  # so long a newer one may take to be live with everything
ATTEMPTS = 6
AGAIN_S = 0.05


@attrs.define(eq=False)
class Replacing:
    """The sessions of one shard's sockets; the older sockets of one may be in any shard of the stream.

    Args:
        ctx: the shard's. shard: its name. shards: all of them. count: how many of them a stream has.
    """

    ctx: Context
    shard: str
    shards: Namespace[ConnectionManager]
    count: int
    _sockets: dict[str, dict[Connection, None]] = attrs.field(factory=dict[str, dict[Connection, None]], init=False)
    _due: dict[Connection, Timeout] = attrs.field(factory=dict[Connection, Timeout], init=False)

    def add(self, connection: Connection) -> None:
        """A socket that was welcomed, or is from before this instance."""
        if connection.closed:
            return
        state = connection.machine.state
        self._sockets.setdefault(state.session, {})[connection] = None
        if state.replaces:
            self._due[connection] = self.ctx.set_timeout(REPLACES_S, self._replace, connection)

    def live(self, connection: Connection) -> None:
        """Every subscription of a socket is live."""
        if (timeout := self._due.get(connection)) is not None:
            timeout.cancel()
            self.ctx.start_soon(self._replace, connection)

    def leave(self, connection: Connection) -> None:
        """A socket has ended."""
        if (timeout := self._due.pop(connection, None)) is not None:
            timeout.cancel()
        session = connection.machine.state.session
        sockets = self._sockets.get(session, {})
        sockets.pop(connection, None)
        if not sockets:
            self._sockets.pop(session, None)

    def end(self, session: str, number: int) -> None:
        """Close what is older than the socket of this number."""
        for connection in list(self._sockets.get(session, ())):
            if connection.machine.state.number < number and not connection.closed:
                self.ctx.point("an older socket of a session is replaced")
                connection.close(CloseCode.REPLACED, "a newer socket of this session")

    async def _replace(self, connection: Connection) -> None:
        if self._due.pop(connection, None) is None:
            return
        state = connection.machine.state
        self.end(state.session, state.number)
        for number in range(self.count):
            name = shard_name(number, stream_of(self.shard))
            if name != self.shard:
                await self._tell(name, state.session, state.number)
        connection.machine.replaced()
        connection.remember()

    async def _tell(self, shard: str, session: str, number: int) -> None:
        for attempt in range(ATTEMPTS):
            try:
                await self.shards.get_by_name(shard).replaced(session, number)
            except ActorError:
                await self.ctx.sleep(AGAIN_S * 2**attempt)
            else:
                return
        # An older socket that nobody reads from ends by its heartbeat.
