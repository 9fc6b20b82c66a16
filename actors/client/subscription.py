"""One subscription of an application: a bounded buffer between the connection and an `async for`."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import attrs
import trio

from actors.client.errors import ClientError
from actors.filters import Filter
from actors.protocol import events as happened
from actors.protocol.cursor import Cursor, Since
from actors.protocol.events import SubStateName
from actors.protocol.messages import OnGap
from actors.signals import Signal

if TYPE_CHECKING:
    from actors.client.client import SignalClient


@attrs.frozen
class Gap:
    """Signals with `after < o ≤ upto` will not come; None: the bounds are unknown.

    Attributes:
        reason: `retention` (they are no longer stored), `slow` (this client was too slow), `epoch` (the stream was
            wiped or restored, and offsets start anew).
    """

    after: int | None
    upto: int | None
    reason: str


@attrs.define(eq=False)
class _Item:
    value: Signal | Gap
    cursor: Cursor | None  # where the application is once it has taken the value


@attrs.define(eq=False)
class Subscription(AsyncIterator[Signal | Gap]):
    """Signals that match a filter, each once and in order, or an explicit `Gap`.

    Use it as `async with client.subscribe(…) as sub: async for item in sub`. At most `buffer` items wait for the
    application; when they do, the client stops reading its socket, and the server holds on.

    Attributes:
        name: its name on the wire.
        cursor: what the application has taken; it moves when the next item is asked for. Store it to go on from
            there with `since=cursor` in another process. None before the first `subok`.
        state: `pending`, `catchup`, `live` or `failed`.
    """

    _client: SignalClient
    name: str
    filter: Filter
    since: Since
    on_gap: OnGap
    buffer: int
    cursor: Cursor | None = attrs.field(default=None, init=False)
    state: SubStateName = attrs.field(default="pending", init=False)
    _items: deque[_Item] = attrs.field(factory=deque[_Item], init=False)
    _in_hand: _Item | None = attrs.field(default=None, init=False)
    _failure: ClientError | None = attrs.field(default=None, init=False)
    _left: bool = attrs.field(default=False, init=False)
    _room: trio.Event = attrs.field(factory=trio.Event, init=False)
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)
    _waiting: bool = attrs.field(default=False, init=False)

    async def __aenter__(self) -> Self:
        self._client.declare(self)
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left = True
        self._room.set()
        self._news.set()
        self._client.take_back(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Signal | Gap:
        """The next signal or gap; the one before it counts as taken.

        Raises: SubscriptionFailed, ClientClosed (both after everything received was handed out),
            trio.ClosedResourceError after the block, trio.BusyResourceError when another task iterates already.
        """
        self._take()
        await trio.lowlevel.checkpoint()
        if self._waiting:
            raise trio.BusyResourceError("another task is waiting for this subscription")
        while not self._items:
            if self._left:
                raise trio.ClosedResourceError("the subscription's block has ended")
            if self._failure is not None:
                raise self._failure
            self._news = trio.Event()
            self._waiting = True
            try:
                await self._news.wait()
            finally:
                self._waiting = False
        self._in_hand = self._items.popleft()
        self._room.set()
        return self._in_hand.value

    # --- the client's side ---------------------------------------------------------------------------------

    async def deliver(self, event: happened.Signals | happened.Gap | happened.SubState) -> None:
        """Buffer what arrived; waits while the buffer is full. For the client only."""
        match event:
            case happened.SubState():
                self.state = event.state
                if event.since is not None and self._reached() is None:
                    self._advance(event.since)
            case happened.Gap():
                cursor = None if event.epoch is None or event.c is None else Cursor(event.epoch, event.c)
                await self._put(_Item(Gap(event.a, event.b, event.reason), cursor))
            case happened.Signals():
                for signal in event.signals:
                    await self._put(_Item(signal, Cursor(event.epoch, signal.o)))
                self._advance(Cursor(event.epoch, event.c))

    def fail(self, failure: ClientError) -> None:
        """No more will come. For the client only."""
        self.state = "failed"
        self._failure = self._failure or failure
        self._news.set()

    async def _put(self, item: _Item) -> None:
        while len(self._items) >= self.buffer and not self._left:
            self._room = trio.Event()
            await self._room.wait()
        self._items.append(item)
        self._news.set()

    def _reached(self) -> Cursor | None:
        return self._items[-1].cursor if self._items else self._in_hand.cursor if self._in_hand else self.cursor

    def _advance(self, cursor: Cursor) -> None:
        """Nothing matches between the last item and this cursor: whoever has taken the item is there."""
        if self._items:
            self._items[-1].cursor = cursor
        elif self._in_hand is not None:
            self._in_hand.cursor = cursor
        else:
            self.cursor = cursor

    def _take(self) -> None:
        if self._in_hand is not None:
            self.cursor, self._in_hand = self._in_hand.cursor, None
