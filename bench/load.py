"""Runs the C load client against a server and reads what it saw."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import attrs
import cattrs

from bench.build import compile_program
from bench.measure import BenchError, Setting
from bench.servers import Running

EVERYTHING: object = {"types": ["bench.>"]}
SPARE_S = 60.0


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
        warmup_s: how long signals at the beginning of a phase do not count.
        connecting: handshakes under way at once.
        connect_s: how long all of them may take.
        drain_s: how long the last signals may take.
        polls: the client never sleeps while a phase runs. One that sleeps after each message makes a server that is
            slower than it pay for waking it, with an interrupt to the other core for every send; over a network no
            server pays that. Not for measures in which something else needs the load core.
    """

    subscribers: int
    phases: tuple[str, ...] = ()
    filters: tuple[object, ...] = (EVERYTHING,)
    sequences: int = 1
    size: int = 80
    stuck: int = 0
    settle_s: float = 0.5
    warmup_s: float = 0.5
    connecting: int = 128
    connect_s: float = 60.0
    drain_s: float = 10.0
    polls: bool = False


def run_load(load: Load, server: Running, setting: Setting) -> Result:
    """Runs the load client, pinned to the load core.

    Raises:
        BenchError: it is not there, or what it met made a measurement impossible.
    """
    with loading(load, server, setting) as client:
        return client.result()


@attrs.define(eq=False)
class LoadClient:
    """A load client at work.

    Attributes:
        process: it. longest_s: what it may take.
    """

    process: subprocess.Popen[str]
    longest_s: float

    def wait_connected(self, count: int) -> None:
        """Until it has opened so many connections, though the last ones may be in their handshake.

        Raises:
            BenchError: it has ended.
        """
        folder = Path(f"/proc/{self.process.pid}/fd")
        while self.process.poll() is None and sum(1 for _ in folder.iterdir()) < count:
            time.sleep(0.05)
        if self.process.poll() is not None:
            self.result()

    def wait_phase(self, begun: int) -> None:
        """Until its phase of this number, from 0, begins.

        Raises:
            BenchError: it has ended.
        """
        assert self.process.stdout is not None
        while self._phases_begun() <= begun:
            piece = os.read(self.process.stdout.fileno(), 65_536)
            if not piece:
                self.result()
            self._seen += piece.decode()

    def result(self) -> Result:
        """What it saw, once it has ended.

        Raises:
            BenchError: it did not end in time, or what it met made a measurement impossible.
        """
        try:
            rest, complaint = self.process.communicate(timeout=self.longest_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"the load client did not end within {self.longest_s:g} s") from None
        if self.process.returncode != 0:
            raise BenchError(f"the load client stopped: {complaint.strip() or f'status {self.process.returncode}'}")
        return cattrs.structure(json.loads(self._seen + rest), Result)

    _seen: str = attrs.field(default="", init=False)

    def _phases_begun(self) -> int:
        _, found, phases = self._seen.partition('"phases":[')
        return phases.count('"mode"') + 1 if found else 0


@contextlib.contextmanager
def loading(load: Load, server: Running, setting: Setting) -> Generator[LoadClient]:
    """Starts a load client, pinned to the load core, and ends it at the latest at the end.

    Raises:
        BenchError: it is not there.
    """
    program = compile_program("wsload", setting.build)
    with tempfile.TemporaryDirectory(dir=setting.build, prefix="load-") as folder:
        process = subprocess.Popen(
            [str(program), *_arguments(load, server, setting, Path(folder))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        seconds = sum(float(phase.split(":")[2]) + load.drain_s for phase in load.phases)
        try:
            yield LoadClient(process, load.connect_s + load.settle_s + seconds + SPARE_S)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


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
        "--warmup-s": load.warmup_s,
        "--connecting": load.connecting,
        "--connect-s": load.connect_s,
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
        hello.write_text("".join(dialect.hello(filter_) + "\0" for filter_ in load.filters))
        arguments["--hello"] = str(hello)
    flat = [part for name, value in arguments.items() if value is not None for part in (name, str(value))]
    flags = ["--polls"] if load.polls else []
    return [*flat, *flags, *(part for phase in load.phases for part in ("--phase", phase))]
