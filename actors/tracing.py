"""What is noted of single signals on their way: of all while an operator looks, and of a share that is exported.

The stream says which signals are traced, and the shards hear it with the frames. Both tell the stream's `SignalTracer`;
what they tell leaves them as frames do, so the stream's note arrives in the moment when the signals are durable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import trio

from actors.fanout import Delivery, Fanout
from actors.signals import Signal, offset_of
from actors.stream import stream_of
from runtime import ActorError, Context, Namespace

if TYPE_CHECKING:
    from actors.signal_tracer import SignalTracer


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


@attrs.frozen(kw_only=True)
class Flushed:
    """Traced signals that a shard has handed to its sockets. Times are trio's.

    Attributes:
        came: the shard heard of them. first, last: the flush that had them wrote to its first and its last socket.
        offsets: which. subscriptions: how many got each of them.
    """

    shard: str
    came: float
    first: float
    last: float
    offsets: tuple[int, ...]
    subscriptions: tuple[int, ...]


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
        stored: it was durable. flushes: with how many subscriptions of the shard got it.
    """

    signal: TracedSignal
    publication: Publication
    stored: float
    flushes: list[tuple[Flushed, int]] = attrs.Factory(list)

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
        if self.flushes:
            first, _ = min(self.flushes, key=lambda one: one[0].first)
            last, _ = max(self.flushes, key=lambda one: one[0].last)
            counts = ", ".join(f"{flushed.shard}: {count:,}" for flushed, count in self.flushes)
            found.append(("first delivery", first.first, f"by {first.shard}"))
            found.append(("last delivery", last.last, f"subscriptions that got it: {counts}"))
        found.sort(key=lambda one: one[1])
        return tuple(
            TraceStep(name=name, at=wall + at, after_s=at - told.came, detail=detail) for name, at, detail in found
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
        subscriptions: how many get each of them, by offset. came: the shard heard of the first.
    """

    came: float
    subscriptions: dict[int, int] = attrs.Factory(dict)
    _first: float | None = None
    _last: float = 0.0

    def sent(self) -> None:
        """Some sockets have been written to."""
        self._last = trio.current_time()
        if self._first is None:
            self._first = self._last

    def flushed(self, shard: str) -> Flushed | None:
        """All of it; None when there was nobody to write to."""
        if self._first is None:
            return None
        return Flushed(
            shard=shard,
            came=self.came,
            first=self._first,
            last=self._last,
            offsets=tuple(self.subscriptions),
            subscriptions=tuple(self.subscriptions.values()),
        )


@attrs.define(eq=False)
class DeliveryTraces:
    """A shard's side.

    Args:
        ctx: the shard's. tracers: who is told.
    """

    ctx: Context
    tracers: Namespace[SignalTracer]
    _pending: FlushTrace | None = attrs.field(default=None, init=False)

    def take(self, delivery: Delivery, traced: frozenset[int], subscriptions: int) -> None:
        """Frames have come that so many live subscriptions get with the next flush."""
        offsets = [offset_of(one.json) for one in delivery.signals]
        wanted = [offset for offset in offsets if offset in traced]
        if not wanted or not subscriptions:
            return
        if self._pending is None:
            self._pending = FlushTrace(trio.current_time())
        counts = self._pending.subscriptions
        for offset in wanted:
            counts[offset] = counts.get(offset, 0) + subscriptions

    def begin(self) -> FlushTrace | None:
        """What is pending is flushed now; None: nothing of it is traced."""
        pending, self._pending = self._pending, None
        return pending

    def end(self, trace: FlushTrace) -> None:
        """It was flushed."""
        name = self.ctx.id.name
        assert name is not None, "a shard is reached by name"
        flushed = trace.flushed(name)
        if flushed is not None:
            with suppress(ActorError):  # as above
                self.ctx.notify(_tracer(self.tracers, stream_of(name)).flushed, flushed)


def _tracer(tracers: Namespace[SignalTracer], stream: str | None) -> SignalTracer:
    """Through a new stub each time: the end of an instance ends nothing here."""
    assert stream is not None, "a stream is reached by name"
    return tracers.get_by_name(stream)
