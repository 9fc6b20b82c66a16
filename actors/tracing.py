"""What is noted of single signals on their way: of all while an operator looks, and of a share that is exported.

The stream says which signals are traced, and the shards hear it with the frames. Both tell the stream's `SignalTracer`;
what they tell leaves them as frames do, so the stream's note arrives in the moment when the signals are durable.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from actors.fanout import Fanout
from actors.signals import Signal, offsets_in
from actors.stream import stream_of
from runtime import ActorError, Context, Namespace

if TYPE_CHECKING:
    from actors.signal_tracer import SignalTracer

KNOWN = 4_096  # traced signals that a shard tells from others, the newest
LATE_S = 0.25  # what subscriptions catch up with is told of together


@attrs.frozen
class TracedSignal:
    """A signal on its way; `exported`: it is one of the share."""

    offset: int
    type: str
    entity: str
    ts: int
    exported: bool


@attrs.frozen(kw_only=True)
class Publication:
    """Signals that a stream took together. Times are trio's.

    Attributes:
        source: whose batch it was; "" when they were published. size: how many there were.
        came: the stream began with them. evaluated: it was known who gets them.
        asked: filters that they were held against. refused: those that let one through not.
        signals: those that are traced.
    """

    source: str
    size: int
    came: float
    evaluated: float
    asked: int
    refused: int
    signals: tuple[TracedSignal, ...]


Way = Literal["live", "latest", "caught up", "replaced"]
"""How subscriptions got a signal: with the next flush; conflated, as the newest of its names; from the log, because
they were not live; or not at all, because a newer one took its place."""


@attrs.frozen
class Delivered:
    """A traced signal and how many subscriptions of a shard it has gone to in one way."""

    offset: int
    way: Way
    subscriptions: int


@attrs.frozen(kw_only=True)
class Flushed:
    """Traced signals that a shard has handed to its sockets. Times are trio's.

    Attributes:
        came: the shard heard of the first of them. first, last: when it wrote to the first and the last socket.
    """

    shard: str
    came: float
    first: float
    last: float
    delivered: tuple[Delivered, ...]


@attrs.frozen(kw_only=True)
class TraceStep:
    """One moment of a signal's way.

    Attributes:
        at: wall clock, seconds. after_s: since it came to the stream.
    """

    name: str
    at: float
    after_s: float
    detail: str


@attrs.define(eq=False)
class Trace:
    """A signal's way so far. Times are trio's.

    Attributes:
        stored: it was durable. flushes: with what became of it there.
    """

    signal: TracedSignal
    publication: Publication
    stored: float
    flushes: list[tuple[Flushed, Delivered]] = attrs.Factory(list)

    def steps(self, wall: float) -> tuple[TraceStep, ...]:
        """In the order of time; `wall` is the wall clock when trio's was at 0."""
        told = self.publication
        others = "" if told.size == 1 else f", with {told.size - 1:,} more"
        together = "" if told.size == 1 else " for all of them"
        came = f"from the source {told.source}" if told.source else "published"
        found = [
            ("ingested", told.came, came + others),
            (
                "evaluated",
                told.evaluated,
                f"filters asked{together}: {told.asked:,}, of which said no: {told.refused:,}",
            ),
            ("stored", self.stored, "durable: it would survive a power cut"),
        ]
        got = [one for one in self.flushes if one[1].way != "replaced"]
        if got:
            first, _ = min(got, key=lambda one: one[0].first)
            last, _ = max(got, key=lambda one: one[0].last)
            found.append(("first delivery", first.first, f"by {first.shard}"))
            found.append(("last delivery", last.last, f"subscriptions that got it: {_counts(got)}"))
        if replaced := [one for one in self.flushes if one[1].way == "replaced"]:
            at = max(flushed.last for flushed, _ in replaced)
            found.append(("replaced", at, f"by a newer one of its names, for subscriptions: {_counts(replaced)}"))
        found.sort(key=lambda one: one[1])
        return tuple(
            TraceStep(name=name, at=wall + at, after_s=at - told.came, detail=detail) for name, at, detail in found
        )


def _counts(flushes: Iterable[tuple[Flushed, Delivered]]) -> str:
    """How many subscriptions of each shard, apart for each way."""
    sums: dict[tuple[str, Way], int] = {}
    for flushed, one in flushes:
        sums[flushed.shard, one.way] = sums.get((flushed.shard, one.way), 0) + one.subscriptions
    return ", ".join(
        f"{shard}: {count:,}" + (f" {way}" if way in ("latest", "caught up") else "")
        for (shard, way), count in sums.items()
    )


@attrs.frozen
class TraceView:
    """What is known of a signal's way."""

    signal: TracedSignal
    steps: tuple[TraceStep, ...]


