"""`ctx.storage.kv`: the synchronous keys and values of SQL classes, with a live iterator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from runtime import codec
from runtime.storage.keys import check_list_limit, key_range, key_text

if TYPE_CHECKING:
    from runtime.storage.storage import Storage


NO_KV = (
    "The storage.kv API is only available for SQL classes. The methods of ctx.storage itself, such as "
    'ctx.storage.get(), are synchronous too; or set storage = "sql" on the class. '
    "A class cannot change that once it has stored something."
)


class SyncKv:
    """The same keys as `ctx.storage`'s own methods, which are synchronous too.

    Durable Objects: `storage.kv`.
    """

    __slots__ = ("_newest", "_storage")

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._newest: PairIterator | None = None

    def get(self, key: str, type: Any = Any, default: Any = None) -> Any:  # noqa: A002
        """As `Storage.get`."""
        return self._storage.get(key, type, default)

    def put(self, key: str, value: object) -> None:
        """As `Storage.put`."""
        self._storage.put(key, value)

    def delete(self, key: str) -> bool:
        """As `Storage.delete`."""
        return self._storage.delete(key)

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
    ) -> Iterator[tuple[str, Any]]:
        """Pairs in key order, with the bounds of `Storage.list`, read one by one.

        The iterator sees keys that are written or deleted before it gets to them, and stays usable across waits.
        There is one at a time: a new one ends the one before.

        Raises:
            TypeError: as `Storage.list`.
        """
        check_list_limit(limit)
        low, high = key_range(start, start_after, end, prefix)
        self._newest = PairIterator(self._storage._pairs, type, low, high, limit, reverse, self._is_newest)
        return self._newest

    def _is_newest(self, pairs: PairIterator) -> bool:
        return self._newest is pairs


class PairIterator(Iterator[tuple[str, Any]]):
    """Where a `list` is."""

    __slots__ = ("_high", "_is_newest", "_left", "_low", "_read", "_reverse", "_type")

    def __init__(
        self,
        read: Callable[[bytes, bytes, int, bool], Any],
        type: Any,  # noqa: A002
        low: bytes,
        high: bytes,
        limit: int | None,
        reverse: bool,
        is_newest: Callable[[PairIterator], bool],
    ) -> None:
        self._read = read
        self._type = type
        self._low = low
        self._high = high
        self._left = limit
        self._reverse = reverse
        self._is_newest = is_newest

    def __next__(self) -> tuple[str, Any]:
        """The next pair. Raises: RuntimeError after a newer `list`."""
        if not self._is_newest(self):
            raise RuntimeError(
                "kv.list() iterator was invalidated because a new call to kv.list() was started. "
                "Only one kv.list() iterator can exist at a time."
            )
        if self._left == 0 or self._low >= self._high:
            raise StopIteration
        found = self._read(self._low, self._high, 1, self._reverse)
        if not found:
            raise StopIteration
        ((key, data),) = found
        if self._reverse:
            self._high = key
        else:
            self._low = key + b"\0"
        if self._left is not None:
            self._left -= 1
        return key_text(key), codec.decode(data, self._type)
