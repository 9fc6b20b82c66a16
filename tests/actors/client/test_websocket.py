"""The real transport over streams in memory: trio-websocket on both ends."""

import pytest
import trio
from trio_websocket import ConnectionClosed, wrap_server_stream

from actors.client.address import Address
from actors.client.errors import InvalidUrl
from actors.client.transport import TransportClosed
from actors.client.websocket import websocket_connect

ADDRESS = Address.parse("http://example.org:8787")


def streams():
    client, server = trio.testing.memory_stream_pair()
    opened = []

    async def open_stream(address):
        opened.append(address)
        return client

    return websocket_connect(open_stream), server, opened


async def test_text_goes_both_ways_and_the_request_is_right(nursery, autojump_clock):
    connect, stream, opened = streams()
    seen = {}

    async def serve():
        request = await wrap_server_stream(nursery, stream)
        seen.update(path=request.path, protocols=request.proposed_subprotocols, headers=dict(request.headers))
        socket = await request.accept(subprotocol="signals.v1.json")
        await socket.send_message("é" + await socket.get_message())

    nursery.start_soon(serve)
    async with connect(ADDRESS, "secret") as transport:
        await transport.send("hello")
        assert await transport.receive() == "éhello"
    assert opened == [ADDRESS]
    assert seen["path"] == "/v1/stream"
    assert "signals.v1.json" in seen["protocols"]
    assert seen["headers"][b"authorization"] == b"Bearer secret"
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("code", [4103, 4004, 1001])
async def test_the_servers_close_code_arrives_after_what_was_sent_before(code, nursery, autojump_clock):
    connect, stream, _ = streams()

    async def serve():
        socket = await (await wrap_server_stream(nursery, stream)).accept()
        await socket.send_message("last words")
        await socket.aclose(code, "because")

    nursery.start_soon(serve)
    async with connect(ADDRESS, None) as transport:
        assert await transport.receive() == "last words"
        with pytest.raises(TransportClosed) as caught:
            await transport.receive()
        assert (caught.value.code, caught.value.reason) == (code, "because")
        with pytest.raises(TransportClosed):
            await transport.send("too late")
    nursery.cancel_scope.cancel()


async def test_our_close_code_reaches_the_server(nursery, autojump_clock):
    connect, stream, _ = streams()
    codes = []

    async def serve():
        socket = await (await wrap_server_stream(nursery, stream)).accept()
        try:
            await socket.get_message()
        except ConnectionClosed as closed:
            codes.append(closed.reason.code)

    nursery.start_soon(serve)
    async with connect(ADDRESS, None) as transport:
        await transport.aclose(4198, "dead link")
    await trio.testing.wait_all_tasks_blocked()
    assert codes == [4198]
    nursery.cancel_scope.cancel()


async def test_a_connection_that_breaks_off_has_no_good_code(nursery, autojump_clock):
    connect, stream, _ = streams()

    async def serve():
        await (await wrap_server_stream(nursery, stream)).accept()
        await stream.aclose()

    nursery.start_soon(serve)
    async with connect(ADDRESS, None) as transport:
        with pytest.raises(TransportClosed) as caught:
            await transport.receive()
        assert caught.value.code in (None, 1006)
    nursery.cancel_scope.cancel()


async def test_a_refused_handshake_carries_status_words_and_wait(nursery, autojump_clock):
    connect, stream, _ = streams()

    async def serve():
        await stream.receive_some()
        await stream.send_all(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\ndraining\n"
        )

    nursery.start_soon(serve)
    with pytest.raises(TransportClosed) as caught:
        async with connect(ADDRESS, None):
            raise AssertionError
    assert (caught.value.status, caught.value.retry_after_ms, caught.value.code) == (503, 7_000, None)
    assert str(ADDRESS) in caught.value.reason
    nursery.cancel_scope.cancel()


async def test_a_network_error_is_told_in_words(autojump_clock):
    async def open_stream(address):
        raise OSError("all attempts failed") from ExceptionGroup(
            "", [ConnectionRefusedError(111, "Connection refused")]
        )

    with pytest.raises(TransportClosed, match="Connection refused"):
        async with websocket_connect(open_stream)(ADDRESS, None):
            raise AssertionError


async def test_a_binary_frame_is_refused(nursery, autojump_clock):
    connect, stream, _ = streams()

    async def serve():
        socket = await (await wrap_server_stream(nursery, stream)).accept()
        await socket.send_message(b"\x00")

    nursery.start_soon(serve)
    async with connect(ADDRESS, None) as transport:
        with pytest.raises(TransportClosed) as caught:
            await transport.receive()
        assert caught.value.code == 1003
    nursery.cancel_scope.cancel()


async def test_leaving_by_cancellation_leaves_nothing_behind(nursery, autojump_clock):
    connect, stream, _ = streams()

    async def serve():
        await (await wrap_server_stream(nursery, stream)).accept()

    nursery.start_soon(serve)
    with trio.move_on_after(5) as scope:
        async with connect(ADDRESS, None) as transport:
            await transport.receive()
    assert scope.cancelled_caught
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://127.0.0.1:8787", "ws://127.0.0.1:8787/v1/stream"),
        ("localhost:9", "ws://localhost:9/v1/stream"),
        ("https://h.example", "wss://h.example/v1/stream"),
        ("wss://h.example:443/", "wss://h.example/v1/stream"),
        ("ws://h:80/v1/stream", "ws://h/v1/stream"),
        ("https://h/base/", "wss://h/base/v1/stream"),
        ("http://h/v1/stream?ticket=x", "ws://h/v1/stream?ticket=x"),
        ("[::1]:8787", "ws://[::1]:8787/v1/stream"),
        ("example.org", "ws://example.org/v1/stream"),
    ],
)
def test_addresses(url, text):
    assert str(Address.parse(url)) == text
    assert Address.parse(text) == Address.parse(url)


@pytest.mark.parametrize(
    "url", ["", "ftp://h", "http://", "http://h:99999", "h:port", "http://u:p@h", "http://h#x", "[::1"]
)
def test_what_is_no_address(url):
    with pytest.raises(InvalidUrl):
        Address.parse(url)
