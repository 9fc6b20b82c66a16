"""The connections of a shard, whatever they speak, and what becomes of their subscriptions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs
import trio

from actors.catching_up import CatchingUp
from actors.event_source import EventSource
from actors.moving import Departure
from actors.protocol.limits import Limits
from actors.protocol.messages import Err, SubOk
from actors.protocol.remembered import Remembered
from actors.protocol.requests import Sub
from actors.quota import Quota
from actors.replacing import Replacing
from actors.session import Connection
from actors.shard_groups import ShardGroups
from actors.stream import Bounds, Granted, Joined
from runtime import Context, WebSocket

_EPOCH = "epoch"  # that of the stream, as every welcomed client here knows it


@attrs.define(eq=False)
class ShardConnections:
    """Every connection that a shard serves; iterates over them.

    Args:
        ctx: the shard's. limits: of a connection. quota: how many anybody has. replacing: whose sockets end others.
        groups: those of the shard. catching_up: how subscriptions reach them.

    Attributes:
        departure: all are being sent elsewhere, and no other is taken.
    """

    ctx: Context
    limits: Limits
    quota: Quota
    replacing: Replacing
    groups: ShardGroups
    catching_up: CatchingUp
    departure: Departure | None = attrs.field(default=None, init=False)
    _connections: dict[WebSocket | EventSource, Connection] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.groups.epoch = self.ctx.storage.get(_EPOCH, str, "")

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._connections.values())

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: Connection) -> None:
        """One more."""
        self._connections[connection.ws] = connection
        connection.machine.errors = self.groups.measures.errors
        self.groups.measures.opened += 1
        self.groups.measures.event_sources += isinstance(connection.ws, EventSource)
        connection.number = self.groups.measures.opened
        self.groups.when_counted()

    @property
    def are_leaving(self) -> bool:
        """All are being sent elsewhere, and no other is taken."""
        return self.departure is not None

    def restore(self, connection: Connection) -> None:
        """One from before this instance."""
        self.add(connection)
        state = connection.machine.state
        if state.principal is not None:
            self.quota.restore(connection.ws, state)
        if connection.machine.is_welcomed:
            self.replacing.add(connection)

    def get(self, ws: WebSocket) -> Connection | None:
        """That of a socket."""
        return self._connections.get(ws)

    def forget(self, ws: WebSocket | EventSource) -> None:
        """A client is gone: so are its subscriptions."""
        connection = self._connections.pop(ws, None)
        if connection is not None:
            self.groups.measures.event_sources -= isinstance(ws, EventSource)
            connection.closed = True
            connection.waiting.clear()
            self.groups.recorded.pop(connection, None)
            self.quota.leave(ws)
            self.replacing.leave(connection)
            self.drop_all(connection)
        state = None if connection is None else connection.machine.state
        if state is None and isinstance(ws, WebSocket):
            state = ws.attachment(Remembered)  # its end has woken the shard
        if state is not None:
            self.groups.measures.ended(self.ctx.now() - state.opened)
        self.groups.when_counted()

    def granted(self, connection: Connection, subs: list[Sub], joined: Joined) -> list[tuple[SubOk, list[str]] | Err]:
        """What is answered to each subscription, and what follows the answer."""
        answers: list[tuple[SubOk, list[str]] | Err] = []
        for sub, granted in zip(subs, joined.answers, strict=True):
            if not isinstance(granted, Granted):
                answers.append(connection.machine.unavailable(sub, granted))
                continue
            self._count(connection, sub, granted, joined.bounds.head)
            # The shard hears of every frame of the group from now on, and the next one continues at the head.
            self.groups.add_subscriber(granted.group, joined.bounds.head, sub.min_ms)
            answer, texts = connection.machine.subscribed(
                sub,
                group=granted.group,
                since=granted.since,
                head=joined.bounds.head,
                recovered=granted.recovered,
                lost=granted.lost,
            )
            answers.append((answer, texts))
        return answers

    def _count(self, connection: Connection, sub: Sub, granted: Granted, head: int) -> None:
        measures = self.groups.measures
        measures.recovered(whole=granted.recovered, lost=granted.lost is not None)
        if granted.recovered:
            measures.behind.note(head - granted.since.offset)
            if len(connection.recovering) < self.limits.subs:  # one that ends before it is live leaves its time behind
                connection.recovering[sub.s] = trio.current_time()
        elif granted.lost is not None and sub.on_gap == "skip":
            measures.skipped["retention"] += granted.lost[1] - granted.lost[0]

    def answer(self, connection: Connection, texts: Iterable[str]) -> None:
        """Send what the machine made, and what is live at once; all of it in this turn."""
        if connection.closed:
            self.drop_all(connection)
            return
        self.groups.tune(connection)
        connection.send("\n".join([*texts, *self.catching_up.join(connection)]))
        connection.remember()
        self.catching_up.soon(connection)

    def enter(self, bounds: Bounds) -> None:
        """Tell clients that their epoch is over, if it is: no cursor and no group of theirs means anything any more."""
        if bounds.epoch == self.groups.epoch:
            return
        self.groups.epoch = bounds.epoch
        self.ctx.storage.put(_EPOCH, bounds.epoch)
        for connection in self:
            if connection.machine.is_welcomed:
                self.drop_all(connection)
                connection.reset(bounds.epoch, bounds.head)

    def drop_all(self, connection: Connection) -> None:
        """None of its subscriptions is served any more."""
        machine = connection.machine
        subs, machine.state = machine.state.subs, machine.state.with_subs({})
        self.groups.drop(connection, subs.values())
