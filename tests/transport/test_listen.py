"""Accepting connections, bounding them, and going down in order."""

import errno

import pytest
import trio
import trio.testing

from runtime.actor.http import Response
from runtime.testing.streams import MemoryListener

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n"
)


async def hello(request):
    return Response.text("hello")


async def test_connections_beyond_the_bound_get_503_and_the_others_go_on(autojump_clock, serve):
    server = await serve(hello, connections=2)
    kept = [await server.connect() for _ in range(2)]
    await trio.testing.wait_all_tasks_blocked()
    assert server.transport.open_connections == 2
    reply = await server.exchange(GET)
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5\r\n" in reply
    await kept[0].send_all(GET)
    assert (await kept[0].receive_some()).startswith(b"HTTP/1.1 200 ")
    await kept[1].aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert (await server.exchange(GET[:-2] + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_clients_that_hold_on_to_their_503_are_bounded_too(autojump_clock, serve):
    server = await serve(hello, connections=0, refusals=3)
    clients = [await server.connect() for _ in range(5)]
    await trio.testing.wait_all_tasks_blocked()
    answers = [await client.receive_some() for client in clients]
    assert sorted(answer[:12] for answer in answers) == [b"", b"", *[b"HTTP/1.1 503"] * 3]
    await trio.sleep(2.1)  # the linger ends
    assert (await server.exchange(b"")).startswith(b"HTTP/1.1 503 ")


async def test_running_out_of_descriptors_is_waited_out_and_logged_once(autojump_clock, serve, monkeypatch):
    accept, failures = MemoryListener.accept, [errno.EMFILE] * 5 + [errno.ECONNABORTED, errno.ENFILE]

    async def flaky(self):
        await trio.lowlevel.checkpoint()
        if failures:
            raise OSError(failures.pop(0), "no more")
        return await accept(self)

    monkeypatch.setattr(MemoryListener, "accept", flaky)
    server = await serve(hello)
    stream = await server.connect()
    await stream.send_all(GET)
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
    assert trio.current_time() == pytest.approx(0.6)
    assert [line["event"] for line in server.log.entries] == ["accept_paused"]


async def test_a_broken_listener_ends_the_server_loudly(autojump_clock, start, monkeypatch):
    async def broken(self):
        raise OSError(errno.EBADF, "gone")

    monkeypatch.setattr(MemoryListener, "accept", broken)
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await start(hello, nursery)
            await trio.sleep(1)


async def test_draining_finishes_requests_and_ends_idle_connections(autojump_clock, serve):
    async def slow(request):
        await trio.sleep(3)
        return Response.text("done")

    server = await serve(slow)
    idle, busy = [await server.connect() for _ in range(2)]
    await idle.send_all(GET)
    await trio.sleep(4)
    assert (await idle.receive_some()).endswith(b"done")
    await busy.send_all(GET + GET)
    fresh = await server.connect()
    await trio.sleep(1)
    with trio.fail_after(2.5):
        assert await server.transport.drain(10)
    reply = b""
    while more := await busy.receive_some():
        reply += more
    assert reply.count(b"HTTP/1.1 200 ") == 1
    assert b"connection: close" in reply
    assert await idle.receive_some() == b""
    assert await fresh.receive_some() == b""
    with pytest.raises(ConnectionRefusedError):
        await server.connect()
    assert await server.transport.gone(1)


async def test_a_drain_that_takes_too_long_says_so(autojump_clock, serve):
    async def stuck(request):
        await trio.sleep_forever()

    server = await serve(stuck)
    stream = await server.connect()
    await stream.send_all(GET)
    await trio.testing.wait_all_tasks_blocked()
    started = trio.current_time()
    assert not await server.transport.drain(5)
    assert trio.current_time() - started == pytest.approx(5)
    assert server.transport.requests_under_way == 1


async def test_serve_returns_once_it_was_stopped_and_every_connection_ended(autojump_clock, serve, room, nursery):
    server = await serve(room.fetch)
    async with server.client() as client:
        await client.send_message("x")
        await client.get_message()
        assert await server.transport.drain(1)  # a WebSocket is no request under way
        assert not await server.transport.gone(1)
        room.table.close_all(1001, "going away")
        assert await server.transport.gone(1)
        assert client.closed is None or client.closed.code == 1001


async def test_a_message_that_comes_after_the_servers_last_close_frame_wakes_nobody(autojump_clock, serve, room):
    server = await serve(room.fetch)
    async with server.client() as client:
        await client.send_message("x")
        await client.get_message()
        sockets = room.sockets
        room.table.close_all(1001, "going away")
        for ws in sockets:
            await ws.feed_message("on its way already")
        await trio.testing.wait_all_tasks_blocked()
        assert room.events == ["x"]


async def test_an_error_in_one_connection_is_logged_and_leaves_the_others(autojump_clock, serve, room):
    server = await serve(room.fetch)

    def broken(job):
        raise RuntimeError("a bug")

    async with server.client() as one, server.client() as other:
        room.table.receive, receive = broken, room.table.receive
        await other.send_message("x")
        await trio.testing.wait_all_tasks_blocked()
        room.table.receive = receive
        await one.send_message("y")
        assert await one.get_message() == "y"
    assert [line["event"] for line in server.log.entries] == ["connection_failed"]


async def test_while_many_websockets_are_being_opened_nobody_else_is_accepted_for_a_moment(autojump_clock, serve, room):
    begun = []
    go_on = trio.Event()

    async def handler(request):
        if request.web_socket is None:
            return Response.text("ok")
        begun.append(trio.current_time())
        await go_on.wait()
        return await room.fetch(request)

    server = await serve(handler, openings=2, opening_s=1.0)
    async with trio.open_nursery() as clients:
        for _ in range(5):
            clients.start_soon(server.exchange, UPGRADE)
            await trio.testing.wait_all_tasks_blocked()
        assert len(begun) == 3  # the third was let in before the second had come to its actor
        await trio.sleep(5)
        assert [round(at - begun[0]) for at in begun] == [0, 0, 0, 1, 2]
        assert b"200 OK" in await server.exchange(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        go_on.set()
        clients.cancel_scope.cancel()


async def test_a_crowd_that_vanishes_together_is_told_of_in_groups_and_others_run_in_between(
    autojump_clock, serve, room
):
    server = await serve(room.fetch, losses=4)
    clients = [await server.connect() for _ in range(40)]
    for client in clients:
        await client.send_all(UPGRADE)
        assert (await client.receive_some()).startswith(b"HTTP/1.1 101 ")
    told = []
    for client in clients:
        await client.aclose()
    while len(room.events) < len(clients):
        before = len(room.events)
        await trio.lowlevel.checkpoint()
        told.append(len(room.events) - before)
    assert {code for code, _, _ in room.events} == {1006}
    assert max(told) <= 4
    assert await server.transport.gone(1)
