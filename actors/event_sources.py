"""How a shard takes clients that read server-sent events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from actors.admission import Admission, counts
from actors.authentication import bearer
from actors.deadlines import Deadlines
from actors.error_response import error_response
from actors.event_source import COMMENT_S, HEADERS, RETRY_MS, EventSource, S, wanted
from actors.principal import NotAccepted, Principal
from actors.protocol.allowed import narrowed
from actors.protocol.codes import DRAINING, OVERLOADED, RATE_LIMITED, UNAUTHENTICATED, ErrorCode
from actors.protocol.fields import Refused
from actors.protocol.limits import Limits
from actors.protocol.messages import Err, Gap, Reset, SubOk
from actors.protocol.remembered import Remembered
from actors.protocol.requests import Sub
from actors.protocol.server import ServerMachine
from actors.protocol.server_sent_events import encode_event, encode_id, encode_retry
from actors.reach import StreamReach
from actors.session import Connection
from actors.shard_connections import ShardConnections
from actors.stream import Wanted
from actors.tickets import TICKETS
from runtime import ActorError, Context, Request, Response

if TYPE_CHECKING:
    from actors.env import Env

EVENT_SOURCE = "event source"  # what such a client is called, for it does not say
_LATER_S = 1
_BUSY_S = 5  # when somebody with too many connections may try again


@attrs.define(eq=False)
class EventSources:
    """The event sources among a shard's connections.

    Args:
        ctx: the shard's. env: the service's. admission: who may connect. stream: the way to the broadcaster.
        deadlines: when tokens end. connections: those of the shard.
    """

    ctx: Context
    env: Env
    admission: Admission
    stream: StreamReach
    deadlines: Deadlines
    connections: ShardConnections
    _ticking: bool = attrs.field(default=False, init=False)

    @property
    def _limits(self) -> Limits:
        return self.connections.limits

    async def open(self, request: Request) -> Response:
        """Subscribe, and answer with a response that goes on for as long as its client likes and its token is valid."""
        if self.connections.departure is not None:
            return _leaving()
        try:
            # Before a ticket is used up.
            sub = wanted(request)
        except Refused as error:
            return error_response(error.error, str(error), at=error.at)
        try:
            if wait_s := await self.admission.of_address(request.peer):
                return _too_many(wait_s)
            principal = await self._principal(request)
            if not isinstance(principal, NotAccepted) and (
                wait_s := await self.admission.of_user(request.peer, principal)
            ):
                return _too_many(wait_s)
        except ActorError as error:
            return _later(OVERLOADED, f"who comes cannot be checked now: {error}", _LATER_S)
        if isinstance(principal, NotAccepted):
            message = f"{principal.told}; send a token as `Authorization: Bearer …`, or a `ticket` of /v1/tickets"
            return error_response(UNAUTHENTICATED, message, headers={"www-authenticate": "Bearer"})
        try:
            sub = attrs.evolve(sub, filter=narrowed(sub.filter, principal.capability))
        except Refused as error:
            return error_response(error.error, str(error), at=error.at)
        counted = counts(principal, request.peer)
        session, now = f"e_{self.ctx.token(9).hex()}", self.ctx.now()
        state = Remembered(peer=request.peer, counted=counted, session=session, opened=now)
        machine = ServerMachine(self._limits, state)
        machine.authenticated(principal, now)
        source = self._source(sub)
        try:
            if not await self.connections.quota.take(source, machine.state):
                return _later(RATE_LIMITED, f"more than {self._limits.connections_per_user} connections", _BUSY_S)
            refused = await self._subscribe(Connection(source, machine, self.connections.groups.measures), source, sub)
        except ActorError as error:
            refused = _later(OVERLOADED, str(error), _LATER_S)
        if refused is not None:
            self.connections.quota.leave(source)
            return refused
        self._tick_soon()
        return Response(200, headers=HEADERS, stream=source.stream)

    async def _principal(self, request: Request) -> Principal | NotAccepted:
        ticket = request.query_values().get("ticket")
        if ticket is None:
            return await self.env.authenticator.principal(bearer(request))
        return await self.env.tickets.get_by_name(TICKETS).redeem(ticket)

    async def _subscribe(self, connection: Connection, source: EventSource, sub: Sub) -> Response | None:
        """Subscribe and begin; or why not now. Raises: ActorError."""
        connections, wishes = self.connections, (Wanted.of(sub),)
        self.stream.asking += 1
        try:
            joined = await self.stream.ask(lambda stream: stream.subscribe(self.stream.shard, wishes))
            connections.enter(joined.bounds)
            (answer,) = connections.granted(connection, [sub], joined)
        finally:
            self.stream.asking -= 1
        if isinstance(answer, Err):
            return _later(OVERLOADED, answer.msg, _LATER_S)
        if connections.departure is not None:  # all were sent away in the meantime
            connections.drop_all(connection)
            return _leaving()
        subok, texts = answer
        connections.add(connection)
        connections.groups.measures.greeted(EVENT_SOURCE, resumed=subok.recovered is not None)
        self.deadlines.wake_for(connection)
        source.epoch = joined.bounds.epoch
        source.begin(encode_retry(round(self.ctx.random.uniform(*RETRY_MS))) + _first(sub, subok))
        connections.answer(connection, texts)
        return None

    def _source(self, sub: Sub) -> EventSource:
        async def ended() -> None:
            self.connections.forget(source)

        limits = self._limits
        stream = self.ctx.response_stream(ended, backlog_bytes=limits.backlog_bytes, stall_s=limits.backlog_ms / 1000)
        source = EventSource(stream, skips=sub.on_gap == "skip")
        return source

    def _tick_soon(self) -> None:
        if not self._ticking:
            self._ticking = True
            self.ctx.set_timeout(COMMENT_S, self._tick)

    async def _tick(self) -> None:
        """Send everybody a comment, as long as anybody is there."""
        self._ticking = False
        sources = [one.ws for one in self.connections if isinstance(one.ws, EventSource)]
        for source in sources:
            source.comment()
        if sources:
            self._tick_soon()


def _first(sub: Sub, subok: SubOk) -> bytes:
    """Where it begins, and what is missing there that the server will not say by itself."""
    if subok.recovered is False and subok.lost is None:
        reset = Reset(epoch=subok.since.epoch, head=subok.head, reason="the cursor is of another epoch")
        return encode_event("reset", reset.encode(), subok.since)
    if subok.lost is not None and sub.on_gap == "fail":
        gap = Gap(s=S, a=subok.lost.a, b=subok.since.offset, reason="retention")
        return encode_event("gap", gap.encode(), subok.since)
    # A snapshot that was cut off begins again: no cursor before all of it is there.
    return b"" if sub.since == "snapshot" else encode_id(subok.since)


def _leaving() -> Response:
    return _later(DRAINING, "clients are being sent elsewhere", _LATER_S)


def _later(error: ErrorCode, message: str, wait_s: int) -> Response:
    return error_response(error, message, headers={"retry-after": str(wait_s)})


def _too_many(wait_s: int) -> Response:
    return _later(RATE_LIMITED, "too many connections from this address", wait_s)
