"""permessage-deflate: what is agreed, and that nothing a client sends grows beyond its bound."""

import itertools
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate

from runtime.frames import PreparedMessage, encode_pong
from runtime.transport.deflate import agree
from runtime.transport.messages import Closed, MessageDecoder, Ping, ProtocolError
from tests.deflating import deflating

ANSWER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
WIRE, INFLATED = 300, 3_000
NOT_INFLATED = (1007, "compressed data that cannot be inflated")


def deflated(data, flush=zlib.Z_SYNC_FLUSH):
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    compressed = compressor.compress(data) + compressor.flush(flush)
    return compressed[:-4] if flush == zlib.Z_SYNC_FLUSH else compressed


def frame(opcode, payload=b"", *, fin=True, rsv1=False):
    size, mask = len(payload), b"\x01\xfe\x13\x77"
    length = bytes((0x80 | size,)) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes(((0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode,)) + length + mask + masked


def decode(chunks, wire=WIRE, inflated=INFLATED):
    """Everything decoded, the failure last."""
    decoder, events = MessageDecoder(wire, inflated), []
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            while (event := decoder.next()) is not None:
                events.append(event)
                if isinstance(event, Closed):
                    return events
    except ProtocolError as error:
        events.append((error.code, error.reason))
    return events


@pytest.mark.parametrize(
    ("offers", "answer", "bits"),
    [
        ("permessage-deflate", ANSWER, 15),
        ("permessage-deflate; client_max_window_bits", ANSWER, 15),
        ("permessage-deflate;client_max_window_bits=8 ; server_no_context_takeover", ANSWER, 15),
        ('permessage-deflate; server_max_window_bits="10"', f"{ANSWER}; server_max_window_bits=10", 10),
        ("x-webkit-deflate-frame, permessage-deflate", ANSWER, 15),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", ANSWER, 15),
    ],
)
def test_the_first_offer_that_can_be_met_is_agreed_to_without_context_takeover(offers, answer, bits):
    agreement = agree(offers)
    assert agreement is not None
    assert (agreement.answer, agreement.window_bits) == (answer, bits)


@pytest.mark.parametrize(
    "offers",
    [
        "",
        "deflate-frame",
        "permessage-deflate; unknown",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=015",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate;;",
    ],
)
def test_an_offer_that_cannot_be_met_or_makes_no_sense_is_declined(offers):
    assert agree(offers) is None


def test_compressed_and_plain_messages_come_out_in_order_with_control_frames_between():
    text = deflated("héllo héllo héllo".encode())
    data = (
        frame(1, text[:5], fin=False, rsv1=True)
        + frame(9, b"are you there")
        + frame(0, text[5:])
        + frame(2, b"plain")
        + frame(2, deflated(b""), rsv1=True)
        + frame(1, deflated(b"a" * INFLATED), rsv1=True)
        + frame(8)
    )
    whole = [Ping(b"are you there"), "héllo héllo héllo", b"plain", b"", "a" * INFLATED, Closed(1005, "")]
    assert decode([data]) == whole
    assert decode([data[i : i + 1] for i in range(len(data))]) == whole


def test_a_sender_may_mark_its_block_as_the_last_one():
    # RFC 7692, section 7.2.3.4
    hello = bytes.fromhex("f348cdc9c9070000")
    assert decode([frame(1, hello, rsv1=True)]) == ["Hello"]
    assert decode([frame(1, hello[:3], fin=False, rsv1=True) + frame(0, hello[3:])]) == ["Hello"]
    assert decode([frame(1, deflated(b"Hello", zlib.Z_FINISH), rsv1=True)]) == ["Hello"]


@pytest.mark.parametrize("after", [b"\0\0", b"x", deflated(b"more")])
def test_nothing_but_an_empty_byte_comes_after_the_last_block(after):
    ended = deflated(b"Hello", zlib.Z_FINISH)
    refused = [(1007, "compressed data after its last block")]
    assert decode([frame(1, ended + after, rsv1=True)]) == refused
    assert decode([frame(1, ended, fin=False, rsv1=True) + frame(0, after)]) == refused


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (frame(1, b"\xff\xff\xff", rsv1=True), NOT_INFLATED),
        (frame(1, deflated(b"\xff\xfe"), rsv1=True), (1007, "text that is not UTF-8")),
        (frame(9, b"x", rsv1=True), (1002, "Reserved bit set unexpectedly")),
        (frame(1, b"x", fin=False) + frame(0, b"x", rsv1=True), (1002, "Reserved bit set unexpectedly")),
        (frame(2, bytes(WIRE + 1)), (1009, "Message is too large: 301 > 300")),
        (
            frame(1, deflated(b"a" * 3_001), rsv1=True),
            (1009, "Message is too large once inflated: more than 3000"),
        ),
    ],
)
def test_what_cannot_be_inflated_or_is_too_much_ends_the_connection(data, error):
    assert decode([data]) == [error]
    assert decode([data[i : i + 1] for i in range(len(data))]) == [error]


