"""The same stack on real TCP: kernel buffers, resets and another implementation as the client."""

import socket

import pytest
import structlog
import trio
from structlog.testing import LogCapture
from trio_websocket import open_websocket_url

from runtime.actor.http import Response
from runtime.frames import encode_message
from runtime.platform import real_platform
from runtime.transport.config import TransportConfig
from runtime.transport.listen import Transport

pytestmark = pytest.mark.real

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n"
)


@pytest.fixture
async def serve(nursery):
    """Serve a handler on a free port: `port = await serve(handler)`."""

    async def start(handler, **config):
        platform = real_platform()
        start.log = LogCapture()
        start.transport = Transport(
            handler,
            config=TransportConfig(**config),
            platform=platform,
            log=structlog.wrap_logger(None, processors=[start.log], wrapper_class=structlog.BoundLogger),
        )
        listeners = await platform.listen("127.0.0.1", 0)
        await nursery.start(start.transport.serve, listeners)
        start.listener = listeners[0]
        return start.listener.socket.getsockname()[1]

    return start


async def dial(port, *, receive_buffer=None):
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
    await stream.send_all(UPGRADE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await stream.receive_some(1)
    return stream


async def test_messages_of_any_size_echo_through_trio_websocket(serve, make_room):
    room = make_room(backlog_bytes=64 << 20)
    port = await serve(room.fetch)
    with trio.fail_after(30):
        async with open_websocket_url(f"ws://127.0.0.1:{port}/", max_message_size=1 << 25) as client:
            for size in (0, 1, 125, 126, 65_535, 65_536, 4_000_000):
                message = bytes(size)
                await client.send_message(message)
                assert await client.get_message() == message
            await client.ping()
    assert room.events[-1][0] == 1000


async def test_a_client_that_never_reads_is_closed_and_the_others_get_everything(serve, make_room):
    room = make_room(backlog_bytes=100_000, slow_code=4103)
    port = await serve(room.fetch)
    with trio.fail_after(30):
        stuck = await dial(port, receive_buffer=4_096)
        async with open_websocket_url(f"ws://127.0.0.1:{port}/") as reader:
            reader_ws, stuck_ws = room.sockets
            message = "m" * 16_000
            worst = 0
            for count in range(5_000):
                stuck_ws.send(message)
                worst = max(worst, stuck_ws.backlog_bytes)
                if count % 10 == 0:
                    reader_ws.send(message)
                    assert await reader.get_message() == message
            assert worst <= 100_000 + 16_010
            assert stuck_ws.backlog_bytes <= 16_100
            received = b""
            with trio.move_on_after(2):
                while True:
                    received += await stuck.receive_some()
            frame = encode_message(message)
            whole, rest = divmod(len(received), len(frame))
            assert received[: whole * len(frame)] == frame * whole
            assert received[-rest:].startswith(b"\x88\x14\x10\x07")
            assert received[-rest:].endswith(b"reader is too slow")
        await trio.aclose_forcefully(stuck)


async def test_a_client_that_resets_while_it_is_sent_to_harms_nobody(serve, room):
    port = await serve(room.fetch)
    with trio.fail_after(30):
        for linger in (True, False):
            for _ in range(20):
                stream = await dial(port)
                ws = room.sockets[0]
                if linger:
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                await stream.aclose()
                for _ in range(20):
                    ws.send("into the void")
                    await trio.lowlevel.checkpoint()
        assert await serve.transport.gone(5)
    assert room.sockets == []
    assert room.events.count((1006, "WebSocket disconnected without sending Close frame.", False)) == 40
    assert serve.log.entries == []


async def test_sockets_are_set_up_for_small_frames_and_vanished_peers(serve):
    peers = []

    async def handler(request):
        peers.append(request.peer)
        return Response.text("ok")

    port = await serve(handler)
    with trio.fail_after(10):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in await stream.receive_some()
        await stream.aclose()
    assert peers == ["127.0.0.1"]
    listening = serve.listener.socket  # tests/test_tcp.py: what it accepts inherits its options
    assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
