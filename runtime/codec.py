"""Typed values ⇄ msgpack bytes, and the copy that a value gets when it passes between actors.

Legal values are None, bool, int, float, str, bytes, bytearray, aware datetime, list, dict, tuple, set,
frozenset, enumerations, attrs classes and dataclasses, and any nesting of these without cycles. Everything
else (functions, open resources, other classes, subclasses of the built-in containers) is refused with a
TypeError that names the path.

Encoding looks at the value alone: an attrs or dataclass instance is stored as a map of its `__init__` fields,
an enumeration as its value, a bytearray as bytes. Decoding with the class gives the instance back (by cattrs);
decoding with `Any` gives the map. Tuples, sets, frozensets, datetimes, integers beyond 64 bits and maps with
keys other than text come back as such under `Any` too.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
import types
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar, cast, overload

import attrs
import msgpack
from cattrs import Converter, transform_error
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError
from cattrs.strategies import configure_union_passthrough

T = TypeVar("T")

_TUPLE, _SET, _FROZENSET, _DATETIME, _INTEGER = (
    1,
    2,
    3,
    4,
    5,
)  # ext types; stored: they never change
_ATOMS = frozenset({str, int, bytes, float, bool, type(None)})
_DEPTH = 500  # msgpack's own bound is 511
_LEGAL = (
    "legal are None, bool, numbers, str, bytes, aware datetime, list, dict, tuple, set, enums, "
    "attrs classes, dataclasses"
)


class UndecodableError(ValueError):
    """The bytes are no value of this codec, or not one of the asked type."""


def encode(value: object) -> bytes:
    """The value as bytes; for a set, equal values need not give equal bytes.

    Raises:
        TypeError: something in the value is not legal; the message names its path.
    """
    try:
        return _pack(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _explained(value, error) from None


@overload
def decode(data: bytes, type: type[T]) -> T: ...
@overload
def decode(data: bytes, type: Any = ...) -> Any: ...
def decode(data: bytes, type: Any = Any) -> Any:  # noqa: A002 -- reads as a keyword
    """The value that was encoded, as a `type`.

    Unknown fields of a map are ignored, missing ones get their default.

    Raises:
        UndecodableError: the bytes are damaged, or do not fit the type.
    """
    try:
        value = msgpack.unpackb(data, ext_hook=_unpack_ext, strict_map_key=False, unicode_errors="surrogatepass")
    except UndecodableError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise UndecodableError(f"{len(data):,} bytes are no encoded value: {error or 'cut short'}") from error
    return value if type is Any else structure(value, type)


def structure(value: Any, type: Any) -> Any:  # noqa: A002
    """A decoded value (maps, lists, atoms) as a `type`.

    Raises:
        UndecodableError: it does not fit; the message names each path.
    """
    try:
        return _converter().get_structure_hook(type)(value, type)
    except BaseValidationError as error:
        raise UndecodableError(f"no {_name(type)}: {'; '.join(transform_error(error, 'value'))}") from error
    except (ValueError, TypeError, KeyError, StructureHandlerNotFoundError) as error:
        raise UndecodableError(f"no {_name(type)}: {error}") from error


def copy(value: T) -> T:
    """The value as another actor may have it: the very object where it is deeply immutable, else a deep copy.

    Deeply immutable are atoms, datetimes, enumerations, and tuples, frozensets and frozen attrs or dataclass
    instances of such. Classes are kept. An object that is reachable twice is copied twice.

    Raises:
        TypeError: something in the value is not legal; the message names its path.
    """
    cls: Any = value.__class__
    if cls in _ATOMS:
        return value
    if cls is tuple:  # the arguments of a call: mostly few atoms
        for item in value:  # type: ignore[attr-defined]
            if item.__class__ not in _ATOMS:
                break
        else:
            return value
    try:
        return cast("T", _copier(cls)(value))
    except (TypeError, RecursionError) as error:
        raise _explained(value, error) from None


def is_immutable(value: object) -> bool:
    """Whether `copy` would pass the very object."""
    try:
        return copy(value) is value
    except TypeError:
        return False


# ── encoding ──


def _pack(value: object) -> bytes:
    packer = msgpack.Packer(default=_unfold, strict_types=True, unicode_errors="surrogatepass", buf_size=512)
    return cast("bytes", packer.pack(value))


def _unfold(value: Any) -> object:
    """What msgpack packs in place of a value that it does not know."""
    cls = value.__class__
    if cls is tuple:
        return msgpack.ExtType(_TUPLE, _pack(list(value)))
    if cls is set:
        return msgpack.ExtType(_SET, _pack(list(value)))
    if cls is frozenset:
        return msgpack.ExtType(_FROZENSET, _pack(list(value)))
    if cls is datetime and value.tzinfo is not None:
        return msgpack.ExtType(_DATETIME, value.isoformat().encode())
    if cls is int:
        return msgpack.ExtType(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if isinstance(value, Enum):
        return value.value
    names = _field_names(cls)
    return {name: getattr(value, name) for name in names.stored}


def _unpack_ext(code: int, data: bytes) -> object:
    if code == _DATETIME:
        return datetime.fromisoformat(data.decode())
    if code == _INTEGER:
        return int.from_bytes(data, "big", signed=True)
    container = {_TUPLE: tuple, _SET: set, _FROZENSET: frozenset}.get(code)
    if container is None:
        raise UndecodableError(f"extension type {code} is not known here; it was written by a newer version")
    return container(decode(data))


# ── decoding ──


@functools.cache
def _converter() -> Converter:
    """Strict about atoms: cattrs alone would turn 5 into "5"."""
    converter = Converter()
    configure_union_passthrough(str | bool | int | float | None | bytes | datetime, converter)
    for atom in (str, bool, int, bytes, bytearray, datetime, float):
        converter.register_structure_hook(atom, _strict(atom))
    converter.register_structure_hook_func(lambda type_: type_ is object, lambda value, _: value)
    return converter


def _strict(atom: type) -> Callable[[Any, Any], Any]:
    accepted = {float: (float, int), bytearray: (bytes,)}.get(atom, (atom,))

    def hook(value: Any, type_: Any) -> Any:
        if type_ is not atom and issubclass(type_, Enum):  # IntEnum and StrEnum are found by their base
            return type_(value)
        if value.__class__ not in accepted:
            raise TypeError(f"expected {atom.__name__}, got {value.__class__.__name__}")
        return value if value.__class__ is atom else atom(value)

    return hook


def _name(type_: Any) -> str:
    return getattr(type_, "__qualname__", None) or str(type_)


# ── classes with fields ──


@attrs.frozen
class _FieldNames:
    every: tuple[str, ...]
    stored: tuple[str, ...]
    frozen: bool


def field_names(cls: type) -> tuple[str, ...]:
    """The fields of an attrs class or dataclass that are encoded. Raises: TypeError when it is neither."""
    return _field_names(cls).stored


@functools.cache
def _field_names(cls: type) -> _FieldNames:
    if attrs.has(cls):
        fields = attrs.fields(cls)
        frozen = attrs.inspect(cls).is_frozen
        return _FieldNames(tuple(f.name for f in fields), tuple(f.name for f in fields if f.init), frozen)
    if dataclasses.is_dataclass(cls):
        members = dataclasses.fields(cls)
        frozen = cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
        return _FieldNames(tuple(m.name for m in members), tuple(m.name for m in members if m.init), frozen)
    raise TypeError(f"{cls.__qualname__} is no value")


# ── copying ──


@functools.cache
def _copier(cls: type) -> Callable[[Any], Any]:
    if cls in _ATOMS or issubclass(cls, Enum) or getattr(cls, "passes_by_reference", False):
        return _same
    if cls in _COPIERS:
        return _COPIERS[cls]
    return _fields_copier(cls)


def _same(value: Any) -> Any:
    return value


def _renew(value: Any) -> Any:
    return value.__class__()


def _copy_any(value: Any) -> Any:
    cls = value.__class__
    return value if cls in _ATOMS else _copier(cls)(value)


def _copy_tuple(value: tuple[Any, ...]) -> tuple[Any, ...]:
    copied = tuple([_copy_any(item) for item in value])
    return value if all(map(operator.is_, value, copied)) else copied


def _copy_frozenset(value: frozenset[Any]) -> frozenset[Any]:
    copied = [_copy_any(item) for item in value]
    return value if all(map(operator.is_, value, copied)) else frozenset(copied)


def _copy_list(value: list[Any]) -> list[Any]:
    return [_copy_any(item) for item in value]


def _copy_set(value: set[Any]) -> set[Any]:
    return {_copy_any(item) for item in value}


def _copy_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    return {_copy_any(key): _copy_any(item) for key, item in value.items()}


def _copy_datetime(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise TypeError("a datetime without a time zone")
    return value


_COPIERS: dict[type, Callable[[Any], Any]] = {
    tuple: _copy_tuple,
    frozenset: _copy_frozenset,
    list: _copy_list,
    set: _copy_set,
    dict: _copy_dict,
    bytearray: bytearray,
    datetime: _copy_datetime,
}


def _fields_copier(cls: type) -> Callable[[Any], Any]:
    names = _field_names(cls)
    if not names.every:
        return _same if names.frozen else _renew
    several = len(names.every) > 1
    getter: Callable[[Any], Any] = operator.attrgetter(*names.every)

    def copy_fields(value: Any) -> Any:
        items = getter(value) if several else (getter(value),)
        for item in items:
            if item.__class__ not in _ATOMS:
                break
        else:
            if names.frozen:
                return value
        copied = [_copy_any(item) for item in items]
        if names.frozen and all(map(operator.is_, items, copied)):
            return value
        # Not through __init__: validators and converters already ran, and fields with init=False count too.
        new: Any = object.__new__(cls)
        for name, item in zip(names.every, copied, strict=True):
            object.__setattr__(new, name, item)
        if hasattr(value, "_attrs_cached_hash"):
            object.__setattr__(new, "_attrs_cached_hash", None)
        return new

    return copy_fields


# ── refusing ──


def _explained(value: object, error: Exception) -> TypeError:
    """The error for a user: which part of the value, and why."""
    found = _fault(value, "value", ())
    return TypeError(found if found is not None else f"value of type {_name(type(value))}: {error}")


def _fault(value: Any, path: str, above: tuple[object, ...]) -> str | None:
    cls = value.__class__
    if cls in _ATOMS or cls is bytearray or isinstance(value, Enum):
        return None
    if cls is datetime:
        complaint = f"{path} is a datetime without a time zone; give it one (tzinfo=UTC)"
        return None if value.tzinfo is not None else complaint
    if any(value is other for other in above):
        return f"{path} contains itself; cycles cannot be stored or sent"
    if len(above) >= _DEPTH:
        return f"{path[:60]}… is nested deeper than {_DEPTH} levels"
    above = (*above, value)
    for part, name in _parts(value, cls, path):
        if name is None:
            return str(part)
        fault = _fault(part, name, above)
        if fault is not None:
            return fault
    return None


def _parts(value: Any, cls: type, path: str) -> list[tuple[Any, str | None]]:
    """What a value consists of, with paths; or one pair (complaint, None)."""
    if cls in {list, tuple}:
        return [(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if cls in {set, frozenset}:
        return [(item, f"{path}{{{item!r:.40}}}") for item in value]
    if cls is dict:
        keys: list[tuple[Any, str | None]] = [(key, f"key {key!r:.40} of {path}") for key in value]
        return keys + [(item, f"{path}[{key!r:.40}]") for key, item in value.items()]
    if attrs.has(cls) or dataclasses.is_dataclass(cls):
        return [(getattr(value, name), f"{path}.{name}") for name in _field_names(cls).every]
    if isinstance(value, types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        return [(f"{path} is the function {_name(value)}; functions cannot be stored or sent", None)]
    refusal: str | None = getattr(cls, "refused_as_value", None)
    if refusal is not None:
        return [(refusal, None)]
    return [(f"{path} is a {cls.__module__}.{cls.__qualname__}; {_LEGAL}", None)]


def plain(value: object) -> Any:
    """A decoded value as far as JSON has a form for it, for people to look at; the rest as Python writes it."""
    if isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return {key if isinstance(key, str) else repr(key): plain(inner) for key, inner in items}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in cast("list[object]", value)]
    if isinstance(value, bytes):
        try:
            return json.loads(value)  # a text of JSON, such as a stored signal
        except ValueError:
            return value.hex()
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
