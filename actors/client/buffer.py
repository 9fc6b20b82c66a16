"""What waits for the application, bounded by a policy, and the cursor of what it has taken."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import attrs

from actors.protocol.cursor import Cursor
from actors.signals import Signal

Overflow = Literal["block", "drop_oldest", "latest", "error"]
AckWhen = Literal["taken", "receive"]


@attrs.frozen
class Gap:
    """Signals with `after < o ≤ upto` will not come; None: the bounds are unknown.

    Attributes:
        reason: `retention` (they are no longer stored), `slow` (this client was too slow, or its own buffer too small),
            `epoch` (the stream was wiped or restored, and offsets start anew).
    """

    after: int | None
    upto: int | None
    reason: str


@attrs.frozen
class SnapSignal(Signal):
    """A signal of a snapshot or of a backfill: it may be older than signals that came before it."""


@attrs.define(eq=False)
class Item:
    """A signal or a gap, and where the application is once it has taken it."""

    value: Signal | Gap
    cursor: Cursor | None


@attrs.define(eq=False)
class Buffer:
    """The items between the connection and the loop of an application.

    Attributes:
        size: how many may wait. overflow: what happens to one more (see `SignalClient.subscribe`).
        ack: when the cursor moves: once the application has taken an item, or when it arrives.
        dropped: signals that gave way to a gap. replaced: signals that gave way to newer ones of their type and entity.
    """

    size: int
    overflow: Overflow = "block"
    ack: AckWhen = "taken"
    dropped: int = 0
    replaced: int = 0
    _items: OrderedDict[object, Item] = attrs.field(factory=OrderedDict[object, Item], init=False)
    _keys: int = attrs.field(default=0, init=False)
    _gap: Item | None = attrs.field(default=None, init=False)  # instead of what was dropped: comes before all others
    _in_hand: Item | None = attrs.field(default=None, init=False)
    _taken: Cursor | None = attrs.field(default=None, init=False)

    def __len__(self) -> int:
        return len(self._items) + (self._gap is not None)

    @property
    def is_full(self) -> bool:
        """Nothing more is to be read for it."""
        return self.overflow == "block" and len(self._items) >= self.size

    @property
    def is_over(self) -> bool:
        """There is more than the policy allows."""
        return self.overflow == "error" and len(self._items) > self.size

    @property
    def cursor(self) -> Cursor | None:
        """Where the application is, as `ack` counts."""
        return self._taken if self.ack == "taken" else self._reached()

    def put(self, value: Signal | Gap, cursor: Cursor | None) -> None:
        """One more, after which the application is at `cursor`."""
        self._keys += 1
        key: object = self._keys
        if self.overflow == "latest" and isinstance(value, Signal):
            key = (value.type, value.entity)
            waiting = self._items.get(key)
            if waiting is not None:
                self.replaced += 1
                if isinstance(waiting.value, Signal) and waiting.value.o > value.o:  # older than what it would replace
                    return
                del self._items[key]
        self._items[key] = Item(value, cursor)
        if self.overflow in ("drop_oldest", "latest") and len(self._items) > self.size:
            self._drop()

    def put_old(self, signal: Signal) -> None:
        """One of a snapshot or a backfill, which moves no cursor."""
        self.put(signal, self._reached())

    def begin(self, cursor: Cursor) -> None:
        """The subscription begins here, unless it has begun."""
        if self._reached() is None:
            self.advance(cursor)

    def advance(self, cursor: Cursor) -> None:
        """Nothing matches between the last item and this cursor: whoever has taken the item is there."""
        last = self._last()
        if last is None:
            self._taken = cursor
        else:
            last.cursor = cursor

    def take(self) -> Signal | Gap:
        """The next one, which is in the application's hand from now on. There must be one."""
        if self._gap is not None:
            item, self._gap = self._gap, None
        else:
            _, item = self._items.popitem(last=False)
        self._in_hand = item
        return item.value

    def taken(self) -> None:
        """The application is done with what it has in hand."""
        if self._in_hand is not None:
            self._taken, self._in_hand = self._in_hand.cursor, None

    def _last(self) -> Item | None:
        return next(reversed(self._items.values())) if self._items else self._gap or self._in_hand

    def _reached(self) -> Cursor | None:
        last = self._last()
        return self._taken if last is None else last.cursor

    def _drop(self) -> None:
        """The oldest one gives way to a gap, or to more of the one that is there."""
        _, oldest = self._items.popitem(last=False)
        before = self._gap or self._in_hand
        gap = _gap_over(oldest, self._taken if before is None else before.cursor)
        if self._gap is not None:
            assert isinstance(self._gap.value, Gap)
            gap = _joined(self._gap.value, gap)
        self.dropped += isinstance(oldest.value, Signal)
        self._gap = Item(gap, oldest.cursor)


def _gap_over(item: Item, before: Cursor | None) -> Gap:
    if isinstance(item.value, Gap):
        return item.value
    if isinstance(item.value, SnapSignal) or before is None or item.cursor is None:
        return Gap(None, None, "slow")
    return Gap(before.offset, item.cursor.offset, "slow")


def _joined(first: Gap, second: Gap) -> Gap:
    """One gap for two in a row; that the offsets began anew must not go unsaid."""
    if first.after is None or second.upto is None:
        return Gap(None, None, "epoch" if "epoch" in (first.reason, second.reason) else "slow")
    return Gap(first.after, second.upto, "slow")
