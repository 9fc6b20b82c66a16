"""What was counted in some span of time; tallies of spans add up to that of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import add, sub
from typing import Any, TypeVar

import attrs

from actors.measures import LATENCY_BOUNDS_S, OTHER_SDK, SESSION_BOUNDS_S, ShardMeasures

NAMES = 64  # of clients, and codes, that are told apart in one tally

K = TypeVar("K")
Counts = tuple[int, ...]
Shares = tuple[tuple[K, int], ...]


@attrs.frozen(kw_only=True)
class Tally:
    """Deeply immutable, so that it passes between actors by reference.

    Attributes:
        opened: connections that began. reconnects: those among them that continued a session.
        sessions: those that ended, by their length, see `SESSION_BOUNDS_S`.
        lags: publications, by the time from their numbers until a shard had handed them to its sockets, see
            `LATENCY_BOUNDS_S`.
        closes: connections that ended, by code; 0 stands for codes beyond the first 64.
        sdks: connections that said hello, by what the client says it is.
    """

    opened: int = 0
    reconnects: int = 0
    sessions: Counts = (0,) * (len(SESSION_BOUNDS_S) + 1)
    lags: Counts = (0,) * (len(LATENCY_BOUNDS_S) + 1)
    closes: Shares[int] = ()
    sdks: Shares[str] = ()

    @classmethod
    def of(cls, measures: ShardMeasures) -> Tally:
        """Everything that a shard's instance has counted."""
        return cls(
            opened=measures.opened,
            reconnects=measures.reconnects,
            sessions=tuple(measures.sessions),
            lags=tuple(measures.fanout.counts),
            closes=tuple(measures.closes.items()),
            sdks=tuple(measures.sdks.items()),
        )

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Tally:
        """What `to_json` has written."""
        return cls(
            opened=found["opened"],
            reconnects=found["reconnects"],
            sessions=tuple(found["sessions"]),
            lags=tuple(found["lags"]),
            closes=tuple((int(code), count) for code, count in found["closes"].items()),
            sdks=tuple(found["sdks"].items()),
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return attrs.asdict(self) | {"closes": dict(self.closes), "sdks": dict(self.sdks)}

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            opened=self.opened + other.opened,
            reconnects=self.reconnects + other.reconnects,
            sessions=tuple(map(add, self.sessions, other.sessions)),
            lags=tuple(map(add, self.lags, other.lags)),
            closes=_sum([*self.closes, *other.closes], 0),
            sdks=_sum([*self.sdks, *other.sdks], OTHER_SDK),
        )

    def __sub__(self, earlier: Tally) -> Tally:
        """What was counted since an earlier tally of the same instance."""
        return Tally(
            opened=self.opened - earlier.opened,
            reconnects=self.reconnects - earlier.reconnects,
            sessions=tuple(map(sub, self.sessions, earlier.sessions)),
            lags=tuple(map(sub, self.lags, earlier.lags)),
            closes=_left(self.closes, earlier.closes),
            sdks=_left(self.sdks, earlier.sdks),
        )

    @property
    def closed(self) -> int:
        """Connections that ended."""
        return sum(self.sessions)


def _sum(counts: Iterable[tuple[K, int]], other: K) -> Shares[K]:
    """One entry for each name; what is beyond the bound counts as `other`."""
    found: dict[K, int] = {}
    for name, count in counts:
        kept = name if name in found or len(found) < NAMES else other
        found[kept] = found.get(kept, 0) + count
    return tuple(found.items())


def _left(counts: Shares[K], earlier: Shares[K]) -> Shares[K]:
    before = dict(earlier)
    return tuple((name, count - before.get(name, 0)) for name, count in counts if count > before.get(name, 0))
