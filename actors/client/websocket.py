"""The client's socket in the real world: trio-websocket over TCP or TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from actors.client.address import Address
from actors.client.transport import Connect, Transport, TransportClosed
from actors.protocol.encoding import JSON

MESSAGE_CHARACTERS = 32 * 1024 * 1024  # one frame of a server; more is a fault

OpenStream = Callable[[Address], Awaitable[trio.abc.Stream]]


async def open_stream(address: Address, ssl_context: ssl.SSLContext | None = None) -> trio.abc.Stream:
    """A TCP connection, encrypted if the address says so. Raises: OSError, trio.BrokenResourceError."""
    if not address.tls:
        return await trio.open_tcp_stream(address.host, address.port)
    stream = await trio.open_ssl_over_tcp_stream(
        address.host,
        address.port,
        https_compatible=True,
        ssl_context=ssl_context or ssl.create_default_context(),
    )
    try:
        await stream.do_handshake()
    except BaseException:  # cancelled, too
        await trio.aclose_forcefully(stream)
        raise
    return stream


def websocket_connect(open_stream: OpenStream = open_stream, *, ssl_context: ssl.SSLContext | None = None) -> Connect:
    """How to open a socket; `open_stream` may lead anywhere, so that tests need no network.

    Args:
        ssl_context: of `wss` and `https`, for the `open_stream` of this module; None trusts whom the system trusts.
    """
    if ssl_context is not None:
        open_stream = partial(_open_encrypted, ssl_context)
    return partial(_connect, open_stream)


async def _open_encrypted(ssl_context: ssl.SSLContext, address: Address) -> trio.abc.Stream:
    return await open_stream(address, ssl_context)


def default_connect(ssl_context: ssl.SSLContext | None = None) -> Connect:
    """The way to open a socket that fits the loop that runs then."""

    def connect(address: Address, token: str | None, subprotocol: str) -> AbstractAsyncContextManager[Transport]:
        if trio.lowlevel.in_trio_run():
            return websocket_connect(ssl_context=ssl_context)(address, token, subprotocol)
        from actors.client.asyncio_websocket import connect

        return connect(address, token, subprotocol, ssl_context)

    return connect


@asynccontextmanager
async def _connect(
    open_stream: OpenStream, address: Address, token: str | None, subprotocol: str = JSON.subprotocol
) -> AsyncGenerator[Transport]:
    headers = [] if token is None else [(b"Authorization", b"Bearer " + token.encode())]
    try:
        stream: Any = await open_stream(address)
    except (OSError, trio.BrokenResourceError) as error:
        raise TransportClosed(reason=f"{address}: {_words(error)}") from error
    failure: TransportClosed | None = None
    try:
        async with stream, trio.open_nursery() as nursery:
            connection = await wrap_client_stream(
                nursery,
                stream,
                address.host_header,
                address.resource,
                subprotocols=[subprotocol],
                extra_headers=headers,
                max_message_size=MESSAGE_CHARACTERS,
                receive_buffer_size=65_536,
            )
            if (connection.subprotocol or JSON.subprotocol) == subprotocol:
                yield _WebSocketTransport(connection, subprotocol)
            else:
                failure = TransportClosed(1002, f"{address} does not speak {subprotocol}")
            nursery.cancel_scope.cancel()
    except* ConnectionRejected as group:
        failure = _refused(address, _first(group))
    except* (HandshakeError, OSError, trio.BrokenResourceError) as group:
        failure = TransportClosed(reason=f"{address}: {_words(_first(group))}")
    if failure is not None:
        raise failure


@attrs.define(eq=False)
class _WebSocketTransport:
    """`Transport` over a trio-websocket connection."""

    _connection: WebSocketConnection
    _subprotocol: str

    async def send(self, frame: str | bytes) -> None:
        try:
            await self._connection.send_message(frame)
        except ConnectionClosed as closed:
            raise _ended(closed) from closed

    async def receive(self) -> str | bytes:
        try:
            message: str | bytes = await self._connection.get_message()
        except ConnectionClosed as closed:
            raise _ended(closed) from closed
        if isinstance(message, bytes) and self._subprotocol == JSON.subprotocol:
            # Under the subprotocol we offered there are no binary frames: whatever this is, it is no signal service.
            raise TransportClosed(1003, "binary frame from the server")
        return message

    async def aclose(self, code: int, reason: str) -> None:
        await self._connection.aclose(code, reason)


def _ended(closed: ConnectionClosed) -> TransportClosed:
    reason = closed.reason
    return TransportClosed() if reason is None else TransportClosed(reason.code, reason.reason or "")


def _refused(address: Address, rejected: BaseException) -> TransportClosed:
    assert isinstance(rejected, ConnectionRejected)
    retry_after_ms = None
    for name, value in rejected.headers:
        if name.lower() == b"retry-after" and value.isdigit():
            retry_after_ms = int(value) * 1000.0
    said = (rejected.body or b"").decode(errors="replace").strip()[:500]
    return TransportClosed(
        reason=f"{address} answered {rejected.status_code}" + (f": {said}" if said else ""),
        status=rejected.status_code,
        retry_after_ms=retry_after_ms,
    )


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):  # trio's "all attempts to connect failed"
        cause = _first(cause)
    return str(cause or error) or type(error).__name__
