"""An index over many filters: which of them a signal may pass, found without asking each one.

Every filter stands under keys of which a signal that passes has at least one: an exact name, the beginning of a name,
or a value at a path. A filter often has several such sets of keys (its types, its entities, an `eq` in its `where`);
it is put under the one that is least crowded when it comes, so a filter on a common type and a rare entity is found
by its entity. A filter without such keys is a candidate for every signal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from actors.filters.patterns import literal_prefix
from actors.filters.where import MISSING, Read, compile_pointer

T = TypeVar("T")

KEYS_MAX = 256  # of one filter; one with more is a candidate for every signal

_TYPE, _ENTITY = "type", "entity"


@attrs.frozen
class _Key:
    """One place of the index.

    Attributes:
        field: `type`, `entity`, or the JSON Pointer of a `where` leaf.
        value: the name, its beginning, or the value in the form of `_comparable`.
        length: of the beginning; None when the value must be equal.
    """

    field: str
    value: object
    length: int | None = None


@attrs.define(eq=False)
class _Field(Generic[T]):
    """What the index knows by one name or path; no place in it is empty."""

    read: Read | None = None  # of a path
    equal: dict[object, dict[T, None]] = attrs.Factory(dict)
    beginning: dict[int, dict[object, dict[T, None]]] = attrs.Factory(dict)

    def find(self, value: object, found: dict[T, None]) -> None:
        bucket = self.equal.get(value)
        if bucket is not None:
            found.update(bucket)

    def find_name(self, name: str, found: dict[T, None]) -> None:
        self.find(name, found)
        for length, places in self.beginning.items():
            bucket = places.get(name[:length])
            if bucket is not None:
                found.update(bucket)

    def places(self, key: _Key) -> dict[object, dict[T, None]] | None:
        return self.equal if key.length is None else self.beginning.get(key.length)


@attrs.define(eq=False)
class FilterIndex(Generic[T]):
    """Items (hashable) with a canonical filter each.

    A look-up costs a few dictionary look-ups, one for each length of a beginning and one for each distinct path in
    use; the items found are to be asked themselves. Memory: at most 256 places for an item.
    """

    _names: dict[str, _Field[T]] = attrs.field(factory=lambda: {_TYPE: _Field(), _ENTITY: _Field()}, init=False)
    _paths: dict[str, _Field[T]] = attrs.field(factory=dict, init=False)
    _always: dict[T, None] = attrs.field(factory=dict, init=False)
    _keys: dict[T, Sequence[_Key]] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._always) + len(self._keys)

    def add(self, item: T, canonical: str) -> None:
        """Put an item under the keys of its filter."""
        sets = [keys for keys in _key_sets(json.loads(canonical)) if len(keys) <= KEYS_MAX]
        if not sets:
            self._always[item] = None
            return
        keys = self._keys[item] = min(sets, key=self._crowd)
        for key in keys:
            field = self._field(key.field)
            places = field.equal if key.length is None else field.beginning.setdefault(key.length, {})
            places.setdefault(key.value, {})[item] = None

    def remove(self, item: T) -> None:
        """Take an item out again."""
        if item in self._always:
            del self._always[item]
            return
        for key in self._keys.pop(item):
            field = self._field(key.field)
            places = field.places(key)
            assert places is not None
            del places[key.value][item]
            if not places[key.value]:
                del places[key.value]
            if key.length is not None and not places:
                del field.beginning[key.length]
            if key.field in self._paths and not field.equal:
                del self._paths[key.field]

    def by_names(self, type: str, entity: str) -> dict[T, None]:  # noqa: A002 - the protocol's word
        """Every item that these names may let pass, but for those that `by_values` finds."""
        found = dict(self._always)
        self._names[_TYPE].find_name(type, found)
        self._names[_ENTITY].find_name(entity, found)
        return found

    @property
    def has_values(self) -> bool:
        """Some item is only found by a value: `by_values` is to be asked."""
        return bool(self._paths)

    def by_values(self, signal: Mapping[str, Any]) -> dict[T, None]:
        """Every item that stands under a value of the signal (its parsed JSON)."""
        found: dict[T, None] = {}
        for field in self._paths.values():
            assert field.read is not None
            at = field.read(signal)
            if at is not MISSING and not isinstance(at, list | dict):
                field.find(_comparable(at), found)
        return found

    def _field(self, name: str) -> _Field[T]:
        found = self._names.get(name) or self._paths.get(name)
        if found is None:
            found = self._paths[name] = _Field(compile_pointer(name))
        return found

    def _crowd(self, keys: Sequence[_Key]) -> int:
        """How many items a look-up that hits one of these keys would find; a new kind of look-up counts as one."""
        most = 0
        for key in keys:
            field = self._names.get(key.field) or self._paths.get(key.field)
            places = None if field is None else field.places(key)
            most = max(most, 1 if places is None else len(places.get(key.value, ())))
        return most


def _key_sets(tree: Mapping[str, Any]) -> Iterator[Sequence[_Key]]:
    """Sets of keys, of each of which a signal that passes has at least one."""
    for field, patterns in ((_ENTITY, tree.get("entities", ())), (_TYPE, tree.get("types", ()))):
        keys = _name_keys(field, patterns)
        if keys:
            yield keys
    if "where" in tree:
        yield from _where_sets(tree["where"])


def _name_keys(field: str, patterns: Sequence[str]) -> Sequence[_Key]:
    """Empty when some name may pass whatever it begins with."""
    keys: dict[_Key, None] = {}
    for pattern in patterns:
        if pattern.startswith("!"):
            continue
        literal, rest = literal_prefix(pattern)
        if not literal:
            return ()
        keys[_Key(field, literal, len(literal) if rest else None)] = None
    return tuple(keys)


def _where_sets(tree: Mapping[str, Any]) -> Iterator[Sequence[_Key]]:
    if "all" in tree:
        for child in tree["all"]:
            yield from _where_sets(child)
    elif "any" in tree:
        # It passes by one of the children: keys for each of them are needed.
        keys: dict[_Key, None] = {}
        for child in tree["any"]:
            smallest = min(_where_sets(child), key=len, default=None)
            if smallest is None:
                return
            keys.update(dict.fromkeys(smallest))
        yield tuple(keys)
    elif tree.get("op") in ("eq", "in"):
        values = tree["v"] if tree["op"] == "in" else [tree["v"]]
        if not any(isinstance(value, list | dict) for value in values):
            yield tuple(dict.fromkeys(_Key(tree["f"], _comparable(value)) for value in values))


def _comparable(value: object) -> object:
    """Equal in Python exactly when the JSON scalars are equal: True would equal 1."""
    return ("boolean", value) if isinstance(value, bool) else value
