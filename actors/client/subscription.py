"""One subscription of an application: a bounded buffer between the connection and an `async for`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.lowlevel
import attrs

from actors.client.buffer import Buffer, Gap, SnapSignal
from actors.client.cursor_store import cursor_key
from actors.client.errors import ClientError, ModifyRefused, SubscriptionFailed
from actors.client.wishes import filter_of, min_ms_of
from actors.filters import Filter
from actors.protocol import events as happened
from actors.protocol.cursor import Ago, Cursor, Last, Since
from actors.protocol.events import SubStateName
from actors.protocol.requests import Change, Mode, OnGap, OnSlow
from actors.signals import Signal

if TYPE_CHECKING:
    from actors.client.client import SignalClient


@attrs.define(eq=False)
class Subscription(AsyncIterator[Signal | Gap]):
    """Signals that match a filter, each once and in order, or an explicit `Gap`.

    Use it as `async with client.subscribe(…) as sub: async for item in sub`. What the application has not taken waits
    in a buffer, and `overflow` says what happens when that is full.

    Attributes:
        name: its name on the wire.
        min_ms: of mode `latest`; 0 for `all`. left_out: signals that were not sent, because newer ones were.
        state: `pending`, `catchup`, `live` or `failed`.
    """

    _client: SignalClient
    name: str
    filter: Filter
    since: Since
    on_gap: OnGap
    _buffer: Buffer
    min_ms: int = 0
    on_slow: OnSlow = "close"
    stored: bool = False
    _store_key: str = attrs.field(
        default=attrs.Factory(lambda self: cursor_key(self.name, self.filter), takes_self=True), init=False
    )
    left_out: int = attrs.field(default=0, init=False)
    state: SubStateName = attrs.field(default="pending", init=False)
    _failure: ClientError | None = attrs.field(default=None, init=False)
    _left: bool = attrs.field(default=False, init=False)
    _news: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _waiting: bool = attrs.field(default=False, init=False)
    _changing: bool = attrs.field(default=False, init=False)
    _changed: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _changed_at: Cursor | None = attrs.field(default=None, init=False)
    _refusal: ClientError | None = attrs.field(default=None, init=False)

    @property
    def cursor(self) -> Cursor | None:
        """What the application has taken; None before the first `subok`.

        It moves when the next item is asked for, and with `ack="receive"` when one arrives. Store it to go on from
        there with `since=cursor` in another process, or give the client a `cursor_store`.
        """
        return self._buffer.cursor

    @property
    def waiting(self) -> int:
        """How many items wait for the application."""
        return len(self._buffer)

    @property
    def dropped(self) -> int:
        """Signals that gave way to a `Gap` because the buffer was full (`overflow` `drop_oldest` and `latest`)."""
        return self._buffer.dropped

    @property
    def replaced(self) -> int:
        """Signals that gave way to a newer one of their type and entity in the buffer (`overflow` `latest`)."""
        return self._buffer.replaced

    async def __aenter__(self) -> Self:
        """Begin. Raises: ClientClosed, ValueError when the name is in use; what the cursor store raises."""
        if self.stored:
            self.since = await self._client.cursors.load(self._store_key) or self.since
        self._client.declare(self)
        await anyio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left = True
        self._news.set()
        self._client.take_back(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Signal | Gap:
        """The next signal or gap; the one before it counts as taken.

        Raises: SubscriptionFailed, ClientClosed (both after everything received was handed out),
            anyio.ClosedResourceError after the block, anyio.BusyResourceError when another task iterates already.
        """
        self._buffer.taken()
        self._moved()
        await anyio.lowlevel.checkpoint()
        if self._waiting:
            raise anyio.BusyResourceError("waiting for this subscription in another task: using")
        while not self._buffer:
            if self._left:
                raise anyio.ClosedResourceError("the subscription's block has ended")
            if self._failure is not None:
                raise self._failure
            self._news = anyio.Event()
            self._waiting = True
            try:
                await self._news.wait()
            finally:
                self._waiting = False
        value = self._buffer.take()
        if not self._buffer.is_full:
            self._client.flow.room(self)
        return value

    async def modify(
        self,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the protocol's word
        mode: Mode | None = None,
        min_ms: int | None = None,
        on_slow: OnSlow | None = None,
        backfill: Last | Ago | None = None,
    ) -> Cursor | None:
        """Change it in place: exactly from where it is, nothing is missed or repeated.

        Waits until the change is in force and its backfill has arrived, and returns the cursor after which it counts.
        When the buffer is full it returns None at once: nothing can arrive before the application takes something.

        Args:
            filter: `types`, `entities`, `where` as for `subscribe`; None leaves it as it is.
            mode, min_ms, on_slow: as for `subscribe`; None leaves them as they are.
            backfill: `Last(n)` or `Ago(ms)`: older signals that only the new filter lets through come first, as
                `SnapSignal`. A server without the feature `mod` sends none.

        Raises: InvalidFilter, ValueError, ModifyRefused, SubscriptionFailed, ClientClosed,
            anyio.ClosedResourceError outside the block, anyio.BusyResourceError while an earlier change is not in
            force.
        """
        wanted = None if filter is None else filter_of(filter)
        if mode is None and min_ms is not None:
            raise ValueError("min_ms goes with mode='latest'")
        latest = None if mode is None else min_ms_of(mode, min_ms)
        await anyio.lowlevel.checkpoint()
        if self._failure is not None:
            raise self._failure
        if self._changing:
            raise anyio.BusyResourceError("changing this subscription: an earlier change is not in force, so using")
        self._changing, self._refusal, self._changed_at, self._changed = True, None, None, anyio.Event()
        try:
            self._client.change(self, Change(filter=wanted, min_ms=latest, on_slow=on_slow, backfill=backfill))
        except BaseException:
            self._changing = False
            raise
        if not self._buffer.is_full:
            with self._client.flow.awaiting():
                await self._changed.wait()
        if self._refusal is not None:
            raise self._refusal
        return self._changed_at

    # --- the client's side ---------------------------------------------------------------------------------

    @property
    def may_go_on(self) -> bool:
        """Enough of a full buffer was read to ask for more."""
        return self.waiting <= self._buffer.size // 2

    def deliver(self, event: happened.Signals | happened.Snap | happened.Gap | happened.SubState) -> None:
        """Buffer what arrived. For the client only."""
        match event:
            case happened.SubState():
                self.state = event.state
                if event.since is not None:
                    self._buffer.begin(event.since)
            case happened.Gap():
                cursor = None if event.epoch is None or event.c is None else Cursor(event.epoch, event.c)
                self._buffer.put(Gap(event.a, event.b, event.reason), cursor)
            case happened.Snap():
                for signal in event.signals:
                    self._buffer.put_old(
                        SnapSignal(signal.o, signal.id, signal.type, signal.entity, signal.ts, signal.json)
                    )
                if event.c is not None:
                    self._buffer.advance(Cursor(event.epoch, event.c))
            case happened.Signals():
                for signal in event.signals:
                    self._buffer.put(signal, Cursor(event.epoch, signal.o))
                self._buffer.advance(Cursor(event.epoch, event.c))
                self.left_out += event.k
        if self._buffer:
            self._news.set()
        self._moved()
        if self._buffer.is_full:
            self._changed.set()  # whoever waits for a change may be the one who is to take something
            self._client.flow.no_room(self)
        elif self._buffer.is_over:
            self._client.take_back(self)
            seen = f"{self.waiting} items wait for the application and {self._buffer.size} may"
            self.fail(SubscriptionFailed(self.name, None, f"overflow: {seen}; read faster, or use another policy"))

    def changed(self, event: happened.Modified | happened.ModifyRefused) -> None:
        """A change has an end. For the client only."""
        self._changing = False
        if isinstance(event, happened.ModifyRefused):
            self._refusal = ModifyRefused(event.code, event.slug, event.msg)
        else:
            self._changed_at = Cursor(event.epoch, event.c)
            self.filter = self._client.filter_of(self.name)
            self._store_key = cursor_key(self.name, self.filter)
        self._changed.set()

    def fail(self, failure: ClientError) -> None:
        """No more will come. For the client only."""
        self.state = "failed"
        self._failure = self._failure or failure
        self._refusal = self._failure
        self._changed.set()
        self._news.set()

    def _moved(self) -> None:
        if self.stored and self._buffer.cursor is not None:
            self._client.cursors.move(self._store_key, self._buffer.cursor)
