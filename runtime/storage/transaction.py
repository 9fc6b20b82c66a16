"""The handle of one running storage transaction: the same reads and writes, and `rollback`."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

if TYPE_CHECKING:
    from runtime.storage.storage import Storage

T = TypeVar("T")


class Transaction:
    """What `Storage.transaction` gives to its function; it is over when that function has ended.

    Every method is the method of `Storage` with the same name, and raises RuntimeError on a transaction that is over.
    """

    __slots__ = ("_storage", "alarm_hidden", "confirmed_writes", "defers", "mark", "state")

    def __init__(self, storage: Storage, mark: int, alarm_hidden: bool, *, defers: bool) -> None:
        self._storage = storage
        self.mark = mark
        self.alarm_hidden = alarm_hidden
        self.defers = defers  # its writes hold back effects only from its end on
        self.confirmed_writes = False
        self.state: Literal["open", "committed", "rolled back"] = "open"

    @overload
    def get(self, key: str) -> Any: ...
    @overload
    def get(self, key: str, type: type[T]) -> T | None: ...
    @overload
    def get(self, key: str, type: Any, default: Any) -> Any: ...
    def get(self, key: str, type: Any = Any, default: Any = None) -> Any:  # noqa: A002
        """As `Storage.get`."""
        self._check("get")
        return self._storage.get(key, type, default)

    def get_many(self, keys: Iterable[str], type: Any = Any) -> dict[str, Any]:  # noqa: A002
        """As `Storage.get_many`."""
        self._check("get_many")
        found: dict[str, Any] = self._storage.get_many(keys, type)
        return found

    def list(self, type: Any = Any, **bounds: Any) -> dict[str, Any]:  # noqa: A002
        """As `Storage.list`, with the same bounds."""
        self._check("list")
        found: dict[str, Any] = self._storage.list(type, **bounds)
        return found

    def put(self, key: str, value: object, *, allow_unconfirmed: bool = False) -> None:
        """As `Storage.put`."""
        self._check("put")
        self._storage.put(key, value, allow_unconfirmed=allow_unconfirmed)

    def put_many(self, entries: Mapping[str, object], *, allow_unconfirmed: bool = False) -> None:
        """As `Storage.put_many`."""
        self._check("put_many")
        self._storage.put_many(entries, allow_unconfirmed=allow_unconfirmed)

    def delete(self, key: str, *, allow_unconfirmed: bool = False) -> bool:
        """As `Storage.delete`."""
        self._check("delete")
        return self._storage.delete(key, allow_unconfirmed=allow_unconfirmed)

    def delete_many(self, keys: builtins.list[str], *, allow_unconfirmed: bool = False) -> int:
        """As `Storage.delete_many`."""
        self._check("delete_many")
        return self._storage.delete_many(keys, allow_unconfirmed=allow_unconfirmed)

    def delete_all(self) -> NoReturn:
        """Refused. Raises: RuntimeError."""
        raise RuntimeError("Cannot call delete_all() within a transaction")

    def set_alarm(self, time_s: float) -> None:
        """As `Storage.set_alarm`."""
        self._check("set_alarm")
        self._storage.set_alarm(time_s)

    def get_alarm(self) -> float | None:
        """As `Storage.get_alarm`."""
        self._check("get_alarm")
        return self._storage.get_alarm()

    def delete_alarm(self) -> None:
        """As `Storage.delete_alarm`."""
        self._check("delete_alarm")
        self._storage.delete_alarm()

    def rollback(self) -> None:
        """Undo everything that the transaction wrote; the function goes on, and its value is still returned.

        A second call does nothing.
        """
        if self.state != "rolled back":
            self._check("rollback")
            self._storage._undo_to(self)

    def _check(self, method: str) -> None:
        if self.state == "rolled back":
            raise RuntimeError(f"Cannot {method}() on rolled back transaction")
        if self.state == "committed":
            raise RuntimeError(
                f"Cannot call {method}() on transaction that has already committed: "
                "did you move `txn` outside of the closure?"
            )