def test_fragments_add_up_before_they_are_inflated():
    piece = frame(2, bytes(150), fin=False) + frame(0, bytes(150), fin=False)
    assert decode([piece + frame(0, b"x")]) == [(1009, "Message is too large: 301 > 300")]
    assert decode([piece + frame(0)]) == [bytes(300)]
    data = piece + frame(0)
    assert decode([data[i : i + 1] for i in range(len(data))]) == [bytes(300)]


def test_a_compression_bomb_is_never_inflated_beyond_the_bound():
    bomb = deflated(bytes(64 << 20))
    assert len(bomb) < 65_536
    data = frame(2, bomb, rsv1=True)
    tracemalloc.start()
    try:
        events = decode([data], wire=65_536, inflated=655_360)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert events == [(1009, "Message is too large once inflated: more than 655360")]
    assert peak < 4 << 20


MESSAGES = st.one_of(st.text(max_size=200), st.binary(max_size=200), st.binary(max_size=2).map(lambda b: b * 100))


@given(st.lists(st.tuples(MESSAGES, st.booleans(), st.integers(0, 60)), max_size=5), st.data())
def test_any_fragments_and_chunks_give_the_same_messages(messages, draw):
    data = b""
    for message, compressed, cut in messages:
        raw, opcode = (message.encode(), 1) if isinstance(message, str) else (message, 2)
        payload = deflated(raw) if compressed else raw
        data += frame(opcode, payload[:cut], fin=False, rsv1=compressed) + frame(9) + frame(0, payload[cut:])
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(data)), max_size=12)))
    chunks = [data[start:end] for start, end in itertools.pairwise([0, *cuts, len(data)])]
    decoded = [event for event in decode(chunks, wire=1_000) if not isinstance(event, Ping)]
    assert decoded == [message for message, _, _ in messages]


@given(MESSAGES, st.integers(9, 15))
def test_what_is_compressed_here_is_inflated_by_any_window_that_was_agreed(message, bits):
    compressed = PreparedMessage.of(message).deflated(bits)
    header = 2 if compressed[1] < 126 else 4
    assert compressed[0] == (0xC1 if isinstance(message, str) else 0xC2)
    inflated = zlib.decompressobj(-bits).decompress(compressed[header:] + b"\x00\x00\xff\xff")
    assert inflated == (message.encode() if isinstance(message, str) else message)


def test_messages_that_leave_together_are_compressed_one_by_one_and_once():
    a, b = PreparedMessage.of("a" * 100), PreparedMessage.of(b"b" * 100)
    both = PreparedMessage.join([a, b])
    assert both.frame == a.frame + b.frame
    assert both.deflated(15) == a.deflated(15) + b.deflated(15)
    assert both.deflated(15) is both.deflated(15)
    assert PreparedMessage.join([a]) is a


def test_a_control_frame_is_never_compressed():
    pong = encode_pong(b"x" * 100)
    assert PreparedMessage(pong).deflated(15) == pong
    assert PreparedMessage(pong + pong).deflated(15) == pong + pong


async def test_a_client_that_offers_it_talks_compressed_to_an_actor_that_agrees(autojump_clock, serve, make_room):
    room = make_room(compress=True)
    server = await serve(room.fetch)
    async with deflating(await server.connect()) as client:
        (agreed,) = client.agreed
        assert agreed.enabled()
        for message in ("hé" * 500, b"\0" * 1_000, "", "again"):
            await client.send(message)
            assert await client.receive() == message
        await client.ping(b"still there")
        assert await client.receive() == b"still there"
        assert room.events == ["hé" * 500, b"\0" * 1_000, "", "again"]
        assert client.received[0] == 0xC1
        assert len(client.received) < 100
        assert client.received.endswith(encode_pong(b"still there"))


async def test_a_smaller_window_is_kept_to(autojump_clock, serve, make_room):
    server = await serve(make_room(compress=True).fetch)
    text = "".join(f"{number} " for number in range(3_000))
    async with deflating(await server.connect(), offer=PerMessageDeflate(server_max_window_bits=9)) as client:
        assert client.agreed[0].server_max_window_bits == 9
        await client.send(text)
        assert await client.receive() == text


async def test_without_an_actor_that_agrees_nothing_is_compressed(autojump_clock, serve, room):
    server = await serve(room.fetch)
    async with deflating(await server.connect()) as client:
        assert client.agreed == []
        await client.send("a" * 100)
        assert await client.receive() == "a" * 100
        assert client.received[0] == 0x81


async def test_a_bomb_closes_the_connection_and_its_actor_is_told(autojump_clock, serve, make_room):
    room = make_room(compress=True, message_bytes=100_000)
    server = await serve(room.fetch)
    async with deflating(await server.connect()) as client:
        await client.send(bytes(1_000_000))
        assert await client.receive() == (1009, "Message is too large once inflated: more than 100000")
    assert "protocolError.statusCode = 1009" in room.events[0]
