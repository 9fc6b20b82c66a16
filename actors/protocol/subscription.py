"""One subscription of a client: what the application wants, how far it is, and where it stands on a socket."""

from __future__ import annotations

import attrs

from actors.filters import Filter
from actors.protocol import messages as wire
from actors.protocol.coverage import Coverage
from actors.protocol.cursor import Cursor, Since
from actors.protocol.events import Gap, Signals


@attrs.define(eq=False)
class Place:
    """One subscription on one socket.

    Attributes:
        asked: where the awaited `subok` was asked to begin. request: the id of that `sub` (or `hello`), while awaited.
        retry_at: when to ask again. lost_at: when this socket last lost a frame of it.
    """

    asked: Since
    request: int | None = None
    coverage: Coverage = attrs.Factory(Coverage)
    retry_at: float | None = None
    lost_at: float | None = None


@attrs.define(eq=False, kw_only=True)
class Subscription:
    """What the application wants, and how far it is, whichever socket brought it there; the cursor outlives sockets.

    During a hand-over two sockets serve it. Each has its own wire cursor, and what one of them brought is not
    delivered from the other (section 2.14).
    """

    name: str
    filter: Filter
    since: Since
    on_gap: wire.OnGap
    cursor: Cursor | None = None

    def message(self, request: int | None) -> wire.Sub:
        """The `sub` that asks for it; without an id inside `hello`."""
        return wire.Sub(id=request, s=self.name, filter=self.filter, since=self.wanted(), on_gap=self.on_gap)

    def wanted(self) -> Since:
        """Where to begin: at the cursor once there is one."""
        return self.cursor or self.since

    def forget(self) -> None:
        """The cursor's epoch is over."""
        self.since = "earliest" if self.on_gap == "skip" else "now"
        self.cursor = None

    def accepted(self, place: Place, answer: wire.SubOk) -> Gap | None:
        """`subok`: where it begins on a socket; the gap when that is not where the application is."""
        place.request = None
        place.coverage.accept(answer.since, answer.g)
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
        return Signals(s=self.name, signals=fresh, epoch=at.epoch, c=frame.b)

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
