"""A client's WebSocket that is read when somebody asks, with no task of its own.

A source is asked now and then, and between two of its fetches there is no task that could read. (trio-websocket reads
in a nursery that must stay open, so it is no choice here; wsproto, on which it is built, is.) What arrives meanwhile
waits in the kernel, and when that is full the other side waits: nothing is held without a bound.
"""

from __future__ import annotations

import os
import ssl
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import attrs
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import ProtocolError

MESSAGE_BYTES = 8 * 1024 * 1024
SEND_S = 5.0
CLOSE_S = 1.0
REFUSAL_BYTES = 500
_RECEIVE_BYTES = 65_536


class LinkClosed(Exception):
    """The connection ended, or could not be opened.

    Attributes:
        code: of the close frame, None without one. status: of a refused handshake.
    """

    def __init__(self, reason: str, *, code: int | None = None, status: int | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.status = status


@attrs.frozen
class Target:
    """Where a WebSocket is.

    Attributes:
        resource: path and query; it may have a secret in it, so that it is not shown.
    """

    host: str
    port: int
    resource: str = attrs.field(repr=False)
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Target | None:
        """Read a ws: or wss: address; None when it is none."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            return None
        if parts.scheme not in ("ws", "wss") or not host or parts.username is not None:
            return None
        tls = parts.scheme == "wss"
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(host, port or (443 if tls else 80), resource, tls)

    @property
    def host_header(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://{self.host_header}{self.resource.partition('?')[0]}"


OpenStream = Callable[[Target], Awaitable[trio.abc.Stream]]


async def open_stream(target: Target) -> trio.abc.Stream:
    """A TCP connection, encrypted if the target says so. Raises: OSError, trio.BrokenResourceError."""
    if not target.tls:
        return await trio.open_tcp_stream(target.host, target.port)
    stream = await trio.open_ssl_over_tcp_stream(
        target.host, target.port, https_compatible=True, ssl_context=ssl.create_default_context()
    )
    await stream.do_handshake()
    return stream


@attrs.define(eq=False)
class Link:
    """One open connection. Use `open`, and `aclose` in the end."""

    _stream: trio.abc.Stream
    _wire: WSConnection
    _messages: deque[str] = attrs.field(factory=deque[str], init=False)
    _parts: list[str] = attrs.field(factory=list[str], init=False)
    _part_characters: int = attrs.field(default=0, init=False)
    _replies: bytearray = attrs.field(factory=bytearray, init=False)
    _ended: LinkClosed | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        # An instance of an actor may end at any moment without a word, and its connection must end with it. (Not
        # `__del__`: of what is collected together with it, the socket might be finalized first.)
        stream = self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream
        if isinstance(stream, trio.SocketStream):
            weakref.finalize(self, _close_descriptor, stream.socket)

    @classmethod
    async def open(
        cls,
        target: Target,
        *,
        headers: Mapping[str, str],
        subprotocols: Sequence[str] = (),
        open_stream: OpenStream = open_stream,
    ) -> Link:
        """Connect and shake hands. Raises: LinkClosed."""
        try:
            stream = await open_stream(target)
        except (OSError, trio.BrokenResourceError) as error:
            raise LinkClosed(f"{target}: {_words(error)}") from None
        link = cls(stream, WSConnection(ConnectionType.CLIENT))
        try:
            await link._shake_hands(target, headers, subprotocols)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return link

    async def receive(self) -> str:
        """The next text message. Cancelling it loses nothing.

        Raises: LinkClosed.
        """
        while not self._messages:
            if self._ended is not None:
                raise self._ended
            for event in self._events(await self._read()):
                self._take(event)
            await self._reply()
        return self._messages.popleft()

    def receive_now(self) -> str | None:
        """A message that is here already."""
        return self._messages.popleft() if self._messages else None

    async def send(self, text: str) -> None:
        """Send a text message. Raises: LinkClosed."""
        if self._ended is not None:
            raise self._ended
        await self._send(self._wire.send(Message(data=text)))

    async def aclose(self, code: int = CloseReason.NORMAL_CLOSURE) -> None:
        """Say goodbye and close; harmless when it is closed."""
        if self._ended is None:
            self._ended = LinkClosed("closed here", code=code)
            gone = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError)
            with trio.move_on_after(CLOSE_S), suppress(*gone):
                await self._stream.send_all(self._wire.send(CloseConnection(code=code)))
        await trio.aclose_forcefully(self._stream)

    async def _shake_hands(self, target: Target, headers: Mapping[str, str], subprotocols: Sequence[str]) -> None:
        request = Request(
            host=target.host_header,
            target=target.resource,
            extra_headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            subprotocols=list(subprotocols),
        )
        await self._send(self._wire.send(request))
        status, body = 0, bytearray()
        while True:
            events = self._events(await self._read())
            for number, event in enumerate(events):
                match event:
                    case AcceptConnection():
                        for early in events[number + 1 :]:  # right behind the handshake
                            self._take(early)
                        return
                    case RejectConnection():
                        status = event.status_code
                        finished = not event.has_body
                    case RejectData():
                        body += event.data[: REFUSAL_BYTES - len(body)]
                        finished = event.body_finished
                    case _:
                        finished = False
                if status and finished:
                    said = " ".join(body.decode(errors="replace").split())
                    raise LinkClosed(f"{target} answered {status}" + (f": {said}" if said else ""), status=status)

    async def _reply(self) -> None:
        if self._replies:
            data, self._replies = bytes(self._replies), bytearray()
            await self._send(data)

    async def _read(self) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(_RECEIVE_BYTES))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._end(LinkClosed(f"the connection broke: {_words(error)}")) from None
        if not data:
            raise self._end(LinkClosed("the connection ended without a close frame"))
        return data

    def _events(self, data: bytes) -> list[Event]:
        try:
            self._wire.receive_data(data)
            return list(self._wire.events())
        except ProtocolError as error:
            raise self._end(LinkClosed(f"not WebSocket: {error}", code=1002)) from None

    def _take(self, event: Event) -> None:
        match event:
            case TextMessage():
                self._parts.append(event.data)
                self._part_characters += len(event.data)
                if self._part_characters > MESSAGE_BYTES:
                    self._end(LinkClosed(f"a message of more than {MESSAGE_BYTES:,} characters", code=1009))
                elif event.message_finished:
                    self._messages.append("".join(self._parts))
                    self._parts, self._part_characters = [], 0
            case BytesMessage():
                self._end(LinkClosed("a binary message; this source reads text", code=1003))
            case Ping():
                self._replies += self._wire.send(event.response())
            case CloseConnection():
                if self._wire.state is ConnectionState.REMOTE_CLOSING:
                    self._replies += self._wire.send(event.response())
                said = f": {event.reason}" if event.reason else ""
                self._end(LinkClosed(f"closed by the other side with {event.code}{said}", code=event.code))
            case _:
                pass

    def _end(self, ended: LinkClosed) -> LinkClosed:
        self._ended = self._ended or ended
        return self._ended

    async def _send(self, data: bytes) -> None:
        # A frame that is cut in two would break the connection for whatever follows.
        with trio.CancelScope(shield=True), trio.move_on_after(SEND_S) as scope:
            try:
                await self._stream.send_all(data)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise self._end(LinkClosed(f"the connection broke: {_words(error)}")) from None
        if scope.cancelled_caught:
            raise self._end(LinkClosed(f"the other side took nothing for {SEND_S:g} s"))


def _words(error: BaseException) -> str:
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):  # trio's "all attempts to connect failed"
        cause = cause.exceptions[0]
    return str(cause or error) or type(error).__name__


def _close_descriptor(socket: trio.socket.SocketType) -> None:
    descriptor = socket.detach()
    if descriptor >= 0:
        os.close(descriptor)  # not by trio, which may be over
