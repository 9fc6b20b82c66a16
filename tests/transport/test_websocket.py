"""WebSockets as a real client (trio-websocket) and raw bytes see them."""

import base64
import struct

import pytest
import trio
import trio.testing

from runtime.actor.http import Response
from runtime.frames import encode_close, encode_message, encode_pong

KEY = base64.b64encode(bytes(range(16))).decode()
FIELDS = {
    "Host": "localhost",
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "WebSocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}
LOST = (1006, "WebSocket disconnected without sending Close frame.", False)


def upgrade(line="GET /chat HTTP/1.1", **changes):
    fields = FIELDS | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([line, *lines, "", ""]).encode()


def frame(opcode, payload=b"", *, fin=True):
    size, mask = len(payload), b"\1\2\3\4"
    length = bytes((0x80 | size,)) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes(((0x80 if fin else 0) | opcode,)) + length + mask + masked


def close(code, reason=b""):
    return frame(8, struct.pack("!H", code) + reason)


class Raw:
    """A client that sends and sees bytes."""

    def __init__(self, stream):
        self.stream = stream

    async def frames(self):
        """What the server has sent by the time nothing more happens; None at the end when it closed."""
        data = b""
        with trio.move_on_after(0.01):
            while more := await self.stream.receive_some():
                data += more
            return data, "closed"
        return data, "open"


@pytest.fixture
def dial():
    async def connect(server, extra=b""):
        raw = Raw(await server.connect())
        await raw.stream.send_all(upgrade() + extra)
        data, state = await raw.frames()
        answer, _, rest = data.partition(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), data
        raw.first = rest, state
        return raw

    return connect


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


async def test_the_actor_may_rest_once_all_that_arrived_together_was_delivered(autojump_clock, serve, room, dial):
    server = await serve(room.fetch)
    raw = await dial(server, frame(1, b"with the request"))
    await raw.stream.send_all(frame(1, b"a") + frame(2, b"b") + frame(1, b"c")[:3])
    await raw.frames()
    await raw.stream.send_all(frame(1, b"c")[3:])
    await raw.frames()
    assert room.events == ["with the request", "a", b"b", "c"]
    assert room.rests == [1, 3, 4]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Version": None}, 426),
        ({"Sec_WebSocket_Key": None}, 400),
        ({"Sec_WebSocket_Key": "short"}, 400),
        ({"Sec_WebSocket_Key": base64.b64encode(bytes(15)).decode()}, 400),
        ({"Sec_WebSocket_Key": "€".encode().decode("latin-1")}, 400),
        ({"Connection": "keep-alive"}, 400),
        ({"line": "GET / HTTP/1.0"}, 400),
        ({"line": "POST / HTTP/1.1"}, 405),
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
    ],
)
async def test_a_wrong_handshake_is_refused_before_the_handler(autojump_clock, serve, room, changes, status):
    server = await serve(room.fetch)
    reply = await server.exchange(upgrade(**changes))
    assert reply.startswith(b"HTTP/1.1 %d " % status), reply
    if status == 426:
        assert b"sec-websocket-version: 13\r\n" in reply
    assert room.sockets == []


