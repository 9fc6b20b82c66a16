"""How something ended: a value or an error, kept plain because every event and every wait makes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn


class Value:
    """It ended with a value."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def unwrap(self) -> Any:
        """The value."""
        return self.value


class Error:
    """It ended with an error."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @classmethod
    def of(cls, raises: Callable[[], NoReturn]) -> Error:
        """What a function raises."""
        try:
            raises()
        except BaseException as error:  # noqa: BLE001 -- it is on its way to the one who waits
            return cls(error)

    def unwrap(self) -> NoReturn:
        """Raise it."""
        try:
            raise self.error
        finally:
            del self  # else error, traceback and frame would know each other


Result = Value | Error
DONE = Value(None)
