"""TLS: the same server under `https` and `wss`, its handshakes bounded, its certificate changed without a pause."""

import random
import ssl

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked
from trio_websocket import wrap_client_stream

from runtime.actor.http import Response
from runtime.transport.certificate import Certificate, CertificateUnusable
from tests.authority import Authority

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


async def inline(fn, /, *args):
    return fn(*args)


@pytest.fixture
def serve_tls(serve, authority):
    """Start a server under TLS: `await serve_tls(handler, **config)`; `server.certificate` is what it shows."""

    async def start(handler, **config):
        certificate = await Certificate.read(authority.chain, authority.key, inline)
        server = await serve(handler, certificate=certificate, **config)
        server.certificate = certificate
        return server

    return start


async def hello(request):
    return Response.text("hello")


async def encrypted(server, context):
    stream = trio.SSLStream(await server.connect(), context, server_hostname="localhost", https_compatible=True)
    await stream.do_handshake()
    return stream


async def everything(stream):
    received = b""
    while more := await stream.receive_some():
        received += more
    return received


def fingerprint(stream):
    return stream.getpeercert(binary_form=True)


async def test_a_request_under_tls_is_answered(autojump_clock, serve_tls, authority):
    server = await serve_tls(hello)
    stream = await encrypted(server, authority.client())
    assert stream.version() == "TLSv1.3"
    await stream.send_all(GET)
    assert (await everything(stream)).endswith(b"\r\n\r\nhello")


