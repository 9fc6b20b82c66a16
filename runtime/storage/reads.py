"""The reading half of what an actor sees as `ctx.storage`: typed values by key and by range, without waiting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, overload

from runtime import codec
from runtime.limits import StorageLimits
from runtime.storage.backend import Keyspace
from runtime.storage.gate import StorageGate
from runtime.storage.keys import check_list_limit, key_bytes, key_range, key_text, keys_bytes

T = TypeVar("T")
D = TypeVar("D")


class StorageReads:
    """Reads of one actor's keys; they see its own writes that are not durable yet."""

    def __init__(self, keys: Keyspace, gate: StorageGate, limits: StorageLimits) -> None:
        self._overlay = keys
        self._gate = gate
        self._limits = limits

    @overload
    def get(self, key: str) -> Any: ...
    @overload
    def get(self, key: str, type: type[T]) -> T | None: ...
    @overload
    def get(self, key: str, type: type[T], default: D) -> T | D: ...
    @overload
    def get(self, key: str, type: Any = ..., default: Any = ...) -> Any: ...
    def get(self, key: str, type: Any = Any, default: Any = None) -> Any:  # noqa: A002
        """The value of a key as a `type`; the default when there is none.

        Raises:
            LimitExceeded: the key is over 2,048 bytes.
            codec.UndecodableError: the stored value is no `type`.
        """
        self._gate.check()
        data = self._overlay.get(key_bytes(key, self._limits))
        return default if data is None else codec.decode(data, type)

    @overload
    def get_many(self, keys: Iterable[str]) -> dict[str, Any]: ...
    @overload
    def get_many(self, keys: Iterable[str], type: type[T]) -> dict[str, T]: ...
    @overload
    def get_many(self, keys: Iterable[str], type: Any) -> dict[str, Any]: ...
    def get_many(self, keys: Iterable[str], type: Any = Any) -> dict[str, Any]:  # noqa: A002
        """The values of up to 128 keys, in key order; missing keys are left out.

        Raises:
            LimitExceeded: too many keys, or one is too long.
        """
        self._gate.check()
        found: dict[str, Any] = {}
        for key in sorted(set(keys_bytes(keys, self._limits))):
            data = self._overlay.get(key)
            if data is not None:
                found[key_text(key)] = codec.decode(data, type)
        return found

    @overload
    def list(
        self,
        *,
        start: str | None = ...,
        start_after: str | None = ...,
        end: str | None = ...,
        prefix: str | None = ...,
        reverse: bool = ...,
        limit: int | None = ...,
    ) -> dict[str, Any]: ...
    @overload
    def list(
        self,
        type: type[T],
        *,
        start: str | None = ...,
        start_after: str | None = ...,
        end: str | None = ...,
        prefix: str | None = ...,
        reverse: bool = ...,
        limit: int | None = ...,
    ) -> dict[str, T]: ...
    @overload
    def list(
        self,
        type: Any,
        *,
        start: str | None = ...,
        start_after: str | None = ...,
        end: str | None = ...,
        prefix: str | None = ...,
        reverse: bool = ...,
        limit: int | None = ...,
    ) -> dict[str, Any]: ...
    def list(
        self,
        type: Any = Any,  # noqa: A002
        *,
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """Pairs in key order; all bounds given must hold.

        Durable Objects: `list()`. `reverse` gives the same range from its high end; it does not swap the bounds.

        Args:
            type: what each value is decoded as.
            start: the lowest key.
            start_after: the key below the lowest; not together with start.
            end: the key above the highest.
            prefix: what each key begins with.
            reverse: from the highest to the lowest key.
            limit: at most so many pairs, counted from where it begins.

        Raises:
            TypeError: start with start_after, or a limit that is no positive whole number.
        """
        self._gate.check()
        check_list_limit(limit)
        low, high = key_range(start, start_after, end, prefix)
        if low >= high:
            return {}
        pairs = self._overlay.list(low, high, limit, reverse)
        return {key_text(key): codec.decode(data, type) for key, data in pairs}

    def _pairs(self, low: bytes, high: bytes, limit: int | None, reverse: bool) -> Sequence[tuple[bytes, bytes]]:
        self._gate.check()
        return self._overlay.list(low, high, limit, reverse)
