"""Reads a source's `options` strictly: a mistake names the key, what was seen and what is allowed."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from actors.ingest.pointer import InvalidPointer, Pointer
from actors.ingest.source import InvalidOptions
from runtime import Secret

_ENV = "env:"


class Options:
    """One source's options; ask for every key, then `done()`.

    Args:
        kind: the kind of source, for the messages.
        environ: where `"env:NAME"` looks.
    """

    def __init__(self, kind: str, options: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> None:
        self._kind = kind
        self._options = options
        self._environ = environ
        self._asked: list[str] = []

    def has(self, key: str) -> bool:
        """Whether it is there."""
        self._ask(key)
        return key in self._options

    def text(self, key: str, default: str | None = None) -> str:
        """A text; without a default it must be there."""
        value = self._value(key, default)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "must be a text in quotes")
        return value

    def choice(self, key: str, allowed: Sequence[str]) -> str:
        """One of these; the first when it is left out."""
        value = self._value(key, allowed[0])
        if value not in allowed:
            raise self.wrong(key, f"must be one of {', '.join(map(repr, allowed))}")
        return cast("str", value)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def number(self, key: str, default: float, least: float, most: float) -> float:
        """A number within bounds."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.wrong(key, f"must be a number, {least:,} to {most:,}")
        return float(value)

    def whole(self, key: str, default: int, least: int, most: int) -> int:
        """A whole number within bounds."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(key, f"must be a whole number, {least:,} to {most:,}")
        return value

    def texts(self, key: str, *, least: int = 0) -> tuple[str, ...]:
        """An array of texts."""
        value = self._value(key, [])
        if not isinstance(value, list | tuple):
            raise self.wrong(key, "must be an array of texts: [ … ]")
        items = cast("Sequence[object]", value)
        if len(items) < least or not all(isinstance(one, str) for one in items):
            raise self.wrong(key, f"must be an array of at least {least} texts: [ … ]")
        return tuple(cast("Sequence[str]", items))

    def pointer(self, key: str, default: str | None = None) -> Pointer:
        """A JSON Pointer."""
        try:
            return Pointer.parse(self._as_text(key, default))
        except InvalidPointer as error:
            raise self.wrong(key, str(error)) from None

    def secret(self, key: str) -> Secret:
        """A text that is not shown; `"env:NAME"` takes it from the environment."""
        if not self.has(key):
            raise self.wrong(key, 'must be a text, or "env:NAME" to take it from the environment')
        return self._secret(key, self._value(key, None))

    def secrets(self, key: str, *, least: int = 0, most: int = 16) -> tuple[Secret, ...]:
        """An array of such texts."""
        value = self._value(key, [])
        if not isinstance(value, list | tuple):
            raise InvalidOptions(f"options.{key} must be an array of texts")
        items = cast("Sequence[object]", value)
        if not least <= len(items) <= most:
            raise InvalidOptions(f"options.{key} has {len(items)} entries; must be {least} to {most}")
        return tuple(self._secret(f"{key}[{index}]", one) for index, one in enumerate(items))

    def secret_table(self, key: str) -> dict[str, Secret]:
        """A table of such texts, such as headers."""
        value = self._value(key, {})
        if not isinstance(value, Mapping):
            raise InvalidOptions(f'options.{key} must be a table: {{ Name = "value" }}')
        table = cast("Mapping[str, object]", value)
        return {name: self._secret(f"{key}.{name}", one) for name, one in table.items()}

    def table(self, key: str) -> Mapping[str, Any] | None:
        """A table, or None when it is left out."""
        value = self._value(key, {}) if self.has(key) else None
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(key, "must be a table")
        return cast("Mapping[str, Any] | None", value)

    def done(self) -> None:
        """Refuse what was not asked for. Raises: InvalidOptions."""
        for key in self._options:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                allowed = ", ".join(sorted(self._asked)) or "none"
                raise InvalidOptions(f"options.{key} is unknown; {hint}a {self._kind} source has {allowed}")

    def wrong(self, key: str, allowed: str) -> InvalidOptions:
        """The error for a value."""
        if key not in self._options:
            return InvalidOptions(f"options.{key} is missing; it {allowed}")
        seen = repr(self._options[key])
        return InvalidOptions(f"options.{key} is {seen if len(seen) <= 80 else seen[:79] + '…'}; it {allowed}")

    def _ask(self, key: str) -> None:
        if key not in self._asked:
            self._asked.append(key)

    def _value(self, key: str, default: Any) -> Any:
        self._ask(key)
        return self._options.get(key, default)

    def _as_text(self, key: str, default: str | None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, 'must be a JSON Pointer in quotes, such as "/id"')
        return value

    def _secret(self, key: str, value: object) -> Secret:
        if not isinstance(value, str) or not value:
            raise InvalidOptions(f'options.{key} must be a text, or "env:NAME" to take it from the environment')
        if not value.startswith(_ENV):
            return Secret(value)
        name = value.removeprefix(_ENV)
        if not self._environ.get(name):
            raise InvalidOptions(f"options.{key}: the environment variable {name!r} is not set or empty; set it")
        return Secret(self._environ[name])
