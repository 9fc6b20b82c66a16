"""Pushing to one client: in order, never waiting, never more than the bound."""

import struct

import pytest
import trio
import trio.testing

from runtime.frames import encode_close, encode_message
from runtime.platform import Writer
from runtime.testing.streams import memory_stream_pair
from runtime.transport.frame_stream import SLOW_REASON, FrameStream, fit_reason, send_response

SLOW_CLOSE = encode_close(4103, SLOW_REASON)


class Wire:
    """A frame stream, and the client's end of its connection."""

    def __init__(self, nursery, window=100, *, uncorked=True, write=None, **options):
        self.client, self.server = memory_stream_pair(window)
        self.tasks = 0
        self.writes = []

        def start_soon(fn):
            self.tasks += 1
            nursery.start_soon(fn)

        write = write or self.server.write_now

        def counted(data):
            taken = write(data)
            self.writes.append(taken)
            return taken

        self.out = FrameStream(
            self.server,
            write=Writer(lambda _, data: counted(data), None),
            start_soon=start_soon,
            **{"slow_code": 4103, "backlog_bytes": 1_000, **options},
        )
        if uncorked:
            self.out.uncork(b"")

    async def received(self):
        """What arrives until nothing more does; the last item is how the connection stands."""
        data = b""
        while True:
            with trio.move_on_after(0.001) as patience:
                try:
                    more = await self.client.receive_some()
                except trio.BrokenResourceError:
                    return data, "reset"
            if patience.cancelled_caught:
                return data, "open"
            if not more:
                return data, "closed"
            data += more


@pytest.fixture
def make_wire(nursery):
    return lambda *args, **options: Wire(nursery, *args, **options)


async def test_a_push_writes_at_once_and_starts_no_task(autojump_clock, make_wire):
    wire = make_wire()
    wire.out.push(b"one")
    wire.out.push(b"two")
    assert wire.writes[-2:] == [3, 3]
    assert wire.out.backlog_bytes == wire.tasks == 0
    assert await wire.received() == (b"onetwo", "open")


async def test_what_the_window_refuses_waits_in_order_and_then_writes_are_direct_again(autojump_clock, make_wire):
    wire = make_wire(100)
    frames = [bytes([i]) * 30 for i in range(10)]
    for frame in frames:
        wire.out.push(frame)
    assert wire.out.backlog_bytes == 200
    assert await wire.received() == (b"".join(frames), "open")
    assert wire.tasks == 1
    assert wire.out.backlog_bytes == 0
    wire.out.push(b"direct")
    assert wire.writes[-1] == 6
    assert wire.tasks == 1


async def test_nothing_is_written_between_the_halves_of_a_frame(autojump_clock, make_wire):
    wire = make_wire(10)
    wire.out.push(b"0123456789abcdef")
    await trio.testing.wait_all_tasks_blocked()
    assert await wire.client.receive_some(3) == b"012"
    wire.out.push(b"next")  # there is room now, but the rest of the first one comes first
    assert await wire.received() == (b"3456789abcdefnext", "open")


async def test_the_backlog_may_reach_its_bound_and_a_byte_more_closes(autojump_clock, make_wire):
    wire = make_wire(100, backlog_bytes=50)
    wire.out.push(bytes(100))
    wire.out.push(bytes(50))
    assert wire.out.backlog_bytes == 50
    wire.out.push(b"x")
    assert wire.out.backlog_bytes == len(SLOW_CLOSE)
    wire.out.push(b"ignored")
    assert await wire.received() == (bytes(100) + SLOW_CLOSE, "open")


async def test_a_slow_reader_gets_the_rest_of_a_half_sent_frame_then_the_close(autojump_clock, make_wire):
    wire = make_wire(100, backlog_bytes=100)
    wire.out.push(b"a" * 60)
    wire.out.push(b"b" * 60)  # 40 of it fit
    wire.out.push(b"c" * 50)
    wire.out.push(b"d" * 50)  # over the bound
    assert wire.out.backlog_bytes == 20 + len(SLOW_CLOSE)
    assert await wire.received() == (b"a" * 60 + b"b" * 60 + SLOW_CLOSE, "open")