async def test_a_handler_that_does_not_accept_answers_over_http_and_the_connection_lives_on(autojump_clock, serve):
    seen = []

    async def handler(request):
        seen.append(request.web_socket is not None)
        return Response.text("no such room\n", 404)

    server = await serve(handler)
    reply = await server.exchange(upgrade() + b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert reply.count(b"HTTP/1.1 404 ") == 2
    assert seen == [True, False]


async def test_a_101_that_no_actor_accepted_is_a_500(autojump_clock, serve):
    async def handler(request):
        return Response(101)

    server = await serve(handler)
    reply = await server.exchange(upgrade(Connection="Upgrade, close"))
    assert reply.startswith(b"HTTP/1.1 500 ")
    assert "without an actor" in str(server.log.entries[0]["exc_info"])


@pytest.mark.parametrize(
    "response", [Response(403), Response(101, headers={"sec-websocket-protocol": "never-offered"}), None]
)
async def test_a_socket_accepted_and_then_refused_is_lost_to_its_actor(autojump_clock, serve, room, response):
    async def handler(request):
        await room.fetch(request)
        room.sockets[0].send("too early")
        return response

    server = await serve(handler)
    reply = await server.exchange(upgrade(Connection="Upgrade, close"))
    assert reply.startswith(b"HTTP/1.1 %d " % (response.status if response and response.status == 403 else 500))
    assert b"too early" not in reply
    assert room.events == [LOST]
    assert room.sockets == []


async def test_what_the_actor_sends_while_it_accepts_follows_the_handshake(autojump_clock, serve, room, dial):
    async def handler(request):
        response = await room.fetch(request)
        room.sockets[0].send("welcome")
        await trio.sleep(1)
        room.sockets[0].send("again")
        return response

    server = await serve(handler)
    raw = Raw(await server.connect())
    await raw.stream.send_all(upgrade())
    await trio.sleep(1.5)
    data, _ = await raw.frames()
    assert data.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-accept: " in data
    assert data.endswith(b"\r\n\r\n" + encode_message("welcome") + encode_message("again"))


async def test_frames_sent_with_the_handshake_are_not_lost(autojump_clock, serve, room, dial):
    server = await serve(room.fetch)
    raw = await dial(server, frame(1, b"early") + frame(9, b"p"))
    assert raw.first[0] in (
        encode_pong(b"p") + encode_message("early"),
        encode_message("early") + encode_pong(b"p"),
    )


async def test_a_ping_between_fragments_is_answered_at_once_without_the_actor(autojump_clock, serve, room, dial):
    server = await serve(room.fetch)
    raw = await dial(server)
    await raw.stream.send_all(frame(1, b"a", fin=False) + frame(9, b"now") + frame(10, b"unasked"))
    assert await raw.frames() == (encode_pong(b"now"), "open")
    assert room.events == []
    await raw.stream.send_all(frame(0, b"b"))
    assert await raw.frames() == (encode_message("ab"), "open")


async def test_the_peers_close_is_delivered_once_answered_and_ends_the_connection(autojump_clock, serve, room, dial):
    server = await serve(room.fetch)
    raw = await dial(server)
    await raw.stream.send_all(frame(1, b"x") + close(4321, b"why") + close(1000) + frame(1, b"late"))
    assert await raw.frames() == (encode_message("x") + encode_close(4321), "closed")
    assert await server.transport.gone(1)
    assert room.events == ["x", (4321, "why", True)]


async def test_a_close_that_the_actor_does_not_answer_leaves_the_connection_to_the_peer(
    autojump_clock, serve, room, dial
):
    room.table.auto_close_reply = False
    server = await serve(room.fetch)
    raw = await dial(server)
    await raw.stream.send_all(frame(8))
    assert await raw.frames() == (b"", "open")
    assert room.events == [(1005, "", True)]
    await raw.stream.aclose()
    assert await server.transport.gone(1)
    assert room.events == [(1005, "", True)]


async def test_an_actors_close_waits_for_the_peers_and_reports_its_code(autojump_clock, serve, room, dial):
    server = await serve(room.fetch)
    raw = await dial(server)
    room.sockets[0].close(4000, "enough")
    assert await raw.frames() == (encode_close(4000, "enough"), "open")
    await raw.stream.send_all(frame(1, b"still in flight") + close(4001, b"ok"))
    assert await raw.frames() == (b"", "closed")
    assert await server.transport.gone(1)
    assert room.events == ["still in flight", (4001, "ok", True)]


async def test_a_peer_that_ignores_the_actors_close_is_lost_after_ten_seconds(autojump_clock, serve, room, dial):
    server = await serve(room.fetch)
    await dial(server)
    room.sockets[0].close(4000)
    await trio.sleep(9.9)
    assert room.events == []
    await trio.sleep(0.2)
    assert room.events == [LOST]
    assert server.transport.open_connections == 0


@pytest.mark.parametrize("how", ["aclose", "reset"])
async def test_a_connection_that_breaks_is_reported_as_1006(autojump_clock, serve, room, dial, how):
    server = await serve(room.fetch)
    raw = await dial(server)
    if how == "aclose":
        await raw.stream.aclose()
    else:
        raw.stream.reset()
    await trio.testing.wait_all_tasks_blocked()
    assert room.events == [LOST]
    assert server.transport.open_connections == 0


async def test_a_cut_socket_ends_without_a_close_frame_and_tells_nobody(autojump_clock, serve, room, dial):
    server = await serve(room.fetch)
    raw = await dial(server)
    room.table.cut_all()
    assert await raw.frames() == (b"", "closed")
    assert await server.transport.gone(1)
    assert room.events == []


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(2, bytes(101)), 1009, "Message is too large: 101 > 100"),
        (frame(1, b"a" * 60, fin=False) + frame(0, b"b" * 60), 1009, "Message is too large: 120 > 100"),
        (frame(2, bytes(10_000))[:20], 1009, "Message is too large: 10000 > 100"),
        (frame(1, b"\xff\xff"), 1007, "text that is not UTF-8"),
        (frame(0, b"x"), 1002, "a continuation frame without a message to continue"),
        (bytes((0x81, 1, 65)), 1002, "server received unexpected unmasked frame"),
    ],
)
async def test_a_peer_that_breaks_a_rule_is_told_and_the_actor_hears_of_it(
    autojump_clock, serve, make_room, dial, data, code, reason
):
    room = make_room(message_bytes=100)
    server = await serve(room.fetch)
    raw = await dial(server)
    await raw.stream.send_all(frame(1, b"fine") + data)
    await raw.stream.send_all(frame(1, b"more") * 1_000)  # goes nowhere, and does not hide the reason
    answer, state = await raw.frames()
    assert answer.replace(encode_message("fine"), b"") == encode_close(code, reason)
    assert state == "closed"
    await raw.stream.aclose()
    assert await server.transport.gone(1)
    text = f"WebSocket protocol error; protocolError.statusCode = {code}; protocolError.description = {reason}"
    assert room.events == ["fine", text]


