"""One connection from its first byte to its end: requests one after another, then perhaps a WebSocket."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import AsyncIterable, Awaitable, Callable

import attrs
import trio
from structlog.stdlib import BoundLogger

from runtime.actor.http import Request, Response
from runtime.actor.sockets import LOST, WebSocket
from runtime.errors import ActorError
from runtime.platform import Platform
from runtime.transport.certificate import Certificate
from runtime.transport.config import TransportConfig
from runtime.transport.deflate import Agreement, agree
from runtime.transport.frame_stream import FrameStream, StartSoon
from runtime.transport.http import Head, HttpConnection, RequestError, has_body, refuse
from runtime.transport.origin import refusal
from runtime.transport.websocket import answer_headers, is_upgrade, read_messages
from runtime.transport.wire import peer_of

Handler = Callable[[Request], Awaitable[Response]]
_ERROR_ID_BYTES = 4


@attrs.define(eq=False, kw_only=True)
class Site:
    """What the connections of one server share.

    Attributes:
        handler: answers requests; for an upgrade 101 once an actor has accepted `request.web_socket`.
        certificate: what clients are shown; None serves them without TLS.
        start_soon: of the nursery in which the tasks of sockets run; it outlives the connections.
        numbers: what `Request.number` counts.
        waiting: the waits of connections on which no request is under way.
        arriving: connections that have not sent a whole request yet, the oldest first.
        requests: requests under way. openings: those of them that open a WebSocket.
        losses: held while an actor is told of a connection that was lost.
        draining: no further request is served.
        moved_on: called whenever a request has been answered, or a connection has arrived.
    """

    handler: Handler
    config: TransportConfig
    platform: Platform
    log: BoundLogger
    start_soon: StartSoon
    certificate: Certificate | None = None
    numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    waiting: set[trio.CancelScope] = attrs.field(factory=set)
    arriving: OrderedDict[trio.CancelScope, None] = attrs.field(factory=OrderedDict)
    requests: int = 0
    openings: int = 0
    losses: trio.Semaphore = attrs.field(
        default=attrs.Factory(lambda site: trio.Semaphore(site.config.losses), takes_self=True)
    )
    draining: bool = False
    moved_on: Callable[[], object] = lambda: None


@attrs.frozen
class _Arrived:
    stream: trio.abc.Stream
    http: HttpConnection
    head: Head | RequestError


@attrs.frozen
class _Upgraded:
    socket: WebSocket
    outbound: FrameStream
    received: bytes


async def serve_connection(stream: trio.abc.Stream, site: Site) -> None:
    """Serve one connection until it ends; closes the stream. An error ends this connection alone."""
    upgraded: _Upgraded | None = None
    try:
        arrived = await _arrive(stream, site)
        if arrived is None:
            return
        stream = arrived.stream
        upgraded = await _serve_requests(arrived, site)
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


async def _arrive(stream: trio.abc.Stream, site: Site) -> _Arrived | None:
    """Wait for the first request of a connection; None when it ends before, or has to make room."""
    with trio.CancelScope() as room:
        site.arriving[room] = None
        try:
            encrypted = await _encrypt(stream, site)
            if encrypted is None:
                return None
            http = HttpConnection(encrypted, config=site.config, now=site.platform.now)
            try:
                head = await http.next_head(site.waiting)
            except RequestError as refused:
                return _Arrived(encrypted, http, refused)
            return None if head is None else _Arrived(encrypted, http, head)
        finally:
            site.arriving.pop(room, None)
            site.moved_on()
    return None


async def _encrypt(stream: trio.abc.Stream, site: Site) -> trio.abc.Stream | None:
    """The connection under TLS if the server has a certificate; None when the client takes too long for it."""
    if site.certificate is None:
        return stream
    encrypted = site.certificate.wrap(stream)
    with trio.move_on_after(site.config.tls_s) as patience:
        site.waiting.add(patience)
        try:
            await encrypted.do_handshake()
        except trio.BrokenResourceError as error:
            site.log.debug("tls_handshake_failed", peer=peer_of(stream), reason=str(error.__cause__ or error))
            raise
        finally:
            site.waiting.discard(patience)
        return encrypted
    return None


async def _serve_requests(arrived: _Arrived, site: Site) -> _Upgraded | None:
    """Serve requests until the client has no more, or has upgraded."""
    stream, http = arrived.stream, arrived.http
    exchange = _Exchange(stream, http, site, peer_of(stream))
    head: Head | RequestError | None = arrived.head
    try:
        while head is not None:
            if isinstance(head, RequestError):
                raise head
            site.requests += 1
            try:
                goes_on = await exchange.serve(head)
            finally:
                site.requests -= 1
                site.moved_on()
            head = await http.next_head(site.waiting) if goes_on else None
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
        config = site.config
        client = config.proxies.client(self.peer, head.headers, encrypted=site.certificate is not None)
        denied = refusal(
            head.headers,
            hosts=config.hosts,
            origins=config.origins,
            forwarded_host=client.host,
            encrypted=client.encrypted,
        )
        if denied is not None:
            raise RequestError(denied)
        outbound = self._outbound() if is_upgrade(head) else None
        try:
            return await self._answer(head, client.peer, outbound)
        finally:
            if outbound is not None and self.upgraded is None:
                outbound.lost()

    async def _answer(self, head: Head, peer: str, outbound: FrameStream | None) -> bool:
        site = self.site
        agreed = None if outbound is None else agree(head.headers.get("sec-websocket-extensions", ""))
        offered_bits = None if agreed is None else agreed.window_bits
        request = Request(
            method=head.method,
            path=head.path,
            query=head.query,
            headers=head.headers,
            body=await self.http.read_body(head),
            peer=peer,
            number=next(site.numbers),
            web_socket=None if outbound is None else WebSocket(outbound, site.platform.now, offered_bits),
        )
        stream: AsyncIterable[bytes] | None = None
        try:
            try:
                response = await self._handle(request)
                stream = response.stream
                if response.status == 101:
                    self._upgrade(head, request, response, outbound, agreed)
                    return False
                framed = self.http.frame_response(head.method, response, close=site.draining)
                streams = stream is not None and has_body(head.method, response.status)
            except Exception as error:  # noqa: BLE001 -- the boundary: a handler's error is an answer
                framed = self.http.frame_response(head.method, self._failure(request, error), close=site.draining)
                streams = False
            if request.web_socket is not None:
                await request.web_socket.feed_close(1006, LOST, False)
            if stream is None or not streams:
                return await self.http.respond(*framed)
            return await self.http.respond_stream(framed[0], stream) and not site.draining
        finally:
            if stream is not None:
                await _close(stream)

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

    def _upgrade(
        self,
        head: Head,
        request: Request,
        response: Response,
        outbound: FrameStream | None,
        agreed: Agreement | None,
    ) -> None:
        socket = request.web_socket
        if socket is None or outbound is None:
            raise ValueError("a handler answered 101 to a request that is no WebSocket upgrade")
        if not socket.accepted:
            raise ValueError("a handler answered 101 without an actor that accepted the WebSocket")
        answer, received = self.http.switch(answer_headers(head, response, agreed if socket.compressed else None))
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


async def _close(stream: AsyncIterable[bytes]) -> None:
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()


def busy(message: str, config: TransportConfig) -> RequestError:
    """A 503 that says when to come back."""
    return refuse(503, f"{message} Try again later.", {"retry-after": str(config.retry_after_s)})
