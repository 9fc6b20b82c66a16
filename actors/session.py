"""What a shard holds of one connection and of one group while it is in memory; all of it can be built again."""

from __future__ import annotations

from collections import deque

import attrs

from actors.protocol.server import ServerMachine
from runtime import PreparedMessage, WebSocket

CHUNK_SOCKETS = 64  # then the rest of the server gets a moment (settled by measurement: longest stall 101 → 15 ms)


@attrs.define(eq=False)
class Connection:
    """One socket of a shard.

    Attributes:
        waiting: frames that came while an earlier one is carried out. busy: one is carried out now.
        catching_up: a task sends it pages. closed: nothing is sent to it any more.
    """

    ws: WebSocket
    machine: ServerMachine
    waiting: deque[str | bytes] = attrs.Factory(deque)
    busy: bool = False
    catching_up: bool = False
    closed: bool = False

    def remember(self) -> None:
        """Keep what the machine knows with the socket."""
        self.ws.serialize_attachment(self.machine.state)

    def send(self, text: str) -> None:
        """Send a text; nothing is sent after close."""
        if not self.closed:
            self.ws.send(text)

    def close(self, code: int, reason: str) -> None:
        """Send a close frame after everything sent so far."""
        self.closed = True
        self.waiting.clear()
        self.ws.close(code, reason)

    @property
    def behind(self) -> list[str]:
        """Subscriptions that are not live yet."""
        return [s for s, sub in self.machine.state.subs.items() if not sub.live]


@attrs.define(eq=False)
class LocalGroup:
    """A filter group as one shard sees it.

    Attributes:
        cursor: the `upto` of the last frame taken from the broadcaster. flushed: of the last one given to the sockets.
        stored: what storage has of that. subscribers: subscriptions of this shard, live or not.
        pending: frames that wait for the flush. healing: frames were missed and are being read from the log.
    """

    number: int
    cursor: int
    flushed: int
    stored: int | None = None
    subscribers: int = 0
    healing: bool = False
    pending: list[bytes] = attrs.Factory(list)
    _members: dict[Connection, int] = attrs.Factory(dict)
    _chunks: tuple[tuple[WebSocket, ...], ...] | None = None

    @classmethod
    def at(cls, number: int, cursor: int) -> LocalGroup:
        """A group without members that stands at this place."""
        return cls(number, cursor, cursor)

    def add(self, connection: Connection) -> None:
        """One more live subscription of a connection."""
        self._members[connection] = self._members.get(connection, 0) + 1
        self._chunks = None

    def remove(self, connection: Connection) -> None:
        """One live subscription less."""
        left = self._members[connection] - 1
        if left:
            self._members[connection] = left
        else:
            del self._members[connection]
            self._chunks = None

    @property
    def members(self) -> list[Connection]:
        """Connections with a live subscription."""
        return list(self._members)

    def take(self) -> tuple[PreparedMessage, tuple[tuple[WebSocket, ...], ...]]:
        """Everything pending as one buffer, and the sockets it goes to, in chunks of at most 64."""
        message = PreparedMessage(b"".join(self.pending))
        self.pending.clear()
        self.flushed = self.cursor
        if self._chunks is None:
            sockets = [member.ws for member in self._members]
            self._chunks = tuple(
                tuple(sockets[at : at + CHUNK_SOCKETS]) for at in range(0, len(sockets), CHUNK_SOCKETS)
            )
        return message, self._chunks
