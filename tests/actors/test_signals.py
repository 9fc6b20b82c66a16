"""Signals: what may be published, and the one JSON text that is stored and sent."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.signals import DATA_BYTES, Draft, InvalidSignal, Signal, is_name


def draft(**changes):
    fields = {"type": "price.spike", "entity": "btc-usd", "data": {"p": 1}} | changes
    return Draft.from_value(fields)


@pytest.mark.parametrize(
    "name",
    ["a", "price.spike", "A-z_0:9@b", "a.b.c.d.e.f.g.h", "x" * 64, ".".join(["x" * 63, "y" * 64])],
)
def test_names(name):
    assert is_name(name)
    assert draft(type=name).type == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "é",
        "a.b.c.d.e.f.g.h.i",
        "x" * 65,
        ".".join(["x" * 64, "y" * 64]),
        "a\n",
        7,
        None,
    ],
)
def test_what_is_no_name(name):
    assert not is_name(name)
    with pytest.raises(InvalidSignal, match="a name is 1–8 tokens") as caught:
        draft(entity=name)
    assert caught.value.at == "/entity"


def test_a_signal_is_one_line_of_json_in_the_protocols_order():
    made = draft(id="k\n1", data={"b": [1, 2.5, None, "é\n"]}, tags={"v": "X", "n": 1, "ok": True})
    signal = made.signal(o=7, ts=1_790_000_000_000, id="k\n1")
    assert signal.json.decode() == (
        '{"o":7,"id":"k\\n1","type":"price.spike","entity":"btc-usd","ts":1790000000000,'
        '"data":{"b":[1,2.5,null,"é\\n"]},"tags":{"v":"X","n":1,"ok":true}}'
    )
    assert signal.data == {"b": [1, 2.5, None, "é\n"]}
    assert signal.tags == {"v": "X", "n": 1, "ok": True}
    assert Signal.decode(signal.json) == signal


def test_absent_and_empty_tags_are_left_out():
    assert b"tags" not in draft(tags={}).signal(o=1, ts=1, id="x").json
    assert draft().signal(o=1, ts=1, id="x").tags == {}


def test_unknown_fields_are_ignored():
    assert draft(ts=5, o=3, extra=[1]) == draft()
    known = draft().signal(o=1, ts=2, id="x")
    assert Signal.from_value({**known.value, "later": True}) == known


def test_signals_and_drafts_survive_copying():
    signal = draft().signal(o=1, ts=2, id="x")
    assert signal.value["data"] == {"p": 1}
    assert pickle.loads(pickle.dumps(signal)) == signal
    assert hash(signal) == hash(Signal.decode(signal.json))


@pytest.mark.parametrize(
    ("changes", "at", "message"),
    [
        ({"data": "x" * (DATA_BYTES - 1)}, "/data", "data is 65,537 bytes of JSON; at most 65,536"),
        ({"data": float("nan")}, "/data", "nan is no JSON number"),
        ({"data": {"a": 2**53}}, "/data", "integer beyond"),
        ({"data": {1: 2}}, "/data", "object key 1 is int"),
        ({"data": object()}, "/data", "object is no JSON type"),
        ({"data": "\ud800"}, "/data", "lone surrogate"),
        ({"id": ""}, "/id", "id is 0 characters; it is a string of 1–128"),
        ({"id": "x" * 129}, "/id", "id is 129 characters"),
        ({"id": 5}, "/id", "id is a number"),
        ({"id": "\ud800"}, "/id", "lone surrogate"),
        ({"tags": []}, "/tags", "tags is an array"),
        ({"tags": {str(n): n for n in range(17)}}, "/tags", "tags has 17 keys; at most 16"),
        ({"tags": {"a/b": None}}, "/tags/a~1b", "tag 'a/b' is null"),
        ({"tags": {"a": {}}}, "/tags/a", "tag 'a' is an object"),
        ({"tags": {"": 1}}, "/tags/", "key is 0 bytes"),
        ({"tags": {"k" * 65: 1}}, "/tags/" + "k" * 65, "key is 65 bytes"),
        ({"tags": {"a": "x" * 257}}, "/tags/a", "tag 'a' is 257 bytes"),
    ],
)
def test_what_cannot_be_published_says_what_was_seen_and_what_is_allowed(changes, at, message):
    with pytest.raises(InvalidSignal) as caught:
        draft(**changes)
    assert message in str(caught.value)
    assert caught.value.at == at


def test_sizes_are_told_apart_from_shapes():
    for changes in ({"data": "x" * DATA_BYTES}, {"tags": {str(n): n for n in range(17)}}):
        with pytest.raises(InvalidSignal) as caught:
            draft(**changes)
        assert caught.value.too_large
    with pytest.raises(InvalidSignal) as caught:
        draft(id="")
    assert not caught.value.too_large


def test_the_largest_data_is_accepted_and_the_limit_can_be_set():
    assert len(draft(data="x" * (DATA_BYTES - 2)).data_json) == DATA_BYTES
    with pytest.raises(InvalidSignal, match="at most 10"):
        Draft.of("a", "b", "x" * 9, data_bytes_max=10)


@pytest.mark.parametrize("missing", ["type", "entity", "data"])
def test_a_missing_field_is_named(missing):
    fields = {"type": "a", "entity": "b", "data": None}
    del fields[missing]
    with pytest.raises(InvalidSignal, match=f"{missing} is missing"):
        Draft.from_value(fields)


@pytest.mark.parametrize("change", [{"o": 0}, {"o": True}, {"o": 1.5}, {"ts": "now"}, {"id": None}, {"type": 1}])
def test_a_received_signal_must_have_its_fields(change):
    value = {"o": 1, "id": "x", "type": "a", "entity": "b", "ts": 1, "data": None} | change
    with pytest.raises(InvalidSignal):
        Signal.from_value(value)
    with pytest.raises(InvalidSignal):
        Signal.from_value([])


numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128))
def test_any_json_goes_through_unchanged_on_one_line(data, id_):
    made = Draft.of("a", "b", data, id=id_)
    signal = made.signal(o=1, ts=2, id=id_)
    assert b"\n" not in signal.json
    assert len(signal.json) <= made.size_bytes
    assert json.loads(signal.json)["data"] == data
    assert Signal.decode(signal.json) == signal
    assert signal.id == id_