async def test_one_frame_over_the_bound_is_finished_before_the_close(autojump_clock, make_wire):
    wire = make_wire(10, backlog_bytes=50)
    wire.out.push(b"z" * 100)
    assert await wire.received() == (b"z" * 100 + SLOW_CLOSE, "open")


async def test_a_reader_that_makes_no_progress_for_five_seconds_is_closed(autojump_clock, make_wire):
    wire = make_wire(10)
    wire.out.push(bytes(15))
    await trio.sleep(4)
    assert await wire.client.receive_some(1)
    await trio.sleep(4)  # there was progress in between
    assert wire.out.backlog_bytes == 4
    await trio.sleep(1.5)
    assert wire.out.backlog_bytes == 4 + len(SLOW_CLOSE)
    assert await wire.received() == (bytes(14) + SLOW_CLOSE, "open")


async def test_a_reader_that_never_reads_is_cut_ten_seconds_after_the_close(autojump_clock, make_wire):
    wire = make_wire(10)
    wire.out.push(bytes(500))
    await trio.sleep(5 + 9.9)
    assert wire.tasks == 1
    assert not wire.server._closed
    await trio.sleep(0.2)
    assert wire.server._closed
    assert await wire.received() == (bytes(10), "closed")


async def test_close_goes_after_everything_pushed_and_nothing_after_it(autojump_clock, make_wire):
    wire = make_wire(10)
    wire.out.push(b"a" * 30)
    wire.out.close(1000, "bye")
    wire.out.push(b"never")
    wire.out.close(1001)
    assert await wire.received() == (b"a" * 30 + encode_close(1000, "bye"), "open")


@pytest.mark.parametrize("ours_first", [True, False])
async def test_after_both_close_frames_the_connection_ends_at_once(autojump_clock, make_wire, ours_first):
    wire = make_wire()
    for step in (lambda: wire.out.close(1000), wire.out.peer_closed)[:: 1 if ours_first else -1]:
        step()
        await trio.testing.wait_all_tasks_blocked()
    assert await wire.received() == (encode_close(1000), "closed")
    assert trio.current_time() < 1


async def test_a_peer_that_never_answers_a_close_is_cut_after_ten_seconds(autojump_clock, make_wire):
    wire = make_wire()
    wire.out.close(None)
    await trio.sleep(9.9)
    assert await wire.received() == (encode_close(None), "open")
    await trio.sleep(0.2)
    assert await wire.received() == (b"", "closed")


async def test_cut_drops_the_connection_and_the_queue(autojump_clock, make_wire):
    wire = make_wire(10)
    wire.out.push(bytes(500))
    wire.out.cut()
    assert wire.out.backlog_bytes == 0
    assert wire.out.was_cut
    wire.out.push(b"x")
    wire.out.close(1000)
    assert await wire.received() == (bytes(10), "closed")


async def test_what_is_pushed_before_the_handshake_leaves_after_it_in_one_write(autojump_clock, make_wire):
    wire = make_wire(uncorked=False)
    wire.out.push(b"first")
    wire.out.push(b"second")
    assert wire.writes == []
    assert wire.out.backlog_bytes == 11
    wire.out.uncork(b"101 ")
    assert wire.writes == [15]
    assert await wire.received() == (b"101 firstsecond", "open")
    assert wire.tasks == 0


async def test_a_close_before_the_handshake_leaves_after_it(autojump_clock, make_wire):
    wire = make_wire(uncorked=False)
    wire.out.push(b"only")
    wire.out.close(4000, "go")
    wire.out.uncork(b"101 ")
    assert await wire.received() == (b"101 only" + encode_close(4000, "go"), "open")
    await trio.sleep(10.1)
    assert await wire.received() == (b"", "closed")


async def test_too_much_before_the_handshake_closes_after_it(autojump_clock, make_wire):
    wire = make_wire(uncorked=False, backlog_bytes=10)
    wire.out.push(bytes(11))
    wire.out.uncork(b"101 ")
    assert await wire.received() == (b"101 " + SLOW_CLOSE, "open")


async def test_a_cut_before_the_handshake_ends_the_connection_without_an_answer(autojump_clock, make_wire):
    wire = make_wire(uncorked=False)
    wire.out.push(b"x")
    wire.out.cut()
    wire.out.uncork(b"101 ")
    assert await wire.received() == (b"", "closed")