async def test_tls_1_2_is_the_oldest_version_that_is_spoken(autojump_clock, serve_tls, authority):
    server = await serve_tls(hello)
    older = await encrypted(server, authority.client(maximum_version=ssl.TLSVersion.TLSv1_2))
    assert older.version() == "TLSv1.2"
    with pytest.warns(DeprecationWarning, match="deprecated"):
        oldest = authority.client(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    oldest.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(trio.BrokenResourceError):
        await encrypted(server, oldest)


async def test_signals_echo_over_wss_in_any_size_and_the_close_is_clean(autojump_clock, serve_tls, authority, room):
    server = await serve_tls(room.fetch)
    stream = await encrypted(server, authority.client())
    async with trio.open_nursery() as nursery:
        client = await wrap_client_stream(nursery, stream, "localhost", "/", max_message_size=1 << 25)
        for size in (0, 1, 16_383, 16_384, 16_385, 1_000_000):
            message = random.Random(size).randbytes(size)
            await client.send_message(message)
            assert await client.get_message() == message
        for ws in room.sockets:
            ws.send("last words")
            ws.close(4321, "enough")
        assert await client.get_message() == "last words"
        await client.aclose()
        assert client.closed.code == 4321
    assert await server.transport.gone(1)


async def test_the_round_trip_is_that_of_the_connection_beneath_tls(autojump_clock, serve_tls, authority, room):
    server = await serve_tls(room.fetch)
    stream = await encrypted(server, authority.client())
    async with trio.open_nursery() as nursery:
        client = await wrap_client_stream(nursery, stream, "localhost", "/")
        (ws,) = room.sockets
        assert ws.round_trip_s is None  # in memory nobody measures one
        server.network.connections[0].round_trip_s = 0.0125
        assert ws.round_trip_s == 0.0125
        await client.aclose()
    assert ws.round_trip_s is None


async def test_a_reader_that_stalls_under_tls_is_closed_and_the_others_get_everything(
    autojump_clock, serve_tls, authority, make_room
):
    room = make_room(backlog_bytes=100_000, slow_code=4103)
    server = await serve_tls(room.fetch, window_bytes=8_192)
    async with trio.open_nursery() as nursery:
        streams = [await encrypted(server, authority.client()) for _ in range(2)]
        _, reader = [await wrap_client_stream(nursery, stream, "localhost", "/") for stream in streams]
        streams[0].transport_stream.hold()
        received = []

        async def read():
            while len(received) < 400:
                received.append(await reader.get_message())

        nursery.start_soon(read)
        for _ in range(400):
            for ws in room.sockets:
                ws.send("m" * 1_000)
                assert ws.backlog_bytes <= 102_000
            await trio.sleep(0.05)
        await trio.sleep(20)
        assert len(received) == 400
        assert len(room.sockets) == 1
        nursery.cancel_scope.cancel()


async def test_a_handshake_that_does_not_come_is_given_up_in_time(autojump_clock, serve_tls):
    server = await serve_tls(hello, tls_s=5.0)
    streams = [await server.connect() for _ in range(500)]
    for stream in streams:
        await stream.send_all(b"\x16\x03\x01")  # a record begins, and no more of it comes
    await wait_all_tasks_blocked()
    assert server.transport.open_connections == 500
    started = trio.current_time()
    assert await server.transport.gone(6)
    assert trio.current_time() - started == pytest.approx(5.0)
    assert [await stream.receive_some() for stream in streams] == [b""] * 500


@pytest.mark.parametrize("said", [GET, b"\x00" * 100, b"\x16\x03\x01\x00\x05hello", b""])
async def test_what_is_no_tls_ends_its_connection_and_no_other(autojump_clock, serve_tls, authority, said):
    server = await serve_tls(hello)
    strange = await server.connect()
    await strange.send_all(said)
    await strange.send_eof()
    assert b"HTTP" not in await everything(strange)
    stream = await encrypted(server, authority.client())
    await stream.send_all(GET)
    assert (await everything(stream)).endswith(b"hello")
    assert [line for line in server.log.entries if line["log_level"] != "debug"] == []


async def test_a_connection_beyond_the_bound_is_not_answered_in_the_clear(autojump_clock, serve_tls, authority):
    server = await serve_tls(hello, connections=1)
    kept = await encrypted(server, authority.client())
    with pytest.raises(trio.BrokenResourceError):
        await encrypted(server, authority.client())
    await kept.send_all(GET)
    assert (await everything(kept)).endswith(b"hello")


async def test_going_down_ends_handshakes_that_are_under_way(autojump_clock, serve_tls):
    server = await serve_tls(hello)
    stream = await server.connect()
    await wait_all_tasks_blocked()
    server.transport.stop()
    assert await stream.receive_some() == b""
    assert await server.transport.gone(0.1)


async def test_after_a_reload_new_connections_see_the_new_certificate_and_old_ones_stay(
    autojump_clock, serve_tls, authority, room
):
    server = await serve_tls(room.fetch)
    old = await encrypted(server, authority.client())
    async with trio.open_nursery() as nursery:
        client = await wrap_client_stream(nursery, old, "localhost", "/")
        before = server.certificate.sha256
        authority.issue()
        await server.certificate.reload()
        assert server.certificate.sha256 != before
        new = await encrypted(server, authority.client())
        assert fingerprint(new) != fingerprint(old)
        await client.send_message("still here")
        assert await client.get_message() == "still here"
        await new.send_all(GET)
        nursery.cancel_scope.cancel()


def break_key(authority):
    authority.key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (break_key, "it is not that of the certificate"),
        (lambda authority: authority.chain.unlink(), "cannot be read: No such file"),
        (lambda authority: authority.key.write_text("secret"), "there is no private key in it; it must be PEM"),
        (lambda authority: authority.chain.write_text("x"), "there is no certificate in it; it must be PEM"),
        (
            lambda authority: authority.chain.write_text(
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
            ),
            "cannot be used",
        ),
    ],
)
async def test_a_bad_new_certificate_is_refused_and_the_old_one_stays(
    autojump_clock, serve_tls, authority, spoil, says
):
    server = await serve_tls(hello)
    before = server.certificate.sha256
    spoil(authority)
    with pytest.raises(CertificateUnusable, match=says):
        await server.certificate.reload()
    assert server.certificate.sha256 == before
    stream = await encrypted(server, authority.client())
    await stream.send_all(GET)
    assert (await everything(stream)).endswith(b"hello")


async def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(authority):
    lines = authority.key.read_text().splitlines()
    locked = ["-----BEGIN RSA PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED", f"DEK-Info: AES-128-CBC,{'00' * 16}", ""]
    authority.key.write_text("\n".join([*locked, *lines[1:-1], "-----END RSA PRIVATE KEY-----", ""]))
    with pytest.raises(CertificateUnusable, match="it is encrypted"):
        await Certificate.read(authority.chain, authority.key, inline)


async def test_those_that_take_long_to_arrive_make_room_for_those_that_do_not(autojump_clock, serve):
    server = await serve(hello, arriving=10, opening_s=0.02)
    slow = [await server.connect() for _ in range(30)]
    await trio.sleep(1)
    assert server.transport.open_connections <= 11
    started = trio.current_time()
    assert (await server.exchange(GET)).endswith(b"hello")
    assert trio.current_time() - started < 0.1
    assert await slow[0].receive_some() == b""
    await slow[-1].send_all(GET)
    assert (await everything(slow[-1])).endswith(b"hello")
