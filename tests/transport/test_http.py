"""HTTP as a client sees it: bounds, deadlines, keep-alive, and what an error tells."""

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from runtime.actor.http import Response
from runtime.errors import ActorReset, Overloaded
from runtime.testing.streams import memory_stream_pair
from runtime.transport.config import TransportConfig
from runtime.transport.http import HttpConnection, RequestError

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def hello(request):
    return Response.text(f"hello {request.path}")


def head(reply):
    return reply.split(b"\r\n\r\n")[0].decode().split("\r\n")


async def test_a_request_reaches_the_handler_and_its_answer_the_client(autojump_clock, serve):
    seen = []

    async def handler(request):
        seen.append(request)
        return Response.json({"ok": True}, 201, {"x-extra": "e"})

    server = await serve(handler)
    reply = await server.exchange(
        b"POST /v1/a%20b%2Fc?x=%20y HTTP/1.1\r\nHost: localhost\r\nX-Two: 1\r\nx-two: 2\r\n"
        b"Content-Length: 4\r\nConnection: close\r\n\r\nbody"
    )
    (request,) = seen
    assert (request.method, request.path, request.query, request.body) == ("POST", "/v1/a b/c", "x=%20y", b"body")
    assert request.headers["x-two"] == "1, 2"
    assert (request.peer, request.number, request.web_socket) == ("127.0.0.1", 1, None)
    assert head(reply) == [
        "HTTP/1.1 201 Created",
        "server: heliograph",
        "date: Tue, 14 Nov 2023 22:13:20 GMT",
        "content-type: application/json",
        "x-extra: e",
        "content-length: 11",
        "Connection: close",
    ]
    assert reply.endswith(b'\r\n\r\n{"ok":true}')


async def test_pipelined_requests_are_answered_one_after_another(autojump_clock, serve):
    order = []

    async def handler(request):
        order.append(f"begin {request.path}")
        await trio.sleep(1)
        order.append(f"end {request.path}")
        return Response.text(f"{request.path} {request.number}\n")

    server = await serve(handler)
    one = b"POST /1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    reply = await server.exchange(one + GET + LAST)
    assert [line for line in reply.splitlines() if line.startswith(b"/")] == [b"/1 1", b"/ 2", b"/last 3"]
    assert order == ["begin /1", "end /1", "begin /", "end /", "begin /last", "end /last"]


async def test_an_idle_connection_is_kept_and_then_closed_in_silence(autojump_clock, serve):
    server = await serve(hello)
    stream = await server.connect()
    await stream.send_all(GET)
    assert b"hello /" in await stream.receive_some()
    await trio.sleep(74)
    await stream.send_all(GET)
    assert b"hello /" in await stream.receive_some()
    started = trio.current_time()
    assert await stream.receive_some() == b""
    assert trio.current_time() - started == pytest.approx(75)


async def test_head_gives_the_headers_of_get_without_the_body(autojump_clock, serve):
    server = await serve(hello)
    reply = await server.exchange(b"HEAD /abc HTTP/1.1\r\nHost: localhost\r\n\r\n" + LAST)
    first, _, rest = reply.partition(b"\r\n\r\n")
    assert b"content-length: 10" in first
    assert rest.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_sends_none(autojump_clock, serve, status):
    async def handler(request):
        return Response(status, b"ignored")

    server = await serve(handler)
    reply = await server.exchange(GET + LAST)
    assert reply.count(b"HTTP/1.1 %d" % status) == 2
    assert b"ignored" not in reply


async def test_a_client_that_waits_for_100_continue_gets_it(autojump_clock, serve):
    async def handler(request):
        return Response(200, request.body[::-1])

    server = await serve(handler)
    stream = await server.connect()
    await stream.send_all(b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
    await stream.send_all(b"abc")
    assert (await stream.receive_some()).endswith(b"cba")


async def test_a_target_in_absolute_form_names_the_host(autojump_clock, serve):
    server = await serve(hello)
    request = b"GET http://%s/x?y HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert (await server.exchange(request % b"localhost:80")).endswith(b"hello /x")
    assert (await server.exchange(request % b"evil.example")).startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n", 400),
        (b"GET nopath HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET / HTTP/1.0\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", 403),
        (b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 8_200), 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s" % (b"x" * 20_000), 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 64 + b"\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8388609\r\n\r\n", 413),
    ],
)
async def test_a_bad_request_is_told_why_and_the_connection_ends(autojump_clock, serve, data, status):
    async def handler(request):
        raise AssertionError("a bad request reached the handler")

    server = await serve(handler)
    for chunk in (None, 1_000):
        reply = await server.exchange(data, chunk=chunk)
        assert reply.startswith(b"HTTP/1.1 %d " % status), reply
        assert b"connection: close" in reply.lower()
        assert reply.rpartition(b"\r\n\r\n")[2].strip()
    assert trio.current_time() < 5