async def test_an_actor_sets_bound_and_code(autojump_clock, make_wire):
    wire = make_wire(10)
    wire.out.configure(backlog_bytes=20, slow_code=1013, stall_s=5)
    wire.out.push(bytes(10))
    wire.out.push(bytes(21))
    assert await wire.received() == (bytes(10) + encode_close(1013, SLOW_REASON), "open")


@pytest.mark.parametrize("queued", [False, True])
async def test_a_broken_connection_takes_pushes_silently_and_holds_nothing(autojump_clock, make_wire, queued):
    wire = make_wire(10)
    if queued:
        wire.out.push(bytes(20))
    wire.client.reset()
    for _ in range(3):
        wire.out.push(b"x" * 5)
    await trio.testing.wait_all_tasks_blocked()
    wire.out.push(b"x")
    wire.out.close(1000)
    assert wire.out.backlog_bytes == 0
    wire.out.lost()
    await trio.testing.wait_all_tasks_blocked()


async def test_a_failed_peer_sees_the_close_and_then_our_end(autojump_clock, make_wire):
    wire = make_wire()
    wire.out.fail(1002, "no")
    assert await wire.received() == (encode_close(1002, "no"), "closed")
    await wire.client.send_all(b"still talking")  # our side still reads
    await trio.sleep(10.1)
    with pytest.raises(trio.BrokenResourceError):
        await wire.client.send_all(b"no more")


async def test_a_stream_that_only_its_task_can_write_to_is_served_by_its_task_alone(autojump_clock, make_wire):
    wire = make_wire(write=lambda data: 0)
    for i in range(5):
        wire.out.push(bytes([i]) * 30)
    wire.out.close(1000)
    assert await wire.received() == (b"".join(bytes([i]) * 30 for i in range(5)) + encode_close(1000), "open")
    assert wire.tasks == 1


async def test_a_stuck_stream_that_only_its_task_can_write_to_is_dropped(autojump_clock, make_wire):
    wire = make_wire(10, write=lambda data: 0)
    wire.out.push(bytes(500))
    await trio.sleep(5.1)
    assert wire.server._closed


async def test_a_response_that_nobody_reads_gives_up(autojump_clock):
    _client, server = memory_stream_pair(100)
    with pytest.raises(trio.BrokenResourceError, match="64 KiB in 10 s"):
        await send_response(server, bytes(1_000), stall_s=10)
    assert trio.current_time() == pytest.approx(10)
    assert server.unread_bytes == 100


def test_a_reason_is_cut_between_characters():
    assert fit_reason("é" * 100) == "é" * 61
    assert struct.unpack("!BB", encode_close(1000, fit_reason("x" * 500))[:2]) == (0x88, 125)


async def test_frames_pushed_together_arrive_as_the_same_bytes(autojump_clock, make_wire):
    wire = make_wire(7, backlog_bytes=1 << 20)
    frames = [encode_message("m" * (i % 50)) for i in range(300)]
    for frame in frames:
        wire.out.push(frame)
    assert await wire.received() == (b"".join(frames), "open")


async def test_who_writes_directly_hears_when_that_is_over_and_when_it_may_again(autojump_clock, make_wire):
    wire = make_wire()
    heard = []
    wire.out.configure(
        backlog_bytes=1_000, slow_code=4103, stall_s=5, changed=lambda: heard.append(wire.out.direct is not None)
    )
    assert wire.out.direct(b"x") == 1
    wire.out.push(bytes(150))
    wire.out.push(bytes(10))
    assert heard == [False]
    assert await wire.received() == (b"x" + bytes(160), "open")
    assert heard == [False, True]
    wire.out.close(1000)
    assert heard == [False, True, False]
    wire.out.cut()
    assert heard == [False, True, False]


async def test_what_a_direct_write_leaves_is_sent_before_everything_later(autojump_clock, make_wire):
    wire = make_wire()
    frame = bytes(range(150))
    wire.out.push_rest(frame, wire.out.direct(frame))
    wire.out.push(b"later")
    assert await wire.received() == (frame + b"later", "open")
