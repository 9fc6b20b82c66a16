"""Strictly from the tables of a TOML document to attrs values.

Nothing is coerced: what a person wrote has the key's type or is a mistake, and a mistake names the key, what was seen
and what is allowed. All mistakes are found, not only the first.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, override

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]


@attrs.frozen
class Secret:
    """A text that no log, repr or error shows.

    In a file it is written as it is or as `"env:NAME"`, which takes it from the environment.
    """

    value: str = attrs.field(repr=lambda _: "'***'")


class Tables:
    """Structures tables.

    Args:
        environ: where `"env:NAME"` of a `Secret` looks.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._converter = _converter(environ)
        self.mistakes: list[str] = []

    def structure(self, table: Any, type_: type[T], *, path: str = "", siblings: Sequence[str] = ()) -> T | None:
        """The value, or None with every mistake added to `mistakes`.

        Args:
            table: what tomllib made.
            type_: an attrs class; its fields are tables, arrays, leaves, or classes of their own.
            path: the table's key, for the mistakes.
            siblings: keys that others handle, named with the allowed ones.
        """
        try:
            return self._converter.structure(table, type_)
        except (BaseValidationError, MistakeError) as error:
            self.mistakes.extend(_mistakes(error, path, siblings))
            return None


class MistakeError(ValueError):
    """What was seen and what is allowed, without the key."""


def _converter(environ: Mapping[str, str]) -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for type_, hook in _LEAVES.items():
        converter.register_structure_hook(type_, hook)
    converter.register_structure_hook(Secret, _secret(environ))
    factories: list[tuple[Callable[[Any], bool], Callable[[Any, Converter], Hook]]] = [
        (_is_literal, _choice),
        (_is_array, _array),
        (_is_mapping, _mapping),
        (attrs.has, _table),
    ]
    for applies, factory in factories:
        converter.register_structure_hook_factory(applies, factory)
    return converter


def _typed(allowed: str, *types: type) -> Hook:
    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise MistakeError(f"saw {_shown(value)}; must be {allowed}")
        return value

    return structure


def _number(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MistakeError(f"saw {_shown(value)}; must be a number")
    return float(value)


def _path(value: Any, _: Any) -> Path:
    if not isinstance(value, str) or not value:
        raise MistakeError(f"saw {_shown(value)}; must be a path in quotes")
    return Path(value)


_LEAVES: Mapping[type, Hook] = {
    bool: _typed("true or false", bool),
    int: _typed("a whole number", int),
    float: _number,
    str: _typed("a text in quotes", str),
    Path: _path,
}


def _secret(environ: Mapping[str, str]) -> Hook:
    def structure(value: Any, _: Any) -> Secret:
        if not isinstance(value, str) or not value:
            raise MistakeError('must be a text in quotes, or "env:NAME" to take it from the environment')
        if not value.startswith("env:"):
            return Secret(value)
        name = value.removeprefix("env:")
        if not environ.get(name):
            raise MistakeError(f"the environment variable {name!r} is not set or empty; set it")
        return Secret(environ[name])

    return structure


def _is_literal(type_: Any) -> bool:
    return get_origin(type_) is Literal


def _choice(type_: Any, _: Converter) -> Hook:
    allowed = get_args(type_)

    def structure(value: Any, _: Any) -> Any:
        if not any(value == choice and type(value) is type(choice) for choice in allowed):
            raise MistakeError(f"saw {_shown(value)}; must be one of {', '.join(map(_shown, allowed))}")
        return value

    return structure


def _is_array(type_: Any) -> bool:
    return get_origin(type_) in {list, tuple, Sequence}


def _array(type_: Any, converter: Converter) -> Hook:
    """`list[X]`, `tuple[X, ...]` or `Sequence[X]`."""
    alias: Any = GenericAlias(list, get_args(type_)[:1])
    elements = list_structure_factory(alias, converter)
    make: type[Any] = list if get_origin(type_) is list else tuple

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise MistakeError(f"saw {_shown(value)}; must be an array: [ … ]")
        return make(elements(value, list))

    return structure


def _is_mapping(type_: Any) -> bool:
    return get_origin(type_) in {dict, Mapping}


def _mapping(type_: Any, converter: Converter) -> Hook:
    """`dict[str, X]` or `Mapping[str, X]`: a table whose keys the user chooses."""
    alias: Any = GenericAlias(dict, get_args(type_))
    entries: Hook = mapping_structure_factory(alias, converter)

    def structure(value: Any, _: Any) -> Any:
        return entries(_as_table(value), dict)

    return structure


def _table(type_: type[Any], converter: Converter) -> Hook:
    """An attrs class, each value checked by its attribute's validator on its own, so that all mistakes are found."""
    attrs.resolve_types(type_)
    fields: dict[str, Any] = {
        field.name: override(struct_hook=_checked(field, converter.get_structure_hook(field.type)))
        for field in attrs.fields(type_)
        if field.init and field.type is not None
    }
    construct = make_dict_structure_fn(type_, converter, _cattrs_forbid_extra_keys=True, **fields)

    def structure(value: Any, _: Any) -> Any:
        return construct(_as_table(value), type_)

    return structure


def _checked(field: attrs.Attribute[Any], hook: Hook) -> Hook:
    def structure(value: Any, type_: Any) -> Any:
        result = hook(value, type_)
        if field.validator is not None:
            field.validator(None, field, result)
        return result

    return structure


def _as_table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MistakeError(f"saw {_shown(value)}; must be a table")
    return value


def _shown(value: Any) -> str:
    """A value as TOML would write it, shortened."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _mistakes(error: Exception, path: str, siblings: Sequence[str]) -> Iterator[str]:
    if isinstance(error, BaseValidationError):
        for inner in error.exceptions:
            # A table inside the document has no siblings of its own.
            deeper = _below(path, inner)
            yield from _mistakes(inner, deeper, siblings if deeper == path else ())
    elif isinstance(error, ForbiddenExtraKeysError):
        allowed = sorted([*(field.name for field in attrs.fields(error.cl)), *siblings])
        for key in sorted(error.extra_fields):
            yield f"{_join(path, key)}: unknown key; {_nearest(key, allowed)}"
    elif isinstance(error, KeyError):
        yield f"{path}: missing; it has no default"
    else:
        # attrs' validators begin with the bare name; the path says it better.
        name = path.rpartition(".")[2]
        text = str(error.args[0] if error.args else error).removeprefix(f"'{name}' ")
        yield f"{path}: {text}" if path else text


def _nearest(key: str, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, allowed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}allowed: {', '.join(allowed) or 'none'}"


def _below(path: str, error: Exception) -> str:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return _join(path, note.name)
        if isinstance(note, IterableValidationNote):
            return f"{path}[{note.index}]" if isinstance(note.index, int) else _join(path, note.index)
    return path


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