@attrs.define(eq=False)
class PublicationTraces:
    """The stream's side.

    Args:
        ctx: the stream's. tracers: who is told. share: of the signals, that are exported.
    """

    ctx: Context
    tracers: Namespace[SignalTracer]
    share: float
    _watched_until: float = attrs.field(default=-math.inf, init=False)

    def watch(self, seconds: float) -> None:
        """Trace every signal for so long."""
        self._watched_until = trio.current_time() + seconds

    def chosen(self, signals: Sequence[Signal]) -> tuple[TracedSignal, ...]:
        """Those of a publication that are traced."""
        watched = trio.current_time() < self._watched_until
        if not watched and not self.share:
            return ()
        found: list[TracedSignal] = []
        for one in signals:
            exported = self.share > 0 and self.ctx.random.random() < self.share
            if watched or exported:
                found.append(TracedSignal(one.o, one.type, one.entity, one.ts, exported))
        return tuple(found)

    def note(self, traced: tuple[TracedSignal, ...], source: str, size: int, came: float, fanout: Fanout) -> None:
        """Tell of a publication; before its frames leave, so that the tracer hears of it before what became of them."""
        publication = Publication(
            source=source,
            size=size,
            came=came,
            evaluated=trio.current_time(),
            asked=fanout.asked,
            refused=fanout.refused,
            signals=traced,
        )
        with suppress(ActorError):  # the tracer is busy: these are not traced
            self.ctx.notify(_tracer(self.tracers, self.ctx.id.name).published, publication)


@attrs.define(eq=False)
class FlushTrace:
    """Traced signals that are being handed to sockets.

    Attributes:
        came: the shard heard of the first of them. delivered: how many subscriptions got which, and how.
    """

    came: float
    delivered: dict[tuple[int, Way], int] = attrs.Factory(dict)
    _first: float | None = None
    _last: float = 0.0

    def sent(self) -> None:
        """Some sockets have been written to."""
        self._last = trio.current_time()
        if self._first is None:
            self._first = self._last

    def count(self, offsets: Iterable[int], way: Way, subscriptions: int) -> None:
        """So many subscriptions are done with these."""
        if subscriptions:
            for offset in offsets:
                self.delivered[offset, way] = self.delivered.get((offset, way), 0) + subscriptions

    def flushed(self, shard: str) -> Flushed | None:
        """All of it; None when it came to nobody."""
        if self._first is None or not self.delivered:
            return None
        return Flushed(
            shard=shard,
            came=self.came,
            first=self._first,
            last=self._last,
            delivered=tuple(Delivered(offset, way, count) for (offset, way), count in self.delivered.items()),
        )


@attrs.define(eq=False)
class DeliveryTraces:
    """A shard's side: the newest traced signals that it has heard of, and who gets them.

    Args:
        ctx: the shard's. tracers: who is told.
    """

    ctx: Context
    tracers: Namespace[SignalTracer]
    _came: dict[int, float] = attrs.field(factory=dict, init=False)  # ascending offsets, as the stream numbers them
    _conflated: dict[int, list[int]] = attrs.field(factory=dict, init=False)  # by group, until its next flush
    _late: FlushTrace | None = attrs.field(default=None, init=False)

    def take(self, traced: Sequence[int]) -> None:
        """Frames with these have come."""
        if self._came and traced[0] <= next(reversed(self._came)):
            self._came.clear()  # the stream was restored, and counts from an earlier offset again
        now = trio.current_time()
        for offset in traced:
            self._came[offset] = now
        while len(self._came) > KNOWN:
            del self._came[next(iter(self._came))]

    def wait(self, group: int, offsets: Iterable[int]) -> None:
        """Some of these are in a frame of a group that conflates; a newer one may take their places."""
        if found := [offset for offset in offsets if offset in self._came]:
            held = self._conflated.setdefault(group, [])
            held += found[-KNOWN:]
            del held[:-KNOWN]

    def between(self, after: int, upto: int) -> list[int]:
        """Those with `after < o ≤ upto`."""
        found: list[int] = []
        for offset in reversed(self._came):
            if offset <= after:
                break
            if offset <= upto:
                found.append(offset)
        return found

    def begin(self, offsets: Iterable[int]) -> FlushTrace:
        """These are handed to sockets now."""
        return FlushTrace(min((self._came[one] for one in offsets if one in self._came), default=trio.current_time()))

    def replaced(self, group: int, sent: Container[int]) -> list[int]:
        """Those of a group that conflates whose places newer ones had taken when it was flushed."""
        return [offset for offset in self._conflated.pop(group, ()) if offset not in sent]

    def forget(self, group: int) -> None:
        """It is gone, and will not be flushed."""
        self._conflated.pop(group, None)

    def end(self, trace: FlushTrace) -> None:
        """It was flushed."""
        name = self.ctx.id.name
        assert name is not None, "a shard is reached by name"
        flushed = trace.flushed(name)
        if flushed is not None:
            with suppress(ActorError):  # as above
                self.ctx.notify(_tracer(self.tracers, stream_of(name)).flushed, flushed)

    def caught_up(self, after: int, upto: int, signals: bytes) -> None:
        """A subscription that is not live was sent a piece of the log; told a little later, with others."""
        wanted = self.between(after, upto)
        if wanted and (found := offsets_in(signals).intersection(wanted)):
            if self._late is None:
                self._late = self.begin(found)
                self.ctx.set_timeout(LATE_S, self._tell_late)
            self._late.count(found, "caught up", 1)
            self._late.sent()

    async def _tell_late(self) -> None:
        late, self._late = self._late, None
        if late is not None:
            self.end(late)


def _tracer(tracers: Namespace[SignalTracer], stream: str | None) -> SignalTracer:
    """Through a new stub each time: the end of an instance ends nothing here."""
    assert stream is not None, "a stream is reached by name"
    return tracers.get_by_name(stream)
