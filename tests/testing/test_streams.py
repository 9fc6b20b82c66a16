"""The memory network behaves like the streams it stands in for."""

import pytest
import trio
import trio.testing

from runtime.testing.streams import MemoryNetwork, memory_stream_pair


async def _pair():
    return memory_stream_pair()


async def _clogged():
    left, right = memory_stream_pair(100)
    left.write_now(bytes(100))
    right.write_now(bytes(100))
    return left, right


async def test_a_memory_stream_passes_trios_own_conformance_suite():
    await trio.testing.check_half_closeable_stream(_pair, _clogged)


async def test_write_now_takes_what_the_window_holds_and_never_waits():
    left, right = memory_stream_pair(10)
    assert left.write_now(b"0123456789abc") == 10
    assert left.write_now(b"abc") == 0
    assert await right.receive_some(4) == b"0123"
    assert left.write_now(b"abcdef") == 4
    assert await right.receive_some() == b"456789abcd"


async def test_a_sender_waits_until_the_receiver_makes_room(autojump_clock):
    left, right = memory_stream_pair(4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.send_all, b"abcdefgh")
        await trio.testing.wait_all_tasks_blocked()
        assert await right.receive_some() == b"abcd"
        await trio.testing.wait_all_tasks_blocked()
        assert await right.receive_some() == b"efgh"


async def test_a_reset_loses_what_was_in_flight_and_both_ends_find_out():
    left, right = memory_stream_pair()
    left.write_now(b"lost")
    left.reset()
    with pytest.raises(trio.BrokenResourceError):
        await right.receive_some()
    with pytest.raises(ConnectionResetError):
        right.write_now(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await left.receive_some()


async def test_of_what_is_torn_a_part_arrives_and_then_the_end():
    left, right = memory_stream_pair()
    left.tear_next(0.5)
    await left.send_all(b"a whole frame")
    assert await right.receive_some() == b"a whole"[:6]
    assert await right.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await right.send_all(b"?")
    with pytest.raises(trio.ClosedResourceError):
        await left.send_all(b"more")


async def test_what_is_not_read_fills_the_window_and_the_other_direction_goes_on(autojump_clock):
    left, right = memory_stream_pair(10)
    assert left.hold_what_is_sent()
    assert not left.hold_what_is_sent(), "it is held already"
    with trio.move_on_after(1) as late:
        await left.send_all(b"more than ten bytes")
    assert late.cancelled_caught
    await right.send_all(b"this way")
    assert await left.receive_some() == b"this way"
    left.release()
    assert await right.receive_some() == b"more than "


async def test_what_was_sent_before_a_close_arrives_and_an_answer_breaks():
    left, right = memory_stream_pair()
    left.write_now(b"last words")
    await left.aclose()
    assert await right.receive_some() == b"last words"
    assert await right.receive_some() == b""
    with pytest.raises(BrokenPipeError):
        right.write_now(b"x")


async def test_a_network_connects_by_address_in_order():
    network = MemoryNetwork()
    (listener,) = await network.listen("127.0.0.1", 0)
    host, port = listener.address
    first = await network.connect("localhost", port, peer="10.0.0.1")
    second = await network.connect(host, port)
    await second.send_all(b"2")
    await first.send_all(b"1")
    accepted = await listener.accept()
    assert accepted.peer == "10.0.0.1"
    assert await accepted.receive_some() == b"1"
    assert await (await listener.accept()).receive_some() == b"2"


async def test_nobody_listening_refuses_and_an_address_is_taken_once():
    network = MemoryNetwork()
    with pytest.raises(ConnectionRefusedError):
        await network.connect("127.0.0.1", 80)
    (listener,) = await network.listen("127.0.0.1", 80)
    with pytest.raises(OSError, match="in use"):
        await network.listen("localhost", 80)
    waiting = await network.connect("127.0.0.1", 80)
    await listener.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await waiting.receive_some()
    with pytest.raises(ConnectionRefusedError):
        await network.connect("127.0.0.1", 80)


async def test_cutting_the_network_resets_every_connection():
    network = MemoryNetwork()
    (listener,) = await network.listen("127.0.0.1", 80)
    clients = [await network.connect("127.0.0.1", 80) for _ in range(3)]
    accepted = await listener.accept()
    await accepted.send_all(b"lost")
    network.cut()
    for client in clients:
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
