"""The overview: what the server does, measured from one second to the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import attrs

from actors.console.lights import (
    Light,
    SourceFacts,
    actors_light,
    clients_light,
    fanout_light,
    loop_light,
    sources_light,
    storage_light,
)
from actors.measures import LATENCY_BOUNDS_S, quantile
from actors.observing import ShardView
from actors.stream import StreamView

WINDOW = 10  # samples that quantiles and rates of errors look at
KEPT = 3_600  # samples of the series
ERRORS = frozenset({1002, 1007, 1009, 1011, *range(4001, 4200)}) - {4101}  # closes that a server should not need


@attrs.frozen(kw_only=True)
class Sample:
    """Everything at one moment.

    Attributes:
        at: wall clock, seconds. clock: trio's. failing: actors and why. broken: instances destroyed within a minute,
            `unstored` of them by a failed commit. cpu_s: of the process since it began. lag_s: of the loop.
    """

    at: float
    clock: float
    streams: tuple[StreamView, ...]
    shards: tuple[ShardView, ...]
    sources: tuple[SourceFacts, ...]
    live: int
    hibernated: int
    failing: dict[str, str]
    broken: int
    unstored: int
    memory_bytes: int
    cpu_s: float
    lag_s: float


class Overview:
    """Samples, and what follows from the last ones.

    A shard's totals begin anew with its instance: what has become less counts from 0.
    """

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=WINDOW + 1)
        self._series: deque[tuple[int, float | None, float | None, int, float | None, float | None]] = deque(
            maxlen=KEPT
        )

    def add(self, sample: Sample) -> dict[str, Any]:
        """The overview as of this sample, as JSON."""
        if self._samples and sample.clock - self._samples[-1].clock > WINDOW:
            self._samples.clear()  # nobody looked meanwhile
            self._note(sample, None, None, None, None)
        before = self._samples[-1] if self._samples else None
        self._samples.append(sample)
        first = self._samples[0]
        seconds = sample.clock - before.clock if before is not None else 0.0
        signals = deliveries = None
        if before is not None and seconds > 0:
            signals = max(0, _head(sample) - _head(before)) / seconds
            deliveries = _grown(before.shards, sample.shards, "deliveries") / seconds
        counts = _histogram(first.shards, sample.shards)
        p50, p99 = _ms(quantile(counts, 0.5)), _ms(quantile(counts, 0.99))
        self._note(sample, signals, deliveries, p50, p99)
        connections = sum(shard.connections for shard in sample.shards)
        hello = sum(shard.hello for shard in sample.shards)
        leaving = sum(shard.connections for shard in sample.shards if shard.leaving)
        slow = sum(shard.slow for shard in sample.shards)
        slowest = next((shard.slowest for shard in sample.shards if shard.slowest), None)
        errors = _errors(sample.shards) - _errors(first.shards)
        span = sample.clock - first.clock
        lag_ms = 1_000 * max(one.lag_s for one in list(self._samples)[-3:])
        lights: list[Light] = [
            sources_light(list(sample.sources)),
            clients_light(slow, connections, slowest),
            actors_light(sample.failing, sample.live),
            fanout_light(p99),
            storage_light(sample.unstored),
            loop_light(lag_ms),
        ]
        return {
            "at": round(1_000 * sample.at),
            "signals_per_s": signals,
            "deliveries_per_s": deliveries,
            "connections": connections,
            "connections_by_state": {
                "open": max(0, connections - hello - leaving),
                "hello": hello,
                "leaving": leaving,
            },
            "fanout_ms": {"p50": p50, "p99": p99},
            "recoveries": {
                "ok": sum(shard.resumed for shard in sample.shards),
                "gap": sum(shard.gaps for shard in sample.shards),
                "failed": sum(shard.failed for shard in sample.shards),
            },
            "errors_per_min": round(60 * max(0, errors) / span + sample.broken, 1) if span > 0 else sample.broken,
            "slow_consumers": slow,
            "retained": {
                "signals": sum(stream.retained for stream in sample.streams),
                "bytes": sum(stream.retained_bytes for stream in sample.streams),
            },
            "head": _head(sample),
            "actors": {"live": sample.live, "hibernated": sample.hibernated, "failing": len(sample.failing)},
            "memory_bytes": sample.memory_bytes,
            "cpu": (sample.cpu_s - before.cpu_s) / seconds if before is not None and seconds > 0 else None,
            "loop_lag_ms": lag_ms,
            "lights": [attrs.asdict(light) for light in lights],
        }

    def series(self, minutes: int) -> dict[str, Any]:
        """The last minutes, one entry a second while somebody looked; None where nobody did."""
        kept = list(self._series)
        since = kept[-1][0] - 60_000 * minutes if kept else 0
        rows = [row for row in kept if row[0] >= since]
        names = ("at", "signals_per_s", "deliveries_per_s", "connections", "p50_ms", "p99_ms")
        return {"step_ms": 1_000} | {name: [row[n] for row in rows] for n, name in enumerate(names)}

    def _note(
        self, sample: Sample, signals: float | None, deliveries: float | None, p50: float | None, p99: float | None
    ) -> None:
        connections = sum(shard.connections for shard in sample.shards)
        self._series.append((round(1_000 * sample.at), signals, deliveries, connections, p50, p99))


def _head(sample: Sample) -> int:
    return sum(stream.head for stream in sample.streams)


def _grown(before: Sequence[ShardView], now: Sequence[ShardView], name: str) -> int:
    earlier = {shard.shard: getattr(shard, name) for shard in before}
    return sum(_more(earlier.get(shard.shard, 0), getattr(shard, name)) for shard in now)


def _histogram(before: Sequence[ShardView], now: Sequence[ShardView]) -> list[int]:
    earlier = {shard.shard: shard.fanout.counts for shard in before}
    counts = [0] * (len(LATENCY_BOUNDS_S) + 1)
    for shard in now:
        old = earlier.get(shard.shard, (0,) * len(counts))
        if sum(shard.fanout.counts) < sum(old):
            old = (0,) * len(counts)
        counts = [count + new - was for count, new, was in zip(counts, shard.fanout.counts, old, strict=True)]
    return counts


def _more(before: int, now: int) -> int:
    return now - before if now >= before else now


def _errors(shards: Sequence[ShardView]) -> int:
    return sum(count for shard in shards for code, count in shard.closes if code in ERRORS)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1_000 * seconds, 2)
