"""Claims about the codec: what goes in comes out, what cannot is refused with its path, copies never alias."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, IntEnum
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import codec


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


@attrs.frozen
class Point:
    x: int = 0
    label: str = ""


@attrs.frozen
class Box:
    points: tuple[Point, ...] = ()
    extra: dict[str, Any] = attrs.field(factory=dict)


@attrs.define
class Mutable:
    x: int = 0


@attrs.frozen
class Empty:
    pass


@dataclasses.dataclass
class Everything:
    colour: Colour
    level: Level
    ratio: float
    maybe: int | None
    when: datetime
    box: Box
    tags: frozenset[str]
    raw: bytes
    either: int | str


EVERYTHING = Everything(
    Colour.RED,
    Level.LOW,
    2,
    None,
    datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5))),
    Box((Point(1, "a"),), {"k": [1, {2: 3}]}),
    frozenset({"a", "b"}),
    b"\x00\xff",
    "text",
)

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters()),
    st.binary(),
    st.datetimes(timezones=st.just(UTC)),
)
keys = st.one_of(st.integers(), st.text(), st.tuples(st.integers(), st.text()))
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=4),
        st.frozensets(keys, max_size=4),
        st.sets(keys, max_size=4),
    ),
    max_leaves=12,
)


@given(values)
def test_plain_values_come_back_equal_and_of_the_same_type(value: Any) -> None:
    back = codec.decode(codec.encode(value))
    assert back == value
    assert type(back) is type(value)


@given(values)
def test_a_copy_is_equal_and_is_the_same_object_exactly_when_immutable(value: Any) -> None:
    copied = codec.copy(value)
    assert copied == value
    assert type(copied) is type(value)
    assert (copied is value) == codec.is_immutable(value)


def test_classes_come_back_when_the_class_is_given() -> None:
    data = codec.encode(EVERYTHING)
    assert codec.decode(data, Everything) == EVERYTHING
    assert codec.decode(codec.encode([Point(1)]), list[Point]) == [Point(1)]


def test_a_class_decoded_as_any_is_a_map_of_its_fields() -> None:
    assert codec.decode(codec.encode(Point(3, "p"))) == {"x": 3, "label": "p"}


def test_missing_fields_get_defaults_and_unknown_ones_are_ignored() -> None:
    assert codec.decode(codec.encode({"x": 4, "new": 1}), Point) == Point(4)


def test_lone_surrogates_and_large_integers_survive() -> None:
    value = ["\ud800", 2**200, -(2**64), math.inf]
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize(
    ("value", "as_type", "said"),
    [
        ("5", int, "expected int, got str"),
        (5, str, "expected str, got int"),
        (True, int, "expected int, got bool"),
        ({"x": "one"}, Point, "value.x"),
        ([{"x": 1}, {"x": []}], list[Point], "value[1].x"),
        ("green", Colour, "green"),
    ],
)
def test_what_does_not_fit_the_type_is_refused_with_its_path(value: Any, as_type: Any, said: str) -> None:
    with pytest.raises(codec.UndecodableError) as caught:
        codec.decode(codec.encode(value), as_type)
    assert said in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x01", b"\x01\x01", b"\xd4\x63\x00", b"\xd4\x04\x00"])
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(codec.UndecodableError):
        codec.decode(data)


def _cycle() -> list[Any]:
    cycle: list[Any] = [1]
    cycle.append({"again": cycle})
    return cycle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(3_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [1, len]}, "value['a'][1] is the function len"),
        (Box(extra={"f": lambda: 1}), "value.extra['f'] is the function"),
        ({"s": (object(),)}, "value['s'][0] is a builtins.object"),
        ({Point: 1}, "key <class"),
        (datetime(2026, 1, 1), "value is a datetime without a time zone"),  # noqa: DTZ001
        (_cycle(), "value[1]['again'] contains itself"),
        (_deep(), "nested deeper than 500"),
        (Exception("x"), "value is a builtins.Exception"),
    ],
)
def test_what_is_no_value_is_refused_with_its_path_by_encode_and_copy(value: Any, said: str) -> None:
    for refuse in (codec.encode, codec.copy):
        with pytest.raises(TypeError) as caught:
            refuse(value)
        assert said in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [(), "text", 1, None, Colour.RED, Point(1, "a"), (Point(1), ("x",)), frozenset({1}), Empty(), Box((Point(1),), {})],
)
def test_immutability_is_deep(value: Any) -> None:
    deeply = not isinstance(value, Box)
    assert codec.is_immutable(value) is deeply
    assert (codec.copy(value) is value) is deeply
    assert codec.copy(value) == value


def test_a_copy_shares_nothing_that_can_change() -> None:
    inner = {"list": [1], "set": {1}, "bytes": bytearray(b"a"), "object": Mutable(1)}
    value = (Box((Point(1),), inner), Mutable(2))
    copied = codec.copy(value)
    assert copied == value
    inner["list"].append(2)  # type: ignore[attr-defined]
    inner["set"].add(2)  # type: ignore[attr-defined]
    inner["bytes"].append(2)  # type: ignore[attr-defined]
    inner["object"].x = 9  # type: ignore[attr-defined]
    value[1].x = 9
    assert copied == (
        Box((Point(1),), {"list": [1], "set": {1}, "bytes": bytearray(b"a"), "object": Mutable(1)}),
        Mutable(2),
    )
    assert copied[0].points is value[0].points


def test_a_copy_keeps_fields_that_init_does_not_take() -> None:
    @attrs.frozen(cache_hash=True, unsafe_hash=True)
    class Derived:
        base: int
        items: list[int] = attrs.field(factory=list, hash=False)
        twice: int = attrs.field(init=False)

        def __attrs_post_init__(self) -> None:
            object.__setattr__(self, "twice", self.base * 2)

    value = Derived(2)
    copied = codec.copy(value)
    assert copied is not value
    assert copied == value
    assert copied.twice == 4
    assert hash(copied) == hash(value)
