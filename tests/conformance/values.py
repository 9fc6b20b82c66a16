"""The values of scenario programs: how JavaScript's appear in Python, in expressions, and in a trace.

Python has no `undefined`, and one type for what JavaScript calls an object and a Map; both are carried as plain
dicts with one marked key, so that they pass through storage and calls like any other value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.conformance.substitutions import as_recorded

PLAIN_LIMIT = 700
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MARK = "\0js"
FLAGS = {"remote": "remote", "retryable": "retryable", "overloaded": "overloaded"} | {
    "durableObjectReset": "durable_object_reset"
}

UNDEFINED: dict[str, Any] = {_MARK: "undefined"}


def is_undefined(value: Any) -> bool:
    return value.__class__ is dict and value.get(_MARK) == "undefined"


def js_map(pairs: Iterable[Any]) -> dict[str, Any]:
    """A Map."""
    return {_MARK: "map", "pairs": [list(pair) for pair in pairs]}


class Error(Exception):
    """JavaScript's Error: what a program throws by default."""


class RangeError(Exception): ...


class SyntaxError(Exception): ...


class Thrown(Exception):
    """A value that is no error, thrown. On its way to another actor it becomes an error with the value's text.

    Of an object that is its properties `name` and `message`, whatever they are.
    """

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return to_text(self.value)


ERRORS: dict[str, type[Exception]] = {
    "Error": Error,
    "TypeError": TypeError,
    "RangeError": RangeError,
    "SyntaxError": SyntaxError,
}


def make_error(name: str | None, message: str, properties: dict[str, Any]) -> Exception:
    """An error of a program, with its own properties."""
    error = ERRORS.get(name or "Error", Error)(message)
    if name is not None and name not in ERRORS:
        error.js_name = name  # type: ignore[attr-defined]
    for key, value in properties.items():
        setattr(error, FLAGS.get(key, key), value)
    return error


# ── expressions ──


def evaluate(expression: Any, variables: dict[str, Any], memory: dict[str, Any]) -> Any:
    """The value of an expression."""
    if isinstance(expression, list):
        return [evaluate(item, variables, memory) for item in expression]
    if not isinstance(expression, dict):
        return expression
    if len(expression) == 1:
        ((name, operand),) = expression.items()
        if name == "$var":
            return variables.get(operand, UNDEFINED)
        if name == "$mem":
            return memory.get(operand, UNDEFINED)
        if name in _OF_VALUES:
            return _OF_VALUES[name](*evaluate(operand, variables, memory))
        if name in _OF_VALUE:
            return _OF_VALUE[name](evaluate(operand, variables, memory))
        if name in _LITERALS:
            return _LITERALS[name](operand)
        if name.startswith("$"):
            raise Error(f"unknown expression {name}")
    return {name: evaluate(value, variables, memory) for name, value in expression.items()}


def truthy(value: Any) -> bool:
    """What JavaScript's `if` makes of a value."""
    if is_undefined(value) or value is None or value is False or value == "":
        return False
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value != 0 and not math.isnan(value)
    return True


def strictly_equal(a: Any, b: Any) -> bool:
    """JavaScript's `===`."""
    if is_undefined(a) or is_undefined(b):
        return is_undefined(a) and is_undefined(b)
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float | str) and isinstance(b, int | float | str):
        return isinstance(a, str) == isinstance(b, str) and a == b
    return a is b


def to_text(value: Any) -> str:
    """JavaScript's `String(value)`."""
    if is_undefined(value):
        return "undefined"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return ",".join("" if item is None or is_undefined(item) else to_text(item) for item in value)
    if isinstance(value, datetime):
        return value.strftime("%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)")
    return "[object Object]" if isinstance(value, dict) else str(value)


def to_number(value: Any) -> float:
    """JavaScript's `Number(value)`."""
    if is_undefined(value):
        return math.nan
    if value is None:
        return 0
    if isinstance(value, str):
        try:
            return float(value.strip() or 0)
        except ValueError:
            return math.nan
    if isinstance(value, datetime):
        return milliseconds(value)
    return float(value) if isinstance(value, int | float) else math.nan