async def test_a_slow_reader_is_closed_and_the_others_get_everything(autojump_clock, serve, make_room, dial):
    room = make_room(backlog_bytes=10_000, slow_code=4103)
    server = await serve(room.fetch, window_bytes=2_000)
    stuck = await dial(server)
    message = "m" * 1_000
    async with server.client() as reader:
        everybody = room.sockets
        for _ in range(50):
            for ws in everybody:
                ws.send(message)
            with trio.fail_after(0.1):
                assert await reader.get_message() == message
        data, state = await stuck.frames()
    # What the window had taken, the rest of the frame that was half sent, and the reason.
    assert data == encode_message(message) * 2 + encode_close(4103, "reader is too slow")
    assert state == "open"
    await trio.sleep(10)
    assert LOST in room.events


async def test_an_actor_with_too_many_messages_holds_back_its_sender(autojump_clock, serve, room, dial):
    server = await serve(room.fetch, window_bytes=1_000)
    raw = await dial(server)
    gate = trio.Event()

    async def wait(ws, message):
        await gate.wait()
        room.events.append(message)

    room.web_socket_message = wait
    sent = 0
    with trio.move_on_after(1):
        while True:
            await raw.stream.send_all(frame(2, bytes(100)))
            sent += 1
    assert 64 <= sent < 100
    gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert len(room.events) == sent


async def test_auto_responses_are_given_without_the_actor(autojump_clock, serve, room, dial):
    room.table.set_auto_response("ping", "pong")
    server = await serve(room.fetch)
    raw = await dial(server)
    await raw.stream.send_all(frame(1, b"ping"))
    assert await raw.frames() == (encode_message("pong"), "open")
    assert room.events == []


async def test_many_clients_of_another_implementation_in_fragments(autojump_clock, serve, room):
    server = await serve(room.fetch, window_bytes=5_000)
    message = "x" * 200_000

    async def one():
        async with server.client() as client:
            await client.send_message(message)
            assert await client.get_message() == message
            await client.ping(b"1")
            await client.aclose(4999)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert room.events.count((4999, "", True)) == 5
