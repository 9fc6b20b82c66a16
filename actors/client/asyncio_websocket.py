"""The client's socket under asyncio: the package websockets, which `pip install heliograph[asyncio]` brings along."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs

try:
    from websockets.asyncio.client import ClientConnection
    from websockets.asyncio.client import connect as open_websocket
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
    from websockets.typing import Subprotocol
except ImportError as error:
    raise ImportError("under asyncio the client needs websockets: pip install 'heliograph[asyncio]'") from error

from actors.client.address import Address
from actors.client.transport import Transport, TransportClosed
from actors.protocol.encoding import JSON

MESSAGE_BYTES = 128 * 1024 * 1024  # one frame of a server; more is a fault
CLOSE_S = 1.0


@asynccontextmanager
async def connect(
    address: Address, token: str | None, subprotocol: str, ssl_context: ssl.SSLContext | None = None
) -> AsyncGenerator[Transport]:
    """A socket for the time of the block.

    Args:
        ssl_context: of `wss` and `https`; None trusts whom the system trusts.

    Raises: TransportClosed.
    """
    opening = open_websocket(
        str(address),
        subprotocols=[Subprotocol(subprotocol)],
        ssl=(ssl_context or ssl.create_default_context()) if address.tls else None,
        additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
        compression=None,
        max_size=MESSAGE_BYTES,
        # How long things may take is the client machine's business, and so are pings.
        open_timeout=None,
        ping_interval=None,
        close_timeout=CLOSE_S,
        proxy=None,
    )
    try:
        connection = await opening
    except InvalidStatus as refused:
        raise _refused(address, refused) from refused
    except (InvalidHandshake, OSError) as error:
        raise TransportClosed(reason=f"{address}: {error or type(error).__name__}") from error
    try:
        if (connection.subprotocol or JSON.subprotocol) != subprotocol:
            raise TransportClosed(1002, f"{address} does not speak {subprotocol}")
        yield _WebSocketTransport(connection, subprotocol)
    finally:
        connection.transport.abort()  # after a closing handshake there is nothing left to lose


@attrs.define(eq=False)
class _WebSocketTransport:
    """`Transport` over a connection of websockets."""

    _connection: ClientConnection
    _subprotocol: str

    async def send(self, frame: str | bytes) -> None:
        try:
            await self._connection.send(frame)
        except ConnectionClosed as closed:
            raise _ended(closed) from closed

    async def receive(self) -> str | bytes:
        try:
            message = await self._connection.recv()
        except ConnectionClosed as closed:
            raise _ended(closed) from closed
        if isinstance(message, bytes) and self._subprotocol == JSON.subprotocol:
            # Under the subprotocol we offered there are no binary frames: whatever this is, it is no signal service.
            raise TransportClosed(1003, "binary frame from the server")
        return message

    async def aclose(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)


def _ended(closed: ConnectionClosed) -> TransportClosed:
    frame = closed.rcvd
    return TransportClosed() if frame is None else TransportClosed(frame.code, frame.reason)


def _refused(address: Address, refused: InvalidStatus) -> TransportClosed:
    response = refused.response
    wait = response.headers.get("Retry-After", "")
    said = bytes(response.body or b"").decode(errors="replace").strip()[:500]
    return TransportClosed(
        reason=f"{address} answered {response.status_code}" + (f": {said}" if said else ""),
        status=response.status_code,
        retry_after_ms=int(wait) * 1000.0 if wait.isdigit() else None,
    )