async def test_a_head_at_its_bounds_is_served(autojump_clock, serve):
    server = await serve(hello)
    start = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    many = start + b"X: y\r\n" * 62 + b"\r\n"
    large = start + b"X: " + b"x" * (8_192 - len(start) - 7) + b"\r\n\r\n"
    assert len(large) == 8_192
    for data in (many, large):
        assert (await server.exchange(data)).startswith(b"HTTP/1.1 200 ")


async def test_a_chunked_body_is_refused_as_soon_as_it_is_too_large(autojump_clock, serve):
    server = await serve(hello, body_bytes=1_000)
    stream = await server.connect()
    await stream.send_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    await stream.send_all(b"1f4\r\n" + bytes(500) + b"\r\n")
    with trio.move_on_after(1) as patience:
        await stream.receive_some()
    assert patience.cancelled_caught
    await stream.send_all(b"1f5\r\n" + bytes(501) + b"\r\n")
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_was_refused_in_the_middle_of_its_body_can_read_why(autojump_clock, serve):
    server = await serve(hello, window_bytes=1_000)
    data = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n" + bytes(500_000)
    assert (await server.exchange(data)).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: local"])
async def test_a_head_that_does_not_arrive_in_five_seconds_is_408(autojump_clock, serve, sent):
    server = await serve(hello)
    reply = await server.exchange(sent)
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert trio.current_time() == pytest.approx(5)


async def test_a_head_that_trickles_in_is_408(autojump_clock, serve):
    server = await serve(hello)
    stream = await server.connect()
    await stream.send_all(GET)
    await stream.receive_some()
    await trio.sleep(30)
    for byte in GET[:4]:
        await stream.send_all(bytes([byte]))
        await trio.sleep(1.2)
    with trio.fail_after(0.3):
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_trickles_in_is_408(autojump_clock, serve):
    server = await serve(hello, body_s=20.0)
    reply = await server.exchange(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n12345678")
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert trio.current_time() == pytest.approx(20)


async def test_a_handlers_error_is_a_500_with_an_id_that_the_log_has_too(autojump_clock, serve):
    async def handler(request):
        raise ActorReset("secret detail")

    server = await serve(handler)
    reply = await server.exchange(GET + LAST)
    assert reply.count(b"HTTP/1.1 500 Internal Server Error") == 2
    assert b"Internal error 00010203.\n" in reply
    assert b"secret" not in reply
    line = server.log.entries[0]
    assert (line["event"], line["error_id"], line["path"]) == ("request_failed", "00010203", "/")
    assert str(line["exc_info"]) == "secret detail"


async def test_overload_is_a_503_that_says_when_to_come_back(autojump_clock, serve):
    async def handler(request):
        raise Overloaded("mailbox of Room('x') is full")

    server = await serve(handler)
    reply = await server.exchange(LAST)
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5\r\n" in reply
    assert b"Room" not in reply


@pytest.mark.parametrize(
    "response",
    [
        Response(200, b"", {"x": "a\r\nset-cookie: b"}),
        Response(200, b"", {"bad name": "x"}),
        Response(200, b"", {"x": "€"}),
        Response(200, "text"),
        Response(101),
        Response(99),
        None,
    ],
)
async def test_a_response_that_http_cannot_carry_is_a_500(autojump_clock, serve, response):
    async def handler(request):
        return response

    server = await serve(handler)
    reply = await server.exchange(GET + LAST)
    assert reply.count(b"HTTP/1.1 500 ") == 2
    assert b"set-cookie" not in reply


async def test_a_handler_cannot_break_the_framing(autojump_clock, serve):
    async def handler(request):
        return Response(200, b"abc", {"Content-Length": "99", "Transfer-Encoding": "chunked", "Server": "x"})

    server = await serve(handler)
    reply = await server.exchange(GET + LAST)
    assert reply.count(b"content-length: 3\r\n") == 2
    assert b"chunked" not in reply
    assert b"server: x" not in reply


async def test_a_client_that_vanishes_disturbs_nobody(autojump_clock, serve):
    started = trio.Event()

    async def handler(request):
        started.set()
        await trio.sleep(1)
        return Response(200, bytes(1_000_000))

    server = await serve(handler)
    stream = await server.connect()
    await stream.send_all(GET)
    await started.wait()
    stream.reset()
    assert b"200 OK" in await server.exchange(LAST)
    assert server.transport.open_connections == 0
    assert server.log.entries == []


async def test_a_client_that_does_not_read_its_answer_is_dropped(autojump_clock, serve):
    async def handler(request):
        return Response(200, bytes(1_000_000))

    server = await serve(handler)
    stream = await server.connect()
    await stream.send_all(GET)
    await trio.sleep(11)
    assert server.transport.open_connections == 0
    await trio.aclose_forcefully(stream)


REQUESTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                GET,
                b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
                b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                b"GET /long HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"y" * 150),
                b"GET /many HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 9 + b"\r\n",
            ]
        ),
        st.binary(max_size=20),
    ),
    max_size=4,
).map(b"".join)


