"""Faults on purpose: what a platform does that lets sockets, commits and the clock fail for a time."""

from __future__ import annotations

import pytest
import trio

from runtime.faults import with_faults
from runtime.testing.platform import virtual_platform
from runtime.testing.streams import MemoryNetwork

OPERATORS = "/console/"
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


@pytest.fixture
async def world():
    """A faulty platform, its faults, and what connects to it: gives both ends, after a request and its answer."""
    network = MemoryNetwork()
    platform, faults = with_faults(virtual_platform(0, network), lambda: None)
    (listener,) = await platform.listen("127.0.0.1", 8787)

    async def connect(path, answer=UPGRADED):
        theirs = await network.connect("127.0.0.1", 8787)
        ours = await listener.accept()
        await theirs.send_all(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        await ours.receive_some()
        await ours.send_all(answer)
        await theirs.receive_some()
        return ours, theirs

    connect.network = network
    return platform, faults, connect


async def test_websockets_and_event_streams_can_be_told_from_requests_and_from_the_operators_own(autojump_clock, world):
    _, faults, connect = world
    socket, _ = await connect("/v1/stream")
    events, _ = await connect("/v1/events", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    await connect("/v1/history", b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}")
    await connect("/console/stream")
    assert faults.connections(OPERATORS) == [socket, events]
    await socket.aclose()
    assert faults.connections(OPERATORS) == [events]


async def test_of_what_is_encrypted_everything_counts(autojump_clock, world):
    platform, faults, connect = world
    (listener,) = await platform.listen("127.0.0.1", 8788)
    theirs = await connect.network.connect("127.0.0.1", 8788)
    ours = await listener.accept()
    assert faults.connections(OPERATORS) == []
    await theirs.send_all(b"\x16\x03\x01 a hello of TLS")
    await ours.receive_some()
    assert faults.connections(OPERATORS) == [ours]


async def test_a_dropped_connection_is_broken_for_both_ends(autojump_clock, world):
    platform, faults, connect = world
    ours, theirs = await connect("/v1/stream")
    write = platform.writer(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broken, ours.receive_some)
        await trio.sleep(1)
        await faults.drop(faults.connections(OPERATORS))
    with pytest.raises(OSError, match=r"."):
        write(b"late")
    with pytest.raises(trio.BrokenResourceError, match="on purpose"):
        await ours.send_all(b"late")
    assert await theirs.receive_some() == b""
    assert faults.connections(OPERATORS) == []


async def test_a_stalled_connection_takes_and_gives_nothing_until_its_time_is_over(autojump_clock, world):
    platform, faults, connect = world
    ours, theirs = await connect("/v1/stream")
    faults.stall([ours], 10)
    begun = trio.current_time()
    assert platform.writer(ours)(b"now") == 0
    await theirs.send_all(b"to you")
    assert await ours.receive_some() == b"to you"
    assert trio.current_time() - begun == 10
    faults.stall([ours], 10)
    await ours.send_all(b"to them")
    assert trio.current_time() - begun == 20
    assert platform.writer(ours)(b"now") == 3


async def test_commits_wait_for_a_time(autojump_clock, world):
    platform, faults, _ = world
    faults.delay_commits(2, seconds=5)
    for expected in (2, 4, 5, 5):
        assert await platform.begin_commit(len, "abc").end() == 3
        assert trio.current_time() == expected
    faults.delay_commits(2, seconds=5)
    await platform.sync_file()
    assert trio.current_time() == 7


async def test_the_clock_is_skewed_for_a_time(autojump_clock, world):
    platform, faults, _ = world
    now = platform.now()
    faults.skew_clock(-300, seconds=10)
    assert platform.now() == now - 300
    await trio.sleep(10)
    assert platform.now() == now + 10


async def test_everything_ends_at_once_when_it_is_told(autojump_clock, world):
    platform, faults, connect = world
    ours, theirs = await connect("/v1/stream")
    now = platform.now()
    faults.stall([ours], 60)
    faults.skew_clock(300, seconds=60)
    faults.delay_commits(60, seconds=60)
    faults.end()
    await platform.begin_commit(len, "").end()
    await ours.send_all(b"x")
    assert await theirs.receive_some() == b"x"
    assert platform.now() == now


async def broken(wait):
    with pytest.raises(trio.BrokenResourceError):
        await wait()
