"""The server's side of the WebSocket protocol: the opening handshake, and the loop that reads frames.

One task per connection: it reads, hands messages to the actor's `WebSocket`, and waits there when the actor has too
many of them. Everything that is sent goes through the connection's `FrameStream`. (RFC 6455.)
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress

import trio
from wsproto.utilities import generate_accept_token

from runtime.actor.http import Response
from runtime.actor.sockets import LOST, WebSocket
from runtime.frames import encode_pong
from runtime.transport.deflate import Agreement
from runtime.transport.frame_stream import FrameStream
from runtime.transport.http import Head, refuse
from runtime.transport.messages import Closed, MessageDecoder, Ping, ProtocolError

VERSION = "13"
_KEY_BYTES = 16
_OURS = frozenset({"connection", "upgrade", "sec-websocket-accept", "sec-websocket-extensions"})


def is_upgrade(head: Head) -> bool:
    """The client asks for a WebSocket.

    Raises:
        RequestError: it asks in a way that RFC 6455, section 4.2.1, does not allow.
    """
    if "websocket" not in [token.lower() for token in head.tokens("upgrade")]:
        return False
    if head.method != "GET":
        raise refuse(405, f"A WebSocket opens with GET, not {head.method}.", {"allow": "GET"})
    if head.version != "1.1" or "upgrade" not in [token.lower() for token in head.tokens("connection")]:
        raise refuse(400, "A WebSocket opens with HTTP/1.1 and `Connection: Upgrade`.")
    version = head.headers.get("sec-websocket-version")
    if version != VERSION:
        raise refuse(
            426,
            f"Sec-WebSocket-Version is {version!r}; it must be {VERSION}.",
            {"sec-websocket-version": VERSION, "upgrade": "websocket"},
        )
    if not _is_key(head.headers.get("sec-websocket-key", "")):
        raise refuse(400, "Sec-WebSocket-Key must be 16 bytes in base64.")
    return True


def answer_headers(head: Head, response: Response, agreed: Agreement | None) -> Mapping[str, str]:
    """The headers of the 101 that answers an upgrade.

    Args:
        agreed: how messages are compressed, if they are.

    Raises:
        ValueError: the response chose a subprotocol that the client does not offer.
    """
    chosen = response.headers.get("sec-websocket-protocol")
    offered = head.tokens("sec-websocket-protocol")
    if chosen is not None and chosen not in offered:
        raise ValueError(f"the response chose the subprotocol {chosen!r}; the client offers {offered}")
    key = head.headers["sec-websocket-key"].encode()
    extensions = {} if agreed is None else {"sec-websocket-extensions": agreed.answer}
    return {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-accept": generate_accept_token(key).decode(),
        **extensions,
        **{name: value for name, value in response.headers.items() if name not in _OURS},
    }


async def read_messages(
    stream: trio.abc.ReceiveStream, socket: WebSocket, outbound: FrameStream, data: bytes, losses: trio.Semaphore
) -> None:
    """Read until the connection ends, and tell the socket how it ended: `feed_close` or `feed_error`, once.

    Args:
        stream: the connection.
        socket: the actor's end.
        outbound: the sending half.
        data: what arrived together with the handshake.
        losses: what is held while an actor is told of a connection that ended without a close frame.
    """
    decoder = MessageDecoder(socket.wire_bytes, socket.message_bytes if socket.compressed else None)
    try:
        while True:
            if data:
                if await _deliver(decoder, data, socket, outbound):
                    break
                socket.feed_ended()
            data = b""  # an idle connection holds no buffer
            data = bytes(await stream.receive_some())
            if not data:
                break
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        data = b""
    if not data:
        outbound.lost()  # at once: nobody is to write to it while it waits to be told
        if not outbound.was_cut:
            async with losses:
                await socket.feed_close(1006, LOST, False)
                await trio.lowlevel.checkpoint()  # others run before the next one is told
        return
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while await stream.receive_some():
            pass  # the rest is not for us; `outbound` ends the connection


async def _deliver(decoder: MessageDecoder, data: bytes, socket: WebSocket, outbound: FrameStream) -> bool:
    """Hand on what the bytes complete; True when nothing after it counts."""
    decoder.feed(data)
    try:
        while (event := decoder.next()) is not None:
            if isinstance(event, Ping):
                outbound.push(encode_pong(event.payload))
            elif isinstance(event, Closed):
                outbound.peer_closed()
                await socket.feed_close(event.code, event.reason, True)
                return True
            else:
                await socket.feed_message(event)
    except ProtocolError as error:
        outbound.fail(error.code, error.reason)
        await socket.feed_error(error)
        return True
    return False


def _is_key(key: str) -> bool:
    try:
        return len(b64decode(key, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False
