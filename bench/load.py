"""Runs the C load client against a server and reads what it saw."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs
import cattrs

from bench.build import compile_program
from bench.measure import BenchError, Setting
from bench.servers import Running

EVERYTHING: object = {"types": ["bench.>"]}
SPARE_S = 120.0


@attrs.frozen
class Latency:
    """Percentiles in milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


@attrs.frozen
class Phase:
    """One phase: deliveries and CPU inside the measured interval, latencies of what was published in it.

    `last_ms` is the time from publish to the last subscriber of each signal, `latency_ms` to each subscriber.
    """

    mode: str
    value: float
    seconds: float
    published: int
    delivered: int
    deliveries_per_s: float
    server_cpu_s: float
    client_cpu_s: float
    server_us_per_delivery: float
    server_rss_kib: int
    missing: int
    duplicates: int
    out_of_order: int
    foreign: int
    closed: int
    drained: bool
    latency_ms: Latency
    last_ms: Latency

    def figures(self) -> dict[str, float]:
        """What the tables and the JSON show of it; latencies only if something arrived."""
        figures: dict[str, float] = {
            "deliveries_per_s": self.deliveries_per_s,
            "published": self.published,
            "us_per_delivery": self.server_us_per_delivery,
            "server_share": self.server_cpu_s / self.seconds,
            "client_share": self.client_cpu_s / self.seconds,
            "missing": self.missing,
            "duplicates": self.duplicates,
            "out_of_order": self.out_of_order,
            "closed": self.closed,
            "rss_mib": self.server_rss_kib / 1024,
        }
        for prefix, latency in (("", self.latency_ms), ("last_", self.last_ms)):
            if latency.count > 0:
                figures[f"{prefix}p50_ms"] = latency.p50
                figures[f"{prefix}p99_ms"] = latency.p99
                figures[f"{prefix}max_ms"] = latency.max
        return figures


@attrs.frozen
class Connect:
    """Opening all connections, one after another with at most 128 at once."""

    count: int
    seconds: float
    per_s: float
    server_cpu_s: float
    rss_before_kib: int
    rss_after_kib: int


@attrs.frozen
class Stuck:
    """What became of the connections that did not read."""

    count: int
    closed: int
    bytes_kept: int
    close_codes: list[int]


@attrs.frozen
class Result:
    """All that the load client saw."""

    connect: Connect
    phases: list[Phase]
    close_codes: list[int]
    stuck: Stuck | None = None


@attrs.frozen(kw_only=True)
class Load:
    """What the load client is to do.

    Attributes:
        subscribers: connections that receive.
        phases: "window:IN_FLIGHT:SECONDS" or "rate:PER_SECOND:SECONDS".
        filters: subscriber i uses filter i modulo their number.
        sequences: signals go to sequences 0 … K-1 in turn (type `bench.s<K>`); filter i wants sequence i modulo K.
        size: bytes of a signal's data.
        stuck: how many of the subscribers stop reading.
        settle_s: rest before the server's memory is read.
        drain_s: how long the last signals may take.
    """

    subscribers: int
    phases: tuple[str, ...] = ()
    filters: tuple[object, ...] = (EVERYTHING,)
    sequences: int = 1
    size: int = 80
    stuck: int = 0
    settle_s: float = 0.5
    drain_s: float = 10.0


def run_load(load: Load, server: Running, setting: Setting) -> Result:
    """Runs the load client, pinned to the load core.

    Raises:
        BenchError: it is not there, or what it met made a measurement impossible.
    """
    program = compile_program("wsload", setting.build)
    with tempfile.TemporaryDirectory(dir=setting.build, prefix="load-") as folder:
        command = [str(program), *_arguments(load, server, setting, Path(folder))]
        seconds = sum(float(phase.split(":")[2]) + load.drain_s for phase in load.phases)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + SPARE_S, check=False)
        except subprocess.TimeoutExpired:
            raise BenchError(f"the load client did not end within {seconds + SPARE_S:g} s") from None
    if done.returncode != 0:
        raise BenchError(f"the load client stopped: {done.stderr.strip() or f'status {done.returncode}'}")
    return cattrs.structure(json.loads(done.stdout), Result)


def _arguments(load: Load, server: Running, setting: Setting, folder: Path) -> Sequence[str]:
    dialect = server.dialect
    arguments = {
        "--port": server.port,
        "--watch-pid": server.pid,
        "--core": setting.load_core,
        "--subscribers": load.subscribers,
        "--sequences": load.sequences,
        "--size": load.size,
        "--stuck": load.stuck,
        "--settle-s": load.settle_s,
        "--drain-s": load.drain_s,
        "--path": dialect.path,
        "--publish-path": dialect.publish_path,
        "--subprotocol": dialect.subprotocol,
        "--publish-hello": dialect.publish_hello,
        "--live-marker": dialect.live_marker,
        "--error-marker": dialect.error_marker,
        "--answer-marker": dialect.answer_marker,
        "--template": dialect.template,
        "--ping-text": dialect.ping_text,
        "--stuck-receive-bytes": 65536 if load.stuck else None,
    }
    if dialect.hello is not None:
        hello = folder / "hello.txt"
        hello.write_text("".join(dialect.hello(filter_) + "\n" for filter_ in load.filters))
        arguments["--hello"] = str(hello)
    flat = [part for name, value in arguments.items() if value is not None for part in (name, str(value))]
    return [*flat, *(part for phase in load.phases for part in ("--phase", phase))]
