"""What is stored, page by page, as an async iterator."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

import anyio.lowlevel
import attrs

from actors.filters import Filter
from actors.protocol.cursor import Cursor, Since
from actors.protocol.events import PageRead
from actors.signals import Signal

Read = Callable[[Filter, Since, int, bool], Awaitable[PageRead]]


@attrs.define(eq=False)
class History(AsyncIterator[Signal]):
    """The stored signals that match a filter; made by `SignalClient.history`.

    Attributes:
        cursor: everything that matches up to here was read (in reverse: from here on); None before the first page.
    """

    _read: Read
    _filter: Filter
    _since: Since
    _reverse: bool
    _left: float
    _page: int
    cursor: Cursor | None = attrs.field(default=None, init=False)
    _signals: deque[Signal] = attrs.field(factory=deque[Signal], init=False)
    _more: bool = attrs.field(default=True, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Signal:
        """The next one.

        Raises: ReadRefused when the log does not reach back to where this is (any more); ClientClosed.
        """
        await anyio.lowlevel.checkpoint()
        while not self._signals:
            if not self._more or self._left <= 0:
                raise StopAsyncIteration
            limit = self._page if self._left == math.inf else int(min(self._page, self._left))
            page = await self._read(self._filter, self._since, limit, self._reverse)
            self._signals.extend(page.signals)
            self._left -= len(page.signals)
            self._more = page.more
            self._since = self.cursor = Cursor(page.epoch, page.after if self._reverse else page.upto)
        return self._signals.popleft()
