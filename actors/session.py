"""What a shard holds of a connection, a team and a group while it is in memory; all of it can be built again."""

from __future__ import annotations

from collections import deque

import attrs
import trio

from actors.protocol.messages import encode_sig
from actors.protocol.server import ServerMachine
from runtime import PreparedMessage, Recipients, WebSocket

CHUNK_SOCKETS = 64  # then the rest of the server gets a moment (settled by measurement: longest stall 101 → 15 ms)


@attrs.define(eq=False)
class Connection:
    """One socket of a shard.

    Attributes:
        waiting: frames that came while an earlier one is carried out. busy: one is carried out now.
        catching_up: a task sends it pages. closed: nothing is sent to it any more.
        groups: of its live subscriptions, with how many each has.
        since: trio's clock when this instance met it: a wall clock that is set must not run out a client's time to
            say hello, after which it would not come back.
    """

    ws: WebSocket
    machine: ServerMachine
    waiting: deque[str | bytes] = attrs.Factory(deque)
    busy: bool = False
    catching_up: bool = False
    closed: bool = False
    groups: dict[int, int] = attrs.Factory(dict)
    since: float = attrs.Factory(trio.current_time)

    @property
    def open_s(self) -> float:
        """For how long this instance knows it."""
        return trio.current_time() - self.since

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
class Team:
    """Connections of one shard with live subscriptions of the same groups: each flush writes them the same bytes.

    Attributes:
        groups: the groups' numbers, ascending; most teams have one. members: the connections.
    """

    groups: tuple[int, ...]
    members: dict[Connection, None] = attrs.Factory(dict)
    _chunks: tuple[Recipients, ...] | None = None

    def add(self, connection: Connection) -> None:
        """One more."""
        self.members[connection] = None
        self._chunks = None

    def remove(self, connection: Connection) -> None:
        """One less."""
        del self.members[connection]
        self._chunks = None

    @property
    def chunks(self) -> tuple[Recipients, ...]:
        """Their sockets, at most 64 together."""
        if self._chunks is None:
            sockets = [member.ws for member in self.members]
            self._chunks = tuple(
                Recipients(sockets[at : at + CHUNK_SOCKETS]) for at in range(0, len(sockets), CHUNK_SOCKETS)
            )
        return self._chunks


@attrs.define(eq=False)
class LocalGroup:
    """A filter group as one shard sees it.

    Attributes:
        cursor: the `upto` of the last frame taken from the broadcaster. flushed: of the last one given to the sockets.
        stored: what storage has of that. subscribers: subscriptions of this shard, live or not.
        healing: frames were missed and are being read from the log. teams: who gets its frames.
    """

    number: int
    cursor: int
    flushed: int
    stored: int | None = None
    subscribers: int = 0
    healing: bool = False
    teams: dict[Team, None] = attrs.Factory(dict)
    _pending: list[tuple[int, int, tuple[bytes, ...]]] = attrs.Factory(list)

    @classmethod
    def at(cls, number: int, cursor: int) -> LocalGroup:
        """A group without members that stands at this place."""
        return cls(number, cursor, cursor)

    @property
    def members(self) -> list[Connection]:
        """Connections with a live subscription."""
        return [member for team in self.teams for member in team.members]

    def extend(self, after: int, upto: int, signals: tuple[bytes, ...]) -> None:
        """Add what becomes the next frame; its text is made when it is flushed."""
        self.cursor = upto
        self._pending.append((after, upto, signals))

    def take(self) -> bytes:
        """Everything pending as WebSocket frames, the same for every member; empty when there is nothing."""
        self.flushed = self.cursor
        if not self._pending:
            return b""
        frames = [
            PreparedMessage.of(encode_sig(g=self.number, a=after, b=upto, signals=signals)).frame
            for after, upto, signals in self._pending
        ]
        self._pending.clear()
        return frames[0] if len(frames) == 1 else b"".join(frames)
