"""Any division of the same bytes gives the same messages, and nothing grows beyond its bound."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.transport.messages import Closed, MessageDecoder, Ping, ProtocolError

LIMIT = 300


def frame(opcode, payload=b"", *, fin=True, mask=b"\x01\xfe\x13\x77", announce=None):
    size = len(payload) if announce is None else announce
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65_536:
        length = struct.pack("!BH", 0x80 | 126, size)
    else:
        length = struct.pack("!BQ", 0x80 | 127, size)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes(((0x80 if fin else 0) | opcode,)) + length + mask + masked


def close(code, reason=b""):
    return frame(8, struct.pack("!H", code) + reason)


def decode(chunks, limit=LIMIT):
    """Everything decoded, the failure last."""
    decoder, events = MessageDecoder(limit), []
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


def test_messages_pings_and_a_close_come_out_in_order():
    data = (
        frame(1, "hé".encode(), fin=False)
        + frame(9, b"are you there")
        + frame(0, b"llo")
        + frame(10)
        + frame(2, b"\0")
        + frame(1)
        + close(4001, b"bye")
        + frame(1, b"after")
    )
    assert decode([data]) == [Ping(b"are you there"), "héllo", b"\0", "", Closed(4001, "bye")]


def test_a_close_without_a_code_is_1005():
    assert decode([frame(8)]) == [Closed(1005, "")]


@pytest.mark.parametrize(
    "data",
    [
        frame(0, b"x"),
        frame(1, b"x", fin=False) + frame(1, b"x"),
        frame(3, b"x"),
        frame(9, b"x", fin=False),
        frame(9, bytes(126)),
        bytes((0x81, 1, 65)),
        bytes((0xC1, 0x81)) + bytes(5),
        frame(8, b"x"),
        close(999),
        close(1005),
        close(1006),
        close(1015),
        close(2999),
        close(5000),
    ],
)
def test_what_the_protocol_forbids_is_1002(data):
    assert decode([data])[-1][0] == 1002


@pytest.mark.parametrize(
    "data",
    [frame(1, b"\xff"), frame(1, b"a\xc3"), frame(1, b"\xf8", fin=False), close(1000, b"\xff")],
)
def test_text_that_is_not_utf8_is_1007(data):
    assert decode([data])[-1][0] == 1007


def test_a_character_may_be_divided_between_fragments():
    assert decode([frame(1, b"\xc3", fin=False) + frame(0, b"\xa9")]) == ["é"]


def test_a_message_is_refused_when_its_length_is_announced():
    error = (1009, "Message is too large: 40000000 > 300")
    assert decode([frame(2, announce=40_000_000)]) == [error]
    assert decode([frame(2, bytes(LIMIT))]) == [bytes(LIMIT)]


def test_the_fragment_that_goes_over_the_bound_is_refused():
    data = frame(1, b"a" * 200, fin=False) + frame(9, b"p") + frame(0, b"b" * 101)
    assert decode([data]) == [Ping(b"p"), (1009, "Message is too large: 301 > 300")]


PAYLOADS = st.one_of(st.binary(max_size=140), st.text(max_size=60).map(str.encode))
FRAMES = st.builds(
    frame,
    st.sampled_from([0, 0, 1, 1, 2, 8, 9, 10, 11]),
    PAYLOADS,
    fin=st.booleans(),
    mask=st.binary(min_size=4, max_size=4),
)
MESSAGES = st.one_of(
    st.text(max_size=80).map(lambda text: frame(1, text.encode())),
    st.binary(max_size=80).map(lambda data: frame(2, data)),
    st.tuples(st.text(max_size=40), st.integers(0, 40)).map(
        lambda cut: frame(1, cut[0].encode()[: cut[1]], fin=False) + frame(9) + frame(0, cut[0].encode()[cut[1] :])
    ),
    FRAMES,
    st.binary(max_size=8),
)


@given(st.lists(MESSAGES, max_size=6).map(b"".join), st.data())
def test_any_chunking_gives_the_same_messages(data, draw):
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(data)), max_size=12)))
    edges = [0, *cuts, len(data)]
    chunks = [data[start:end] for start, end in itertools.pairwise(edges)]
    whole = decode([data])
    assert decode(chunks) == whole
    assert decode([data[i : i + 1] for i in range(len(data))]) == whole


@given(st.lists(st.one_of(st.text(max_size=50), st.binary(max_size=50)), max_size=8))
def test_what_was_encoded_comes_back(messages):
    frames = [frame(1, message.encode()) if isinstance(message, str) else frame(2, message) for message in messages]
    assert decode(frames) == messages
