"""Messages: every value reads back from its own text, and a bad text gets an exact answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.filters import Filter
from actors.protocol import messages as wire
from actors.protocol import requests
from actors.protocol.codes import RATE_LIMITED
from actors.protocol.cursor import Ago, Cursor, Last
from actors.protocol.decoding import decode_client, decode_server
from actors.protocol.encoding import MSGPACK
from actors.protocol.fields import Refused
from actors.protocol.limits import Limits
from actors.signals import Draft

LIMITS = Limits()
FILTER = Filter.parse({"types": ["price.>"]})
SIGNAL = Draft.of("a", "b", {"x": 1}).signal(o=3, ts=5, id="é")


def read(text):
    [message] = decode_client(text if isinstance(text, str) else json.dumps(text), LIMITS)
    return message


@pytest.mark.parametrize(
    "message",
    [
        requests.Ping(),
        requests.Unsub(id=2, s="a.b-c_D"),
        requests.Pub(id=4_294_967_295, draft=Draft.of("a", "b", [1, "é"], id='"', tags={"v": 1})),
        requests.Pub(id=1, draft=Draft.of("a", "b", None)),
        *(
            requests.Sub(id=1, s="px", filter=FILTER, since=since, on_gap=on_gap)
            for since in ("now", "earliest", "snapshot", Last(3), Ago(0), Cursor("E", 0))
            for on_gap in ("fail", "skip")
        ),
        requests.Sub(id=1, s="px", filter=FILTER, min_ms=20),
        requests.Sub(id=1, s="px", filter=FILTER, on_slow="skip"),
        requests.Mod(id=7, s="px", change=requests.Change(on_slow="latest")),
        requests.Mod(id=7, s="px", change=requests.Change(min_ms=0)),
        requests.Mod(id=7, s="px", change=requests.Change(min_ms=60_000)),
        requests.Hello(
            id=1,
            token="t",
            resume="r",
            client=requests.ClientInfo(name="n", version="1", sdk="python"),
            features=("x",),
            subs=(requests.Sub(s="a", filter=FILTER), requests.Sub(s="b", filter=FILTER, since=Last(1))),
        ),
        requests.Hello(id=1),
        requests.Ack({"x": 5, "y.z": 0}),
        requests.Mod(id=7, s="px", change=requests.Change()),
        requests.Mod(id=7, s="px", change=requests.Change(filter=FILTER, backfill=Last(3))),
        requests.Mod(id=7, s="px", change=requests.Change(backfill=Ago(60_000))),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_a_client_says_is_read_back(message):
    assert decode_client(message.encode(), LIMITS) == [message]
    assert decode_client(MSGPACK.encode(message.encode()), LIMITS, MSGPACK) == [message]
    assert "\n" not in message.encode()


SUBOK = wire.SubOk(s="px", g=7, since=Cursor("k3F9", 12), head=30, filter=FILTER.canonical)


@pytest.mark.parametrize(
    "message",
    [
        wire.Pong(),
        wire.Ok(id=1),
        wire.Ok(id=1, o=5, epoch="E", dup=False),
        wire.Err.of(RATE_LIMITED, "slow down", id=3, at="/x", retry_after_ms=500),
        wire.Err.of(RATE_LIMITED, "slow down"),
        wire.Sig(g=7, a=1, b=9, signals=(SIGNAL,)),
        wire.Sig(s="px", a=1, b=1),
        wire.Sig(g=7, a=1, b=9, signals=(SIGNAL,), k=4),
        wire.Snap(s="px", b=9, signals=(SIGNAL,), more=True),
        wire.Snap(s="px", b=9),
        wire.Live(s="px", g=7, b=3),
        wire.Gap(s="px", a=1, b=9, reason="slow"),
        wire.Reset(epoch="E", head=3, reason="restored"),
        wire.Unsubbed(s="px", code=403, reason="revoked"),
        wire.Goaway(reason="shutdown", after_ms=(0, 8_000), deadline_ms=10_000, url="wss://x"),
        SUBOK,
        wire.SubOk(
            id=4,
            s="px",
            g=7,
            since=Cursor("E", 0),
            head=3,
            recovered=False,
            lost=wire.Lost(1, 2),
            filter="{}",
        ),
        wire.Welcome(
            id=1,
            session="s",
            resume="r",
            resumed=True,
            epoch="E",
            head=3,
            oldest=1,
            now=5,
            ping_ms=1,
            dead_ms=2,
            limits=LIMITS.to_json(),
            features=("a",),
            server="0.1",
            subs=(SUBOK, wire.Err.of(RATE_LIMITED, "no", s="b")),
        ),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_a_server_says_is_read_back(message):
    assert list(decode_server(message.encode())) == [message]
    assert list(decode_server(MSGPACK.encode(message.encode()), MSGPACK)) == [message]
    assert "\n" not in message.encode()


def test_a_sig_frame_joins_the_texts_of_its_signals():
    text = wire.encode_sig(g=7, a=1, b=3, signals=[b'{"o":2}', b'{"o":3}'])
    assert text == '{"t":"sig","g":7,"a":1,"b":3,"d":[{"o":2},{"o":3}]}'


def test_ping_and_pong_are_exact_texts():
    assert requests.Ping().encode() == '{"t":"ping"}'
    assert wire.Pong().encode() == '{"t":"pong"}'


def test_several_messages_in_one_frame_and_a_bad_one_spoils_only_itself():
    ping, bad, unsub = decode_client('{"t":"ping"}\n{"t":"nope","id":9}\n{"t":"unsub","id":2,"s":"a"}\n', LIMITS)
    assert ping == requests.Ping()
    assert (bad.id, bad.code, bad.slug, bad.at) == (9, 400, "bad_message", "/t")
    assert unsub == requests.Unsub(id=2, s="a")


SUB = {"t": "sub", "id": 1, "s": "a", "filter": {}}
PUB = {"t": "pub", "id": 1, "signal": {"type": "a", "entity": "b", "data": 1}}


@pytest.mark.parametrize(
    ("text", "code", "slug", "at", "request_id"),
    [
        ("", 400, "bad_message", "", None),
        (" \n ", 400, "bad_message", "", None),
        ("{", 400, "bad_message", "", None),
        ("[]", 400, "bad_message", "", None),
        ('{"t":"ping","t":"ping"}', 400, "bad_message", "", None),
        ({"id": 1}, 400, "bad_message", "/t", None),
        ({"t": 1}, 400, "bad_message", "/t", None),
        ({"t": "nod", "id": 3}, 400, "bad_message", "/t", 3),
        ({"t": "mod", "id": 3}, 400, "bad_message", "/s", 3),
        ({"t": "hello"}, 400, "bad_message", "/id", None),
        ({"t": "hello", "id": 0}, 400, "bad_message", "/id", None),
        ({"t": "hello", "id": 2**32}, 400, "bad_message", "/id", None),
        ({"t": "hello", "id": True}, 400, "bad_message", "/id", None),
        ({"t": "hello", "id": "1"}, 400, "bad_message", "/id", None),
        ({"t": "hello", "id": 1, "token": 5}, 400, "bad_message", "/token", 1),
        ({"t": "hello", "id": 1, "subs": {}}, 400, "bad_message", "/subs", 1),
        ({"t": "hello", "id": 1, "subs": [3]}, 400, "bad_message", "/subs/0", 1),
        ({"t": "hello", "id": 1, "subs": [{"filter": {}}]}, 400, "bad_message", "/subs/0/s", 1),
        ({"t": "hello", "id": 1, "client": "me"}, 400, "bad_message", "/client", 1),
        ({"t": "hello", "id": 1, "client": {"name": "n" * 200}}, 400, "bad_message", "/client/name", 1),
        ({"t": "hello", "id": 1, "features": [1]}, 400, "bad_message", "/features", 1),
        ({"t": "unsub", "id": 1}, 400, "bad_message", "/s", 1),
        (SUB | {"s": ""}, 400, "bad_message", "/s", 1),
        (SUB | {"s": "a" * 65}, 400, "bad_message", "/s", 1),
        (SUB | {"s": "a b"}, 400, "bad_message", "/s", 1),
        ({"t": "sub", "id": 1, "s": "a"}, 400, "bad_message", "/filter", 1),
        (SUB | {"on_slow": "wait"}, 400, "bad_message", "/on_slow", 1),
        (SUB | {"on_gap": 1}, 400, "bad_message", "/on_gap", 1),
        (SUB | {"filter": None}, 422, "bad_filter", "", 1),
        (
            SUB | {"filter": {"where": {"all": [{"f": "/a", "op": "gtt", "v": 1}]}}},
            422,
            "bad_filter",
            "/where/all/0/op",
            1,
        ),
        (SUB | {"from": None}, 422, "bad_from", "/from", 1),
        (SUB | {"from": "yesterday"}, 422, "bad_from", "/from", 1),
        (SUB | {"mode": "newest"}, 400, "bad_message", "/mode", 1),
        (SUB | {"mode": "latest", "min_ms": 19}, 400, "bad_message", "/min_ms", 1),
        (SUB | {"min_ms": 20}, 400, "bad_message", "/min_ms", 1),
        (SUB | {"from": {"ago_ms": -5}}, 422, "bad_from", "/from", 1),
        (SUB | {"from": {"ago_ms": 5, "last": 5}}, 422, "bad_from", "/from", 1),
        ({"t": "ack"}, 400, "bad_message", "/c", None),
        ({"t": "ack", "c": {"x": -1}}, 400, "bad_message", "/c/x", None),
        ({"t": "ack", "c": dict.fromkeys(map(str, range(200)), 1)}, 400, "bad_message", "/c", None),
        ({"t": "mod", "id": 1, "s": "x", "backfill": {"cursor": "E:1"}}, 422, "bad_from", "/backfill", 1),
        ({"t": "mod", "id": 1, "s": "x", "backfill": {"last": 0}}, 422, "bad_from", "/backfill", 1),
        ({"t": "mod", "id": 1, "s": "x", "filter": {"types": []}}, 422, "bad_filter", "/types", 1),
        (SUB | {"from": {"last": 0}}, 422, "bad_from", "/from", 1),
        (SUB | {"from": {"last": True}}, 422, "bad_from", "/from", 1),
        (SUB | {"from": {"last": 1, "cursor": "E:1"}}, 422, "bad_from", "/from", 1),
        (SUB | {"from": {"cursor": "nope"}}, 422, "bad_from", "/from/cursor", 1),
        (SUB | {"from": {"cursor": 4}}, 422, "bad_from", "/from", 1),
        ({"t": "pub", "id": 1}, 400, "bad_message", "/signal", 1),
        (PUB | {"signal": []}, 400, "bad_message", "/signal", 1),
        (PUB | {"signal": {"type": "a b", "entity": "b", "data": 1}}, 400, "bad_message", "/signal/type", 1),
        (PUB | {"signal": {"type": "a", "entity": "b"}}, 400, "bad_message", "/signal/data", 1),
        (PUB | {"signal": {"type": "a", "entity": "b", "data": "x" * 70_000}}, 413, "too_large", "/signal/data", 1),
    ],
)
def test_errors_are_exact(text, code, slug, at, request_id):
    error = read(text)
    assert (error.code, error.slug, error.at, error.id, error.retry) == (code, slug, at, request_id, False)
    assert error.msg


def test_a_sub_of_hello_that_cannot_be_accepted_is_the_err_to_answer_with():
    hello = read({"t": "hello", "id": 1, "subs": [{"s": "a", "filter": {"types": []}}, {"s": "b", "filter": {}}]})
    bad, good = hello.subs
    assert (bad.s, bad.code, bad.slug, bad.at, bad.id) == ("a", 422, "bad_filter", "/types", None)
    assert good.s == "b"


def test_unknown_fields_are_ignored_and_null_is_absent():
    assert read(SUB | {"zzz": 1}).s == "a"
    assert read({"t": "hello", "id": 1, "token": None, "resume": None, "subs": None}) == requests.Hello(id=1)
    assert read({"t": "unsub", "id": 1.0, "s": "a"}) == requests.Unsub(id=1, s="a")


def test_a_client_ignores_unknown_types_and_refuses_broken_known_ones():
    assert list(decode_server('{"t":"weather"}\n{"t":"presence","s":"a"}')) == []
    for text in (
        "{",
        "{}",
        '{"t":"sig","g":1,"a":3,"b":2,"d":[]}',
        '{"t":"sig","g":1,"a":1,"b":2,"d":[{"o":2}]}',
        '{"t":"live","s":"a","b":2}',
        '{"t":"goaway","after_ms":[5,1],"deadline_ms":1}',
        '{"t":"subok","s":"a","g":1,"from":"x","head":1,"filter":{}}',
        '{"t":"reset","epoch":"","head":1}',
    ):
        with pytest.raises(Refused):
            list(decode_server(text))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = ["id", "s", "filter", "from", "on_gap", "signal", "subs", "token", "client", "features", "resume"]


@given(st.sampled_from(["hello", "sub", "unsub", "pub", "x"]), st.dictionaries(st.sampled_from(keys), json_values))
def test_nothing_a_client_sends_breaks_the_reader(kind, fields):
    for message in decode_client(json.dumps({"t": kind, **fields}), LIMITS):
        if isinstance(message, wire.Err):
            assert list(decode_server(message.encode())) == [message]