def milliseconds(moment: datetime) -> int:
    return round((moment - _EPOCH) / timedelta(milliseconds=1))


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, str) or isinstance(b, str):
        return to_text(a) + to_text(b)
    if is_undefined(a) or is_undefined(b):
        return math.nan
    return (a or 0) + (b or 0)


def _cycle(_: Any) -> dict[str, Any]:
    loop: dict[str, Any] = {"name": "loop"}
    loop["self"] = loop
    return loop


_OF_VALUES: dict[str, Callable[..., Any]] = {
    "$add": _add,
    "$lt": lambda a, b: to_number(a) < to_number(b),
    "$eq": strictly_equal,
}
_OF_VALUE: dict[str, Callable[[Any], Any]] = {"$map": js_map, "$set": set}
_LITERALS: dict[str, Callable[[Any], Any]] = {
    "$undef": lambda _: UNDEFINED,
    "$rep": lambda a: a[0] * a[1],
    "$bytes": bytes.fromhex,
    "$zeros": bytes,
    "$date": lambda ms: _EPOCH + timedelta(milliseconds=ms),
    "$fn": lambda a: lambda: a,
    "$cycle": _cycle,
    "$keys": lambda a: {f"{a[0]}{i:04}": i for i in range(a[1])},
    "$keylist": lambda a: [f"{a[0]}{i:04}" for i in range(a[1])],
}


# ── traces ──


def encode(value: Any, depth: int = 0) -> Any:
    """A value as a trace shows it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _encode_number(value)
    if isinstance(value, str):
        return _encode_text(value)
    if isinstance(value, BaseException):
        return encode_error(value)
    if isinstance(value, datetime):
        return {"$": "date", "ms": milliseconds(value)}
    if isinstance(value, bytes):
        return {"$": "bytes", "length": len(value)} if len(value) > 32 else {"$": "bytes", "hex": value.hex()}
    if isinstance(value, set | frozenset):
        return {"$": "set", "items": [encode(item) for item in value]}
    if isinstance(value, list | tuple):
        return [encode(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return _encode_object(value, depth)
    return {"$": "function"} if callable(value) else {"$": "unknown", "type": type(value).__name__}


def _encode_object(value: dict[str, Any], depth: int) -> Any:
    if value.get(_MARK) == "undefined":
        return {"$": "undefined"}
    if value.get(_MARK) == "map":
        return {"$": "map", "entries": [[encode(key), encode(item, depth + 1)] for key, item in value["pairs"]]}
    if depth > 6:
        return {"$": "deep"}
    return {key: encode(item, depth + 1) for key, item in value.items()}


def _encode_number(value: float) -> Any:
    if math.isfinite(value):
        return int(value) if value == int(value) and abs(value) < 2**53 else value
    return {"$": "number", "text": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}


def _encode_text(value: str) -> Any:
    units = value.encode("utf-16-le", "surrogatepass")
    if len(units) // 2 <= PLAIN_LIMIT:
        return value
    return {"$": "string", "length": len(units) // 2, "head": units[:32].decode("utf-16-le", "surrogatepass")}


def encode_error(error: BaseException) -> Any:
    """An error as a trace shows it: name, message, and the flags that are set."""
    if isinstance(error, Thrown) and not getattr(error, "remote", False):
        return {"$": "error", "thrown": encode(error.value)}
    name, message = as_recorded(error)
    if isinstance(error, Thrown) and isinstance(error.value, dict):
        name, message = encode(error.value.get("name", UNDEFINED)), to_text(error.value.get("message", UNDEFINED))
    shown: dict[str, Any] = {"$": "error", "name": name, "message": message}
    for flag, attribute in FLAGS.items():
        if getattr(error, attribute, False):
            shown[flag] = True
    return shown
