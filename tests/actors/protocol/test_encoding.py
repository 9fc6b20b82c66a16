"""The two encodings: the same values in both, the same refusals, and nothing built that is not there."""

import json
import struct
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.protocol.codes import BAD_MESSAGE
from actors.protocol.decoding import decode_client
from actors.protocol.encoding import ENCODINGS, JSON, MSGPACK
from actors.protocol.fields import Refused
from actors.protocol.ijson import INTEGER_MAX
from actors.protocol.limits import Limits
from actors.protocol.messages import Err, encode_sig, pack_sig
from actors.protocol.requests import Unsub
from actors.signals import SignalTexts

LIMITS = Limits()
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-INTEGER_MAX, INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
UNSUB = {"t": "unsub", "id": 2, "s": "a"}


def typed(value):
    """The value with its types, which `==` does not look at."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value), repr(value)


@given(st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=5), min_size=1, max_size=4))
def test_messages_mean_the_same_in_both(messages):
    texts = "\n".join(json.dumps(message, ensure_ascii=False) for message in messages)
    from_json, from_msgpack = (encoding.parse(encoding.encode(texts)) for encoding in ENCODINGS.values())
    assert typed(from_json) == typed(from_msgpack) == typed(messages)


@given(st.lists(VALUES, max_size=5), st.integers(0, 3), st.integers(0, 2))
def test_a_frame_of_a_group_means_the_same_in_both(values, left_out, joined):
    texts = [b'{"o":%d,"data":%b}' % (o, json.dumps(value).encode()) for o, value in enumerate(values)]
    parts = [b",".join(texts[:joined])] * bool(texts[:joined]) + texts[joined:]
    how = {"g": 7, "a": 1, "b": 2**40, "left_out": left_out}
    text = encode_sig(signals=parts, **how)
    packed = pack_sig(signals=[SignalTexts(part) for part in parts], **how)
    assert typed(MSGPACK.parse(packed)) == typed(JSON.parse(text))


@given(st.binary(min_size=1, max_size=200))
def test_random_bytes_are_values_or_refused(data):
    for answer in decode_client(data, LIMITS, MSGPACK):
        assert not isinstance(answer, Err) or 400 <= answer.code < 500
    for value in MSGPACK.parse(data):
        if not isinstance(value, Refused):
            assert typed(JSON.parse(json.dumps(value))) == typed([value])


def nested(depth):
    return b"\x91" * depth + b"\xc0"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (msgpack.packb({"t": b"unsub"}), "bytes is no JSON type"),
        (msgpack.packb({"t": msgpack.ExtType(5, b"x")}), "extension, of type 5"),
        (msgpack.packb({"t": msgpack.Timestamp(1)}), "Timestamp is no JSON type"),
        (msgpack.packb({1: 2}), "type int"),
        (msgpack.packb({b"t": 2}), "type bytes"),
        (msgpack.packb({None: 2}), "type NoneType"),
        (b"\x82\xa1t\x01\xa1t\x02", "duplicate key 't'"),
        (b"\x81\xa1a\x82\xa1t\x01\xa1t\x02", "duplicate key 't'"),
        (b"\x81\x91\x01\x02", "type list"),
        (msgpack.packb({"a": 2**53}), "beyond"),
        (msgpack.packb({"a": -(2**53)}), "beyond"),
        (msgpack.packb(2**64 - 1), "beyond"),
        (msgpack.packb({"a": [float("nan")]}), "no JSON number"),
        (msgpack.packb(float("-inf")), "no JSON number"),
        (b"\xca" + struct.pack(">f", float("inf")), "no JSON number"),
        (b"\xa1\xff", "not UTF-8"),
        (b"\xa3\xed\xa0\x80", "not UTF-8"),
        (nested(129), "nested deeper"),
        (nested(500), "nested deeper"),
        (msgpack.packb([]), "an array"),
        (msgpack.packb(1), "a number"),
    ],
)
def test_what_json_does_not_have_is_refused_and_spoils_only_itself(data, message):
    bad, good = decode_client(data + msgpack.packb(UNSUB), LIMITS, MSGPACK)
    assert (bad.code, bad.slug) == (BAD_MESSAGE.code, BAD_MESSAGE.slug)
    assert message in bad.msg
    assert good == Unsub(id=2, s="a")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xc1", "unknown type"),
        (nested(5_000), "nested too deep"),
        (b"\x92\x01", "cut short"),
        (b"\xdb\x00\x00\xff\xffabc", "cut short"),
        (b"\xdd\xff\xff\xff\xff", "cut short"),
        (b"\xdf\xff\xff\xff\xff\xa1a", "cut short"),
    ],
)
def test_behind_what_is_no_messagepack_nothing_is_read(data, message):
    good, bad = decode_client(msgpack.packb(UNSUB) + data, LIMITS, MSGPACK)
    assert good == Unsub(id=2, s="a")
    assert message in bad.msg
    assert "byte" in bad.msg


def test_an_empty_frame_is_refused():
    (answer,) = decode_client(b"", LIMITS, MSGPACK)
    assert answer.code == 400


def test_a_header_that_announces_more_than_there_is_takes_no_memory():
    bombs = [b"\xdd\x00\x00\x3f\xff" * 400, b"\xdd\xff\xff\xff\xff" * 400, b"\xdf\x00\x00\x1f\xff\xa1a" * 400]
    tracemalloc.start()
    for bomb in bombs:
        assert isinstance(MSGPACK.parse(bomb + bytes(16_000 - len(bomb)))[0], Refused)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_frames_of_the_other_kind_are_refused():
    (under_json,) = decode_client(msgpack.packb(UNSUB), LIMITS, JSON)
    assert "binary" in under_json.msg
    (under_msgpack,) = decode_client(json.dumps(UNSUB), LIMITS, MSGPACK)
    assert "text frame" in under_msgpack.msg


def test_ping_and_pong_are_texts_in_both():
    for encoding in ENCODINGS.values():
        for text in ('{"t":"ping"}', '{"t":"pong"}'):
            assert encoding.encode(text) == text
            assert encoding.parse(text) == [json.loads(text)]
