"""I-JSON (RFC 7493) text in and out: the strict reader, the compact writer, the canonical form (8785)."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import NoReturn

INTEGER_MAX = 2**53 - 1
DEPTH_MAX = 128  # ours: deeper text could exhaust the stack of some reader

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


class InvalidJson(ValueError):
    """The text is not I-JSON; the message says where and why."""


def parse(text: str | bytes) -> object:
    """One I-JSON text as Python values.

    Refused beyond what is not JSON: duplicate keys, integers beyond ±(2⁵³−1), NaN, Infinity, numbers that
    overflow a double, lone surrogates, nesting deeper than 128.

    Raises: InvalidJson.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        elif not text.isascii():
            text.encode()
    except UnicodeError as error:
        raise InvalidJson(f"not UTF-8: {error}") from None
    _check_depth(text)
    try:
        value: object = _READER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidJson(f"not JSON: {error.msg} at character {error.pos}") from None
    if "\\u" in text:
        _check_surrogates(value)
    return value


def dump(value: object) -> str:
    """Compact JSON on one line; non-ASCII characters stand as themselves.

    Raises: InvalidJson for what I-JSON cannot say, as `check` does.
    """
    check(value)
    return _WRITER.encode(value)


def canonical(value: object) -> str:
    """The RFC 8785 text of a value that `check` accepts: equal values have equal texts, as 1 and 1.0 do."""
    match value:
        case bool() | None | str():
            return json.dumps(value, ensure_ascii=False)
        case int():
            return str(value)
        case float():
            return _number(value)
        case list():
            return f"[{','.join(map(canonical, value))}]"
        case dict():
            # RFC 8785, 3.2.3: keys are ordered by their UTF-16 code units.
            keys = sorted(value, key=_utf16)
            return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"
        case _:
            raise InvalidJson(f"{type(value).__name__} is no JSON type")


def check(value: object, depth: int = DEPTH_MAX) -> None:
    """Refuse a Python value that has no I-JSON text: NaN, a large integer, a lone surrogate, another type.

    Raises: InvalidJson.
    """
    match value:
        case bool() | None:
            return
        case str():
            _check_text(value)
        case int() | float():
            _check_number(value)
        case list() | tuple() | dict() if depth == 0:
            raise InvalidJson(f"nested deeper than {DEPTH_MAX}")
        case list() | tuple():
            for item in value:
                check(item, depth - 1)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise InvalidJson(f"object key {key!r} is {type(key).__name__}; a key is a string")
                _check_text(key)
                check(item, depth - 1)
        case _:
            raise InvalidJson(f"{type(value).__name__} is no JSON type")


def object_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object with these members, none of them twice. Raises: InvalidJson."""
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidJson(f"duplicate key {_shortened(key)!r}")
            seen.add(key)
    return value


def _check_number(value: float) -> None:
    if isinstance(value, int) and not -INTEGER_MAX <= value <= INTEGER_MAX:
        raise InvalidJson("integer beyond ±(2^53−1); send it as a string")
    if not math.isfinite(value):
        raise InvalidJson(f"{value} is no JSON number")


def _utf16(text: str) -> bytes:
    return text.encode("utf-16-be")


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidJson(f"lone surrogate at character {error.start} of a string") from None


def _check_surrogates(value: object) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, list):
        for item in value:
            _check_surrogates(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_surrogates(item)


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if (mark := found[0]) in "[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise InvalidJson(f"nested deeper than {DEPTH_MAX}")
        elif mark in "]}":
            depth -= 1


def _integer(text: str) -> int:
    # The length test first: Python itself refuses to read very long integers, with an error of its own.
    if len(text) > 17 or not -INTEGER_MAX <= (value := int(text)) <= INTEGER_MAX:
        raise InvalidJson(f"integer {_shortened(text)} is beyond ±(2^53−1); send it as a string")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InvalidJson(f"number {_shortened(text)} is beyond a double")
    return value


def _constant(text: str) -> NoReturn:
    raise InvalidJson(f"{text} is no JSON number")


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"


def _number(value: float) -> str:
    """ECMAScript's Number::toString, as RFC 8785 has it; Python's repr has the same digits, laid out otherwise."""
    if value == 0:
        return "0"
    sign, raw, exponent = Decimal(repr(value)).as_tuple()
    assert isinstance(exponent, int), "finite"
    stripped = "".join(map(str, raw)).rstrip("0")
    point = len(raw) + exponent  # the decimal point stands after this many digits
    if len(stripped) <= point <= 21:
        text = stripped.ljust(point, "0")
    elif 0 < point <= 21:
        text = f"{stripped[:point]}.{stripped[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{stripped}"
    else:
        mantissa = stripped[0] + (f".{stripped[1:]}" if len(stripped) > 1 else "")
        text = f"{mantissa}e{point - 1:+d}"
    return f"-{text}" if sign else text


_READER = json.JSONDecoder(
    object_pairs_hook=object_of, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
_WRITER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