@given(REQUESTS, st.integers(1, 60))
def test_any_chunking_gives_the_same_requests(data, size):
    async def parse(chunks):
        client, server = memory_stream_pair(1 << 20)
        http = HttpConnection(
            server, config=TransportConfig(head_bytes=200, head_count=8, body_bytes=100), now=lambda: 0.0
        )
        seen = []

        async def send():
            for chunk in chunks:
                await client.send_all(chunk)
                await trio.testing.wait_all_tasks_blocked()
            await client.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            try:
                while (head := await http.next_head(set())) is not None:
                    seen.append((head.method, head.path, dict(head.headers), await http.read_body(head)))
                    framed = http.frame_response(head.method, Response(200, b"ok"), close=False)
                    if not await http.respond(*framed):
                        break
            except RequestError as error:
                # What is both malformed and too large is refused for what shows first.
                seen.append(400 if error.response.status == 431 else error.response.status)
            nursery.cancel_scope.cancel()
        return seen

    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    clock = trio.testing.MockClock(autojump_threshold=0)
    assert trio.run(parse, chunks, clock=clock) == trio.run(
        parse, [data], clock=trio.testing.MockClock(autojump_threshold=0)
    )


@given(
    st.dictionaries(
        st.text(st.characters(max_codepoint=0x17F), max_size=8) | st.sampled_from(["x-a", "sec-websocket-protocol"]),
        st.text(st.characters(max_codepoint=0x17F), max_size=12),
        max_size=3,
    )
)
def test_the_answer_to_an_upgrade_is_what_h11_would_send_or_refused_where_h11_refuses(headers):
    http = HttpConnection(memory_stream_pair()[0], config=TransportConfig(), now=lambda: 1_700_000_000.25)
    try:
        answer, _ = http.switch(headers)
    except ValueError:
        if any(char == "\x7f" or char < " " for value in headers.values() for char in value):
            return  # h11 lets some control characters through
        with pytest.raises((h11.LocalProtocolError, UnicodeEncodeError)):
            h11.InformationalResponse(
                status_code=101,
                headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            )
        return
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a"), ("upgrade", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    event = client.next_event()
    assert event.status_code == 101
    assert [pair for pair in event.headers if pair[0] not in (b"date", b"server")] == [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
    ]
    assert (b"date", b"Tue, 14 Nov 2023 22:13:20 GMT") in event.headers


async def chunks():
    for number in range(3):
        yield f"{number}\n".encode()
        await trio.sleep(1)


async def streamed(request):
    return Response(200, stream=chunks()) if request.path == "/stream" else Response.text(f"hello {request.path}")


async def test_a_streamed_body_is_chunked_and_the_connection_goes_on(autojump_clock, serve):
    server = await serve(streamed)
    reply = await server.exchange(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n" + LAST)
    assert b"Transfer-Encoding: chunked\r\n\r\n2\r\n0\n\r\n2\r\n1\n\r\n2\r\n2\n\r\n0\r\n\r\nHTTP/1.1 200" in reply
    assert reply.endswith(b"hello /last")


async def test_an_http_1_0_client_gets_a_streamed_body_up_to_the_end_of_the_connection(autojump_clock, serve):
    server = await serve(streamed)
    reply = await server.exchange(b"GET /stream HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert b"chunked" not in reply
    assert reply.endswith(b"\r\n\r\n0\n1\n2\n")


async def test_a_client_that_sends_more_than_a_request_head_while_it_reads_is_not_read_further(autojump_clock, serve):
    server = await serve(streamed, window_bytes=1_000)
    stream = await server.connect()
    await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with trio.move_on_after(2.5) as waited:
        await stream.send_all(LAST * 1_000)
    assert waited.cancelled_caught
    await trio.aclose_forcefully(stream)


async def test_a_response_that_is_streamed_while_the_server_drains_ends_its_connection(autojump_clock, serve, nursery):
    server = await serve(streamed)
    stream = await server.connect()
    await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await trio.sleep(0.5)
    begun = trio.current_time()
    assert await server.transport.drain(10)
    assert await server.transport.gone(10)
    assert trio.current_time() - begun == pytest.approx(2.5, abs=0.01)
    received = b""
    while more := await stream.receive_some():
        received += more
    assert received.endswith(b"0\r\n\r\n")
