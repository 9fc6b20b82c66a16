"""What a shard counts while it serves: totals that only grow, and how long signals take to leave."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

import attrs

from actors.protocol.messages import Err
from actors.protocol.requests import ClientMessage
from runtime import Histogram

LATENCY_BOUNDS_S = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SESSION_BOUNDS_S = (1, 5, 15, 60, 300, 900, 3_600, 14_400, 43_200, 86_400, 259_200, 604_800)
CODES_KEPT = 64
NUMBERED_KEPT = 1_024  # publications of which it is known when their signals got their numbers
SDKS_KEPT = 64
OTHER_SDK = "other"
UNNAMED_SDK = "not said"
RECOVERY_BOUNDS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
BEHIND_BOUNDS = (0, 1, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 1_000_000)


def quantile(counts: Sequence[int], share: float, bounds: Sequence[float] = LATENCY_BOUNDS_S) -> float | None:
    """The time that this share of a histogram took at most, in seconds, between two bounds by proportion; None of none.

    What took longer than the last bound counts as that.
    """
    total = sum(counts)
    if not total:
        return None
    rank, seen = share * total, 0
    for n, count in enumerate(counts[:-1]):
        if count and seen + count >= rank:
            low = bounds[n - 1] if n else 0.0
            return low + (bounds[n] - low) * (rank - seen) / count
        seen += count
    return bounds[-1]


@attrs.frozen
class Distribution:
    """A histogram at one moment: how many values up to each of `bounds`, those beyond in the last place, their sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @classmethod
    def of(cls, histogram: Histogram) -> Distribution:
        """As it is now."""
        return cls(tuple(histogram.bounds), tuple(histogram.counts), histogram.total)


@attrs.define(eq=False)
class ShardMeasures:
    """Totals of one shard's instance; they begin at 0 with each.

    Attributes:
        deliveries: signals handed to connections live. delivered_bytes: of the frames that had them.
        fanout: from when the stream numbered a signal until it was handed to the sockets of a shard.
        resumed, gaps, failed: subscriptions that continued from a cursor, without a loss, with one they were told of,
            or not at all, because the epoch was another one.
        slow: how often a client was closed or held back for reading too slowly.
        closes: connections that have ended, by the code of the end that was first to close.
        sessions: connections that have ended, by their length: how many took up to each of `SESSION_BOUNDS_S`, and in
            the last place how many took longer.
        reconnects: connections that continued a session. event_sources: those that are some, now.
        sdks: connections by what their clients say they are.
        opened: connections that were taken. handshakes: those that were asked for, by the status of the answer.
        messages: of clients, by kind; `bad` is none of the protocol. errors: that clients were told, by slug.
        resumptions: hellos by what became of the session.
        behind: by how many offsets subscriptions were when they continued from a cursor.
        recovery: in how many seconds they were live then.
        lag: by how many offsets clients were behind when they said how far they are.
        skipped: offsets that subscriptions were told they will not get, by the reason.
        conflated: signals that newer ones replaced before they were delivered.
        told_bytes: of messages to clients, without the live frames. heard_bytes: of messages of clients.
        end_to_end: from the number of a signal until a client said that it has it.
    """

    deliveries: int = attrs.field(default=0, init=False)
    delivered_bytes: int = attrs.field(default=0, init=False)
    fanout: Histogram = attrs.field(factory=lambda: Histogram(LATENCY_BOUNDS_S), init=False)
    resumed: int = attrs.field(default=0, init=False)
    gaps: int = attrs.field(default=0, init=False)
    failed: int = attrs.field(default=0, init=False)
    slow: int = attrs.field(default=0, init=False)
    opened: int = attrs.field(default=0, init=False)
    handshakes: Counter[int] = attrs.field(factory=Counter, init=False)
    closes: Counter[int] = attrs.field(factory=Counter, init=False)
    sessions: list[int] = attrs.field(factory=lambda: [0] * (len(SESSION_BOUNDS_S) + 1), init=False)
    reconnects: int = attrs.field(default=0, init=False)
    event_sources: int = attrs.field(default=0, init=False)
    sdks: Counter[str] = attrs.field(factory=Counter, init=False)
    messages: Counter[str] = attrs.field(factory=Counter, init=False)
    errors: Counter[str] = attrs.field(factory=Counter, init=False)
    resumptions: Counter[str] = attrs.field(factory=Counter, init=False)
    behind: Histogram = attrs.field(factory=lambda: Histogram(BEHIND_BOUNDS), init=False)
    recovery: Histogram = attrs.field(factory=lambda: Histogram(RECOVERY_BOUNDS_S), init=False)
    lag: Histogram = attrs.field(factory=lambda: Histogram(BEHIND_BOUNDS), init=False)
    skipped: Counter[str] = attrs.field(factory=Counter, init=False)
    conflated: int = attrs.field(default=0, init=False)
    told_bytes: int = attrs.field(default=0, init=False)
    heard_bytes: int = attrs.field(default=0, init=False)
    end_to_end: Histogram = attrs.field(factory=lambda: Histogram(RECOVERY_BOUNDS_S), init=False)
    _numbered: dict[int, float] = attrs.field(factory=dict, init=False)  # by the last offset of a publication

    def greeted(self, sdk: str, *, resumed: bool) -> None:
        """A client has said what it is; those beyond the first 64 different ones count as `other`."""
        self.reconnects += resumed
        sdk = sdk or UNNAMED_SDK
        self.sdks[sdk if sdk in self.sdks or len(self.sdks) < SDKS_KEPT else OTHER_SDK] += 1

    def ended(self, seconds: float) -> None:
        """A connection has ended that lasted so long."""
        self.sessions[bisect_left(SESSION_BOUNDS_S, seconds)] += 1

    def received(self, message: ClientMessage | Err) -> None:
        """A client has said something."""
        self.messages["bad" if isinstance(message, Err) else type(message).__name__.lower()] += 1

    def welcomed(self, sdk: str, *, asked: bool, resumed: bool) -> None:
        """The same of one that may have asked to go on with a session."""
        self.greeted(sdk, resumed=resumed)
        self.resumptions["resumed" if resumed else "refused" if asked else "new"] += 1

    def recovered(self, *, whole: bool | None, lost: bool) -> None:
        """A subscription that has a cursor begins."""
        if whole:
            self.resumed += 1
        elif lost:
            self.gaps += 1
        elif whole is not None:
            self.failed += 1

    def told(self, message: str | bytes) -> None:
        """A client is sent this, and it alone."""
        self.told_bytes += _size(message)

    def heard(self, message: str | bytes) -> None:
        """A client has sent this."""
        self.heard_bytes += _size(message)

    def numbered(self, offset: int, at: float) -> None:
        """Signals up to this offset have got their numbers then, on trio's clock."""
        if self._numbered and offset <= next(reversed(self._numbered)):
            self._numbered.clear()  # the stream was restored, and counts from an earlier offset again
        self._numbered[offset] = at
        if len(self._numbered) > NUMBERED_KEPT:
            del self._numbered[next(iter(self._numbered))]

    def has_it(self, offset: int, now: float) -> None:
        """A client has everything up to this offset; of use if that is where a publication ended."""
        at = self._numbered.get(offset)
        if at is not None:
            self.end_to_end.note(now - at)

    def closed(self, code: int) -> None:
        """A connection has ended; codes beyond the first 64 different ones count as 0."""
        known = code in self.closes or len(self.closes) < CODES_KEPT
        self.closes[code if known else 0] += 1


def _size(message: str | bytes) -> int:
    """In bytes of UTF-8; almost all is ASCII, which need not be encoded for that."""
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())
