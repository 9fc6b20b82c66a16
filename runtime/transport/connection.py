"""One connection from its first byte to its end: requests one after another, then perhaps a WebSocket."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

import attrs
import trio
from structlog.stdlib import BoundLogger

from runtime.actor.http import Request, Response
from runtime.actor.sockets import LOST, WebSocket
from runtime.errors import ActorError
from runtime.platform import Platform
from runtime.transport.config import TransportConfig
from runtime.transport.frame_stream import FrameStream, StartSoon
from runtime.transport.http import Head, HttpConnection, RequestError, refuse
from runtime.transport.origin import refusal
from runtime.transport.websocket import answer_headers, is_upgrade, read_messages

Handler = Callable[[Request], Awaitable[Response]]
_ERROR_ID_BYTES = 4


@attrs.define(eq=False, kw_only=True)
class Site:
    """What the connections of one server share.

    Attributes:
        handler: answers requests; for an upgrade 101 once an actor has accepted `request.web_socket`.
        start_soon: of the nursery in which the tasks of sockets run; it outlives the connections.
        numbers: what `Request.number` counts.
        waiting: the waits of connections on which no request is under way.
        requests: requests under way. openings: those of them that open a WebSocket.
        losses: held while an actor is told of a connection that was lost.
        draining: no further request is served.
        request_ended: called whenever a request has been answered.
    """

    handler: Handler
    config: TransportConfig
    platform: Platform
    log: BoundLogger
    start_soon: StartSoon
    numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    waiting: set[trio.CancelScope] = attrs.field(factory=set)
    requests: int = 0
    openings: int = 0
    losses: trio.Semaphore = attrs.field(
        default=attrs.Factory(lambda site: trio.Semaphore(site.config.losses), takes_self=True)
    )
    draining: bool = False
    request_ended: Callable[[], object] = lambda: None


@attrs.frozen
class _Upgraded:
    socket: WebSocket
    outbound: FrameStream
    received: bytes


async def serve_connection(stream: trio.abc.Stream, site: Site) -> None:
    """Serve one connection until it ends; closes the stream. An error ends this connection alone."""
    upgraded: _Upgraded | None = None
    try:
        upgraded = await _serve_requests(stream, site)
        if upgraded is not None:
            await read_messages(stream, upgraded.socket, upgraded.outbound, upgraded.received, site.losses)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the client is gone
    except Exception:
        site.log.exception("connection_failed", peer=peer_of(stream))
    finally:
        if upgraded is not None:
            upgraded.outbound.lost()
        await trio.aclose_forcefully(stream)


def peer_of(stream: trio.abc.Stream) -> str:
    """The address of the other end without its port; "" when it has none."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return str(getattr(stream, "peer", ""))


async def _serve_requests(stream: trio.abc.Stream, site: Site) -> _Upgraded | None:
    """Serve requests until the client has no more, or has upgraded."""
    http = HttpConnection(stream, config=site.config, now=site.platform.now)
    exchange = _Exchange(stream, http, site, peer_of(stream))
    try:
        while (head := await http.next_head(site.waiting)) is not None:
            site.requests += 1
            try:
                goes_on = await exchange.serve(head)
            finally:
                site.requests -= 1
                site.request_ended()
            if not goes_on:
                break
    except RequestError as refused:
        await http.respond_refused(refused)
    return exchange.upgraded


@attrs.define(eq=False)
class _Exchange:
    """Requests of one connection, handled one after another."""

    stream: trio.abc.Stream
    http: HttpConnection
    site: Site
    peer: str
    upgraded: _Upgraded | None = None

    async def serve(self, head: Head) -> bool:
        """Answer one request; False when no other follows on this connection."""
        site = self.site
        if site.draining:
            raise busy("The server is going down.", site.config)
        denied = refusal(head.headers, hosts=site.config.hosts, origins=site.config.origins)
        if denied is not None:
            raise RequestError(denied)
        outbound = self._outbound() if is_upgrade(head) else None
        try:
            return await self._answer(head, outbound)
        finally:
            if outbound is not None and self.upgraded is None:
                outbound.lost()

    async def _answer(self, head: Head, outbound: FrameStream | None) -> bool:
        site = self.site
        request = Request(
            method=head.method,
            path=head.path,
            query=head.query,
            headers=head.headers,
            body=await self.http.read_body(head),
            peer=self.peer,
            number=next(site.numbers),
            web_socket=None if outbound is None else WebSocket(outbound, site.platform.now),
        )
        try:
            response = await self._handle(request)
            if response.status == 101:
                self._upgrade(head, request, response, outbound)
                return False
            framed = self.http.frame_response(head.method, response, close=site.draining)
        except Exception as error:  # noqa: BLE001 -- the boundary: a handler's error is an answer
            framed = self.http.frame_response(head.method, self._failure(request, error), close=site.draining)
        if request.web_socket is not None:
            await request.web_socket.feed_close(1006, LOST, False)
        return await self.http.respond(*framed)

    async def _handle(self, request: Request) -> Response:
        site = self.site
        if request.web_socket is None:
            return await site.handler(request)
        site.openings += 1
        try:
            return await site.handler(request)
        finally:
            site.openings -= 1

    def _outbound(self) -> FrameStream:
        return FrameStream(
            self.stream,
            write=self.site.platform.writer(self.stream),
            start_soon=self.site.start_soon,
            close_s=self.site.config.close_s,
        )

    def _upgrade(self, head: Head, request: Request, response: Response, outbound: FrameStream | None) -> None:
        socket = request.web_socket
        if socket is None or outbound is None:
            raise ValueError("a handler answered 101 to a request that is no WebSocket upgrade")
        if not socket.accepted:
            raise ValueError("a handler answered 101 without an actor that accepted the WebSocket")
        answer, received = self.http.switch(answer_headers(head, response))
        outbound.uncork(answer)
        self.upgraded = _Upgraded(socket, outbound, received)

    def _failure(self, request: Request, error: Exception) -> Response:
        """The answer to a handler's error: nothing of it leaks but an id that finds the log line."""
        if isinstance(error, ActorError) and error.overloaded:
            return busy("The server has too much to do.", self.site.config).response
        error_id = self.site.platform.token_bytes(_ERROR_ID_BYTES).hex()
        self.site.log.error(
            "request_failed",
            error_id=error_id,
            method=request.method,
            path=request.path,
            peer=request.peer,
            exc_info=error,
        )
        return Response.text(f"Internal error {error_id}.\n", 500)


def busy(message: str, config: TransportConfig) -> RequestError:
    """A 503 that says when to come back."""
    return refuse(503, f"{message} Try again later.", {"retry-after": str(config.retry_after_s)})
