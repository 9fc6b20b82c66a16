"""TCP streams on the loopback interface, held to trio's rules for streams and sockets."""

import socket
import sys
from contextlib import suppress

import pytest
import trio
from trio.testing import check_half_closeable_stream, wait_all_tasks_blocked

from runtime.platform import real_platform
from runtime.tcp import TCP_WRITE, TcpStream, open_listeners

pytestmark = pytest.mark.real


async def pair():
    """Two connected streams."""
    (listener,) = await open_listeners("127.0.0.1", 0)
    async with listener:
        client = socket.socket()
        client.connect(listener.socket.getsockname())
        client.setblocking(False)
        return await listener.accept(), TcpStream(client)


def local_pair():
    """Two connected streams without TCP in between, so that full is full: no acknowledgements make room later."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return tuple(TcpStream(end) for end in ends)


def fill(end):
    with suppress(BlockingIOError):
        while True:
            TCP_WRITE(end.socket, bytes(65_536))


async def full_pair():
    """Two connected streams that can send no more for now."""
    ends = local_pair()
    for end in ends:
        fill(end)
    return ends


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked")
async def test_a_connection_has_a_round_trip_until_it_is_closed():
    ours, theirs = await pair()
    async with theirs:
        async with ours:
            await ours.send_all(b"there")
            await theirs.receive_some()
            await theirs.send_all(b"and back")
            await ours.receive_some()
            assert 0 < ours.round_trip_s < 10
            assert 0 < theirs.round_trip_s < 10
        assert ours.round_trip_s is None


async def test_what_is_no_tcp_connection_has_no_round_trip():
    for end in local_pair():
        async with end:
            assert end.round_trip_s is None


async def test_it_is_a_half_closeable_stream_by_trios_own_checks():
    with trio.fail_after(60):
        await check_half_closeable_stream(pair, full_pair)


async def test_what_is_closed_here_says_closed_and_what_the_peer_ends_says_broken():
    with trio.fail_after(10):
        one, other = await pair()
        await one.aclose()
        await one.aclose()
        for call in (one.receive_some, lambda: one.send_all(b"x"), lambda: one.send_all(b""), one.send_eof):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        with pytest.raises(trio.ClosedResourceError):
            await one.wait_send_all_might_not_block()
        with pytest.raises(OSError, match="Bad file descriptor"):
            TCP_WRITE(one.socket, b"x")
        assert await other.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await other.send_all(bytes(100_000_000))
        await other.aclose()


async def test_a_reset_is_broken_for_whoever_waits(nursery):
    one, other = await pair()
    with trio.fail_after(10):
        other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        async def receive():
            with pytest.raises(trio.BrokenResourceError):
                await one.receive_some()

        async with trio.open_nursery() as receiving:
            receiving.start_soon(receive)
            await wait_all_tasks_blocked()
            await other.aclose()
        with pytest.raises(OSError):
            TCP_WRITE(one.socket, b"x")
    await one.aclose()


async def test_a_second_sender_or_receiver_is_refused():
    one, other = await full_pair()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send_all, b"x" * 1_000_000)
            await wait_all_tasks_blocked()
            for call in (lambda: one.send_all(b"x"), one.wait_send_all_might_not_block, one.send_eof):
                with pytest.raises(trio.BusyResourceError):
                    await call()
            nursery.cancel_scope.cancel()
    await one.aclose()
    await other.aclose()
    one, other = await pair()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.receive_some)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await one.receive_some()
            nursery.cancel_scope.cancel()
    await one.aclose()
    await other.aclose()


async def test_every_wait_is_a_checkpoint_and_cancelled_before_anything_happens():
    one, other = await pair()
    for call in (lambda: one.send_all(b"lost?"), lambda: one.send_all(b""), lambda: one.receive_some(), one.send_eof):
        with trio.CancelScope() as scope:
            scope.cancel()
            await call()
        assert scope.cancelled_caught
    await other.send_all(b"a")
    with trio.testing.assert_checkpoints():
        assert await one.receive_some() == b"a"
    with trio.testing.assert_checkpoints():
        await one.send_all(b"b")
    with trio.testing.assert_checkpoints():
        await one.send_all(b"")
    assert await other.receive_some() == b"b"
    await one.aclose()
    await other.aclose()


async def test_after_eof_nothing_can_be_sent_and_receiving_goes_on():
    one, other = await pair()
    with trio.fail_after(10):
        await one.send_eof()
        await one.send_eof()
        assert await other.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await one.send_all(b"x")
        await other.send_all(b"still")
        assert await one.receive_some() == b"still"
        for bad in (0, -1):
            with pytest.raises(ValueError, match="at least 1"):
                await one.receive_some(bad)
    await one.aclose()
    await other.aclose()


async def test_a_write_takes_what_fits_and_never_reaches_a_connection_that_reused_the_descriptor():
    with trio.fail_after(10):
        one, other = await pair()
        assert TCP_WRITE(one.socket, b"hello") == 5
        assert await other.receive_some() == b"hello"
        fill(one)
        number = one.socket.fileno()
        await one.aclose()
        after, its_peer = await pair()
        assert number in (after.socket.fileno(), its_peer.socket.fileno())
        with pytest.raises(OSError):
            TCP_WRITE(one.socket, b"not for you")
        await after.aclose()
        assert await its_peer.receive_some() == b""
        await its_peer.aclose()
        await other.aclose()


async def test_only_plain_tcp_is_written_at_once():
    one, other = await pair()
    platform = real_platform()
    assert platform.writer(one)(b"x") == 1
    assert platform.writer(trio.testing.memory_stream_pair()[0])(b"x") == 0
    await one.aclose()
    await other.aclose()


async def test_what_a_listener_accepts_has_its_options_and_the_peers_address():
    with trio.fail_after(10):
        (listener,) = await open_listeners("127.0.0.1", 0)
        listener.keep_alive(77)
        async with listener:
            client = await trio.open_tcp_stream(*listener.socket.getsockname())
            stream = await listener.accept()
            assert stream.peer == "127.0.0.1"
            for level, option, value in (
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 77),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
            ):
                assert stream.socket.getsockopt(level, option) == value
            await stream.aclose()
            await client.aclose()


async def test_a_listener_waits_is_cancelled_and_ends_its_waiters_when_it_closes(nursery):
    with trio.fail_after(10):
        (listener,) = await open_listeners("127.0.0.1", 0)
        client = await trio.open_tcp_stream(*listener.socket.getsockname())
        with trio.testing.assert_checkpoints():
            stream = await listener.accept()
        with trio.move_on_after(0) as scope:
            await listener.accept()
        assert scope.cancelled_caught

        async def accept():
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        async with trio.open_nursery() as accepting:
            accepting.start_soon(accept)
            await wait_all_tasks_blocked()
            await listener.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        await stream.aclose()
        await client.aclose()


async def test_an_address_in_use_is_refused():
    (listener,) = await open_listeners("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        await open_listeners("127.0.0.1", listener.socket.getsockname()[1])
    await listener.aclose()


async def test_a_stream_that_is_dropped_closes_its_socket_with_a_warning():
    one, other = await pair()
    dropped = [one]
    del one
    with pytest.warns(ResourceWarning):
        dropped.clear()
    with trio.fail_after(10):
        assert await other.receive_some() == b""
    await other.aclose()
