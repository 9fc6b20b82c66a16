"""`durable(State)`: a frozen value as an attribute of an actor, stored when it is assigned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar, overload

import attrs

from runtime import codec
from runtime.storage.storage import Storage

S = TypeVar("S")

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


class StateVersionError(ValueError):
    """The stored state cannot be read by this code.

    Attributes:
        attribute: the durable attribute. stored: the version that was found. known: the version of the code.
    """

    def __init__(self, message: str, *, attribute: str, stored: int, known: int) -> None:
        super().__init__(message)
        self.attribute = attribute
        self.stored = stored
        self.known = known


class _HasStorage(Protocol):
    @property
    def storage(self) -> Storage: ...


class _Stateful(Protocol):
    @property
    def ctx(self) -> _HasStorage: ...


class durable(Generic[S]):  # noqa: N801 -- reads as a function where it is used
    """A typed attribute of an actor class that lasts.

    `state = durable(CounterState)` reads as `CounterState()` until the first assignment; each assignment is stored
    in the same batch as the actor's other writes, under the key `_durable/<attribute>`, and rolls back with a
    transaction. Reading is synchronous and decodes once.

    Args:
        state_class: a frozen attrs class or dataclass whose fields all have defaults.
        version: of the state class; raise it when stored states need an upgrade.
        upgrades: by stored version, a function from its fields (a dict) to those of the next version.
        key: the name to store it under instead of the attribute's, for an attribute that was renamed.

    Raises:
        TypeError: the class is not frozen, a field has no default, or an upgrade is missing.
    """

    def __init__(
        self,
        state_class: type[S],
        *,
        version: int = 1,
        upgrades: Mapping[int, Upgrade] | None = None,
        key: str | None = None,
    ) -> None:
        if not _is_frozen(state_class):
            raise TypeError(
                f"durable() needs a frozen attrs class or dataclass; {state_class.__qualname__} could change without "
                "being stored. Declare it with @attrs.frozen"
            )
        required = _required(state_class)
        if required:
            raise TypeError(
                f"durable() begins with {state_class.__qualname__}(), which needs a value for {', '.join(required)}; "
                "give each field a default"
            )
        missing = sorted(set(range(1, version)) - set(upgrades or {}))
        if missing:
            raise TypeError(
                f"durable({state_class.__qualname__}, version={version}) has no upgrade from version "
                f"{', '.join(map(str, missing))}; give upgrades={{{missing[0]}: function, …}}"
            )
        self._state_class = state_class
        self._version = version
        self._upgrades = dict(upgrades or {})
        self._name = key or ""
        self._key = f"_durable/{self._name}".encode()

    def __set_name__(self, owner: type, name: str) -> None:
        if not self._name:
            self._name = name
            self._key = f"_durable/{name}".encode()

    @overload
    def __get__(self, instance: None, owner: type) -> durable[S]: ...
    @overload
    def __get__(self, instance: _Stateful, owner: type) -> S: ...
    def __get__(self, instance: _Stateful | None, owner: type) -> durable[S] | S:
        """The state as it was last assigned.

        Raises:
            StateVersionError: it was stored by newer code.
            codec.UndecodableError: what is stored does not fit the class.
        """
        if instance is None:
            return self
        return instance.ctx.storage.read_snapshot(self._key, self._decode)

    def __set__(self, instance: _Stateful, value: S) -> None:
        """Store a new state. Raises: TypeError, LimitExceeded."""
        if not isinstance(value, self._state_class):
            raise TypeError(
                f"{self._name} holds a {self._state_class.__qualname__}; got {type(value).__qualname__} {value!r:.60}"
            )
        data = codec.encode([self._version, value])
        instance.ctx.storage.write_snapshot(self._key, data, value)

    def _decode(self, data: bytes | None) -> S:
        if data is None:
            return self._state_class()
        version, fields = codec.decode(data, tuple[int, dict[str, Any]])
        if version > self._version:
            raise StateVersionError(
                f"{self._name} was stored by newer code: version {version}, this code knows {self._version}. "
                "Run the newer code again, or give it a way back.",
                attribute=self._name,
                stored=version,
                known=self._version,
            )
        for step in range(version, self._version):
            fields = self._upgrades[step](fields)
        state: S = codec.structure(fields, self._state_class)
        return state


def _is_frozen(cls: type) -> bool:
    if attrs.has(cls):
        return bool(attrs.inspect(cls).is_frozen)
    return dataclasses.is_dataclass(cls) and bool(cls.__dataclass_params__.frozen)  # type: ignore[attr-defined]


def _required(cls: type) -> list[str]:
    if attrs.has(cls):
        return [field.name for field in attrs.fields(cls) if field.init and field.default is attrs.NOTHING]
    return [
        field.name
        for field in dataclasses.fields(cls)
        if field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
