"""One subscription of a client: what the application wants, how far it is, and where it stands on a socket."""

from __future__ import annotations

import attrs

from actors.filters import Filter
from actors.protocol import messages as wire
from actors.protocol import requests
from actors.protocol.coverage import Coverage
from actors.protocol.cursor import Cursor, Since
from actors.protocol.events import Gap, Modified, Signals, Snap
from actors.protocol.requests import Change


@attrs.define(eq=False)
class Place:
    """One subscription on one socket.

    Attributes:
        asked: where the awaited `subok` was asked to begin. request: the id of that `sub` (or `hello` or `mod`), while
            awaited. change: what the awaited one puts in force. modifies: it is a `mod` that is awaited.
        snapping: `snap` parts are to come first.
        retry_at: when to ask again. lost_at: when this socket last lost a frame of it.
    """

    asked: Since
    request: int | None = None
    change: Change | None = None
    modifies: bool = False
    snapping: bool = False
    coverage: Coverage = attrs.Factory(Coverage)
    retry_at: float | None = None
    lost_at: float | None = None


@attrs.define(eq=False, kw_only=True)
class Subscription:
    """What the application wants, and how far it is, whichever socket brought it there; the cursor outlives sockets.

    During a hand-over two sockets serve it. Each has its own wire cursor, and what one of them brought is not
    delivered from the other (section 2.14).

    Attributes:
        change: what is to be made of it, until the server has done so and its backfill is here; with one, a new socket
            goes on with what was in force, and asks for the change again.
        snapped: how far an unfinished snapshot or backfill is, so that one that begins again repeats nothing.
        resting: it is not asked for, until the application can take more; the server's log keeps what comes.
    """

    name: str
    filter: Filter
    since: Since
    on_gap: requests.OnGap
    min_ms: int = 0
    on_slow: requests.OnSlow = "close"
    cursor: Cursor | None = None
    change: Change | None = None
    snapped: int = 0
    resting: bool = False

    def message(self, request: int | None, change: Change | None) -> requests.Sub:
        """The `sub` that asks for it with a change of it; without an id inside `hello`."""
        change = change or Change()
        return requests.Sub(
            id=request,
            s=self.name,
            filter=change.filter or self.filter,
            since=self.wanted(),
            on_gap=self.on_gap,
            min_ms=self.min_ms if change.min_ms is None else change.min_ms,
            on_slow=change.on_slow or self.on_slow,
        )

    def wanted(self) -> Since:
        """Where to begin: at the cursor once there is one."""
        return self.cursor or self.since

    def forget(self) -> None:
        """The cursor's epoch is over."""
        if self.since != "snapshot" or self.cursor is not None:
            self.since = "earliest" if self.on_gap == "skip" else "now"
        self.cursor, self.snapped = None, 0

    @property
    def change_by_sub(self) -> Change | None:
        """A change that `sub` can make as well, because nothing older is asked for and no snapshot is half done."""
        return None if self.change is None or self.change.backfill is not None or self.snapped else self.change

    def modified(self, place: Place, answer: wire.SubOk) -> bool:
        """`subok` after `mod`; False when it does not go on exactly where this is."""
        if answer.since != place.coverage.cursor:
            return False
        change, place.request, place.modifies = place.change, None, False
        place.coverage.accept(answer.since, answer.g)
        place.snapping = change is not None and change.backfill is not None
        return True

    def settle(self, place: Place) -> Modified | None:
        """The change that a socket has made is in force, unless its backfill is still to come."""
        change = place.change
        if change is None or place.snapping:
            return None
        place.change = None
        if change is not self.change:
            return None
        self.filter = change.filter or self.filter
        self.on_slow = change.on_slow or self.on_slow
        self.min_ms = self.min_ms if change.min_ms is None else change.min_ms
        self.change = None
        at = self.cursor or place.coverage.at
        return Modified(s=self.name, epoch=at.epoch, c=at.offset)

    def snap(self, place: Place, snap: wire.Snap) -> Snap:
        """Rule 6: a part of what was before; the last one says how far that goes."""
        fresh = tuple(signal for signal in snap.signals if signal.o > self.snapped)
        if fresh:
            self.snapped = fresh[-1].o
        at = place.coverage.at
        if not snap.more:
            self.snapped, place.snapping = 0, False
            place.coverage.cursor = Cursor(at.epoch, max(at.offset, snap.b))
            self._reach(place.coverage.at)
        return Snap(s=self.name, signals=fresh, epoch=at.epoch, c=None if self.cursor is None else self.cursor.offset)

    def accepted(self, place: Place, answer: wire.SubOk) -> Gap | None:
        """`subok`: where it begins on a socket; the gap when that is not where the application is."""
        place.request = None
        place.coverage.accept(answer.since, answer.g)
        place.snapping = place.asked == "snapshot"
        if place.snapping:
            return None  # without the snapshot the application is nowhere
        asked, since = place.asked, answer.since
        if not isinstance(asked, Cursor) or answer.recovered is not False or since == asked:
            self._reach(since)
            return None
        at = self.cursor or asked
        known = answer.lost is not None and since.epoch == at.epoch
        if known and since.offset <= at.offset:
            return None  # another socket brought it beyond what is gone
        self.cursor = since
        return Gap(
            s=self.name,
            a=at.offset if known else None,
            b=since.offset if known else None,
            reason="retention" if known else "epoch",
            epoch=since.epoch,
            c=since.offset,
        )

    def take(self, place: Place, frame: wire.Sig) -> Signals | None:
        """What a frame that counts brings the application; None when it has all of it. Raises: Loss."""
        signals = place.coverage.take(frame)
        at = self.cursor
        if signals is None or at is None or not self._reach(place.coverage.at):
            return None
        fresh = tuple(signal for signal in signals if signal.o > at.offset)
        return Signals(s=self.name, signals=fresh, epoch=at.epoch, c=frame.b, k=frame.k)

    def skip(self, place: Place, gap: wire.Gap) -> Gap | None:
        """What will not come; None when the application is beyond it."""
        at = self.cursor
        if place.coverage.skip(gap) is None or at is None or not self._reach(place.coverage.at):
            return None
        return Gap(s=self.name, a=at.offset, b=gap.b, reason=gap.reason, epoch=at.epoch, c=gap.b)

    def _reach(self, cursor: Cursor) -> bool:
        """Move the application on; False when it is there already."""
        at = self.cursor
        if at is not None and at.epoch == cursor.epoch and at.offset >= cursor.offset:
            return False
        self.cursor = cursor
        return True
