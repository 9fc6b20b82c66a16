"""WebSockets as a real client (trio-websocket) and raw bytes see them."""

import base64
import struct

KEY = base64.b64encode(bytes(range(16))).decode()
UPGRADE = (
    "GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
).encode()


def frame(opcode, payload=b"", *, fin=True, mask=b"\1\2\3\4"):
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else struct.pack("!BQ", 0x80 | 127, size)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes(((0x80 if fin else 0) | opcode,)) + length + mask + masked


def close(code, reason=b""):
    return frame(8, struct.pack("!H", code) + reason)


async def status_of(server, data):
    return (await server.exchange(data)).split(b"\r\n")[0].decode()


async def test_a_client_and_an_actor_talk(autojump_clock, serve, room):
    server = await serve(room.fetch)
    async with server.client(subprotocols=["a", "b"]) as client:
        assert client.subprotocol == "a"
        await client.send_message("hé")
        assert await client.get_message() == "hé"
        await client.send_message(b"\0\1")
        assert await client.get_message() == b"\0\1"
        await client.aclose(1000, "bye")
        assert client.closed.code == 1000
    assert room.events == ["hé", b"\0\1", (1000, "bye", True)]
    assert room.sockets == []
