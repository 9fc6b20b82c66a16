"""Frames that break the WebSocket protocol or its bounds, sent to the signal service."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import pytest
import trio

from actors.settings import ConnectionSettings, Settings
from tests.security.kit import deflated, frame, service, socket

COMPRESSING = Settings(sources_enabled=False, connections=ConnectionSettings(compression=True))
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        pytest.param(frame(b"x" * 16_385), 1009, id="a message too large"),
        pytest.param(frame(b"", length=1 << 40), 1009, id="a terabyte announced"),
        pytest.param(frame(b"", length=(1 << 63) - 1), 1009, id="the largest length announced"),
        pytest.param(
            frame(b"x" * 9_000, fin=False) + frame(b"x" * 9_000, opcode=0), 1009, id="too large in two fragments"
        ),
        pytest.param(
            frame(b"", fin=False) + frame(b"x", opcode=0, fin=False) * 16_385,
            1009,
            id="too large in fragments of one byte",
        ),
        pytest.param(frame(b"a", opcode=9, fin=False), 1002, id="a ping in fragments"),
        pytest.param(frame(b"a", opcode=8, fin=False), 1002, id="a close in fragments"),
        pytest.param(frame(b"x" * 126, opcode=9), 1002, id="a ping too long"),
        pytest.param(frame(b"x" * 126, opcode=8), 1002, id="a close too long"),
        pytest.param(frame(b"x", masked=False), 1002, id="not masked"),
        pytest.param(frame(b"x", opcode=3), 1002, id="a reserved opcode"),
        pytest.param(frame(b"x", opcode=11), 1002, id="a reserved control opcode"),
        pytest.param(frame(b"x", rsv1=True), 1002, id="compressed without an agreement"),
        pytest.param(frame(b"x", opcode=0), 1002, id="a continuation of nothing"),
        pytest.param(frame(b"x", fin=False) + frame(b"x"), 1002, id="a message within another"),
        pytest.param(frame(b"\xff"), 1007, id="no UTF-8"),
        pytest.param(frame(b"\xed\xa0\x80"), 1007, id="a surrogate"),
        pytest.param(frame(b"\xf4\x90\x80\x80", fin=False), 1007, id="beyond Unicode, in a first fragment"),
        pytest.param(frame(b"\xc3", fin=False) + frame(b"x", opcode=0), 1007, id="a character cut by a fragment"),
        pytest.param(frame(b"\x03\xe8\xff", opcode=8), 1007, id="a reason of a close that is no UTF-8"),
        pytest.param(frame(b"\x03", opcode=8), 1002, id="half a close code"),
        pytest.param(frame(b"\x03\xed", opcode=8), 1002, id="a close code that is never sent"),
        pytest.param(frame(b"\x00\x00", opcode=8), 1002, id="a close code below 1000"),
    ],
)
async def test_a_frame_that_breaks_a_rule_ends_its_connection_with_the_code_for_it(autojump_clock, attack, code):
    async with service() as server, socket(server, hello={}) as other, socket(server, hello={}) as attacker:
        with suppress(trio.BrokenResourceError):  # it was cut off
            await attacker.send(attack)
        assert await attacker.closed() == code
        await other.say(t="ping")
        assert (await other.messages()) == [{"t": "pong"}]


@pytest.mark.parametrize("size", [200_000, 100_000_000])
async def test_a_compression_bomb_is_not_inflated_beyond_its_bound(autojump_clock, size):
    bomb = deflated(b"x" * size)
    if len(bomb) > 16_000:
        bomb = bomb[:16_000]  # as much of it as a message may be
    async with service(COMPRESSING) as server, socket(server, DEFLATE) as attacker:
        attack = frame(bomb, rsv1=True)
        tracemalloc.start()
        try:
            await attacker.send(attack)
            assert await attacker.closed() == 1009
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 2_000_000


async def test_data_that_is_not_compressed_though_it_says_so_ends_its_connection(autojump_clock):
    async with service(COMPRESSING) as server, socket(server, DEFLATE) as attacker:
        await attacker.send(frame(b"\xff" * 100, rsv1=True))
        assert await attacker.closed() == 1007


async def test_a_flood_of_pings_is_answered_or_its_sender_closed_and_no_more_is_held_than_the_bound(autojump_clock):
    async with service() as server, socket(server, hello={}) as other, socket(server, hello={}) as attacker:
        ping = frame(b"x" * 125, opcode=9) * 500

        async def flood():
            try:
                for _ in range(40):  # it never reads: 20,000 pongs of 127 bytes
                    await attacker.send(ping)
            except trio.BrokenResourceError:
                pass

        with trio.move_on_after(30):
            await flood()
        await other.say(t="ping")
        assert (await other.messages()) == [{"t": "pong"}]
        await trio.sleep(60)
        assert len(server.network.connections) == 1
