"""I-JSON: what is read, what is refused, and the canonical text."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.protocol import ijson


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":1,"a":2}', "duplicate key 'a'"),
        ('{"x":[{"a":1,"b":2,"a":3}]}', "duplicate key 'a'"),
        ("9007199254740992", "beyond"),
        ("-9007199254740992", "beyond"),
        ("1" * 5_000, "beyond"),
        ("NaN", "no JSON number"),
        ("[-Infinity]", "no JSON number"),
        ("1e400", "beyond a double"),
        ('"\\ud800"', "lone surrogate"),
        ('{"\\udfff":1}', "lone surrogate"),
        ('"\ud800"', "not UTF-8"),
        ("[" * 129 + "]" * 129, "nested deeper"),
        ("[" * 100_000, "nested deeper"),
        ('{"a":' * 50_000, "nested deeper"),
        ("", "not JSON"),
        ("[1,]", "not JSON"),
        ("{'a':1}", "not JSON"),
        ("1 2", "not JSON"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ijson.InvalidJson, match=message):
        ijson.parse(text)


def test_what_is_allowed():
    assert ijson.parse("[9007199254740991,-9007199254740991,1e300]") == [2**53 - 1, 1 - 2**53, 1e300]
    assert ijson.parse('"\\ud83d\\ude00 \\\\ud800"') == "😀 \\ud800"
    assert ijson.parse("[" * 128 + "]" * 128)
    brackets = "[" * 500
    assert ijson.parse(json.dumps({"a": brackets + '"\\'})) == {"a": brackets + '"\\'}
    assert ijson.parse('{"é":1}'.encode()) == {"é": 1}


def test_what_cannot_be_written_is_refused():
    deep: object = 1
    for _ in range(129):
        deep = [deep]
    for value in (math.nan, math.inf, 2**53, -(2**53), "\ud800", {"\ud800": 1}, {1: 2}, {1, 2}, b"x", deep):
        with pytest.raises(ijson.InvalidJson):
            ijson.dump(value)
    assert ijson.dump({"a": (1, [True, None, "é"])}) == '{"a":[1,[true,null,"é"]]}'


@pytest.mark.parametrize(
    ("number", "text"),
    [
        # RFC 8785, appendix B
        (0.0, "0"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (-5e-324, "-5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740992.0, "9007199254740992"),
        (295147905179352830000.0, "295147905179352830000"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (1e23, "1e+23"),
        (1.0000000000000001e23, "1.0000000000000001e+23"),
        (999999999999999700000.0, "999999999999999700000"),
        (999999999999999900000.0, "999999999999999900000"),
        (1e21, "1e+21"),
        (9.999999999999997e-7, "9.999999999999997e-7"),
        (0.000001, "0.000001"),
        (333333333.3333332, "333333333.3333332"),
        (333333333.33333325, "333333333.33333325"),
        (333333333.3333333, "333333333.3333333"),
        (-0.0000033333333333333333, "-0.0000033333333333333333"),
        (1424953923781206.2, "1424953923781206.2"),
        (10, "10"),
        (120.0, "120"),
    ],
)
def test_numbers_are_written_as_rfc_8785_says(number, text):
    assert ijson.canonical(number) == text


def test_keys_are_sorted_by_utf_16():
    # RFC 8785, 3.2.3
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(ijson.canonical(value)).values()) == [2, 4, 6, 7, 1, 5, 3]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_canonical_number_is_the_same_number(number):
    assert float(ijson.canonical(number)) == number


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text):
    try:
        value = ijson.parse(text)
    except ijson.InvalidJson:
        return
    assert value == json.loads(text)
