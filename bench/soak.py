"""Soak: millions of signals through a log that keeps few of them; memory and files must level off."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import threading
import time
from collections.abc import Sequence
from typing import Self

import attrs

from bench.load import EVERYTHING, Load, loading
from bench.measure import BenchError, Cases, Claim, Measure, Operand, Setting
from bench.servers import Running, running

SECONDS = 360
QUICK_SECONDS = 15
BATCH = 100  # signals of one request
PUBLISHERS = 4
SUBSCRIBERS = 20
DATA_BYTES = 100
SAMPLE_S = 1.0
GROWTH = 1.05
CASE = "rolling log"


@attrs.frozen
class Point:
    """What was seen at one moment: signals taken so far, resident memory, and files, all in MiB."""

    signals: int
    rss: float
    database: float
    journal: float


@attrs.define(eq=False)
class Publishing:
    """Publishers in threads, each with one request in flight."""

    server: Running
    count: int = 0
    failure: str | None = None
    _stop: threading.Event = attrs.field(factory=threading.Event, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _threads: list[threading.Thread] = attrs.field(factory=list, init=False)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._publish, args=(n,)) for n in range(PUBLISHERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _publish(self, n: int) -> None:
        signals = [
            {"type": f"bench.soak.p{n}", "entity": f"e{at}", "data": {"n": at, "x": "x" * DATA_BYTES}}
            for at in range(BATCH)
        ]
        body = json.dumps(signals).encode()
        headers = {"content-type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            while not self._stop.is_set():
                try:
                    connection.request("POST", "/v1/signals", body, headers)
                    response = connection.getresponse()
                except ConnectionError:  # after a pause of this process the server has closed it; the next one is new
                    connection.close()
                    continue
                answer = response.read()
                if response.status != 201:
                    self.failure = f"POST /v1/signals answered {response.status}: {answer[:200]!r}"
                    return
                with self._lock:
                    self.count += BATCH
        except (OSError, http.client.HTTPException) as error:
            self.failure = f"POST /v1/signals failed: {error!r}"
        finally:
            connection.close()


def run(subject: str, setting: Setting) -> Cases:
    """One server, publishers as fast as it takes their requests, and a few subscribers that read it all."""
    seconds = QUICK_SECONDS if setting.quick else SECONDS if setting.minutes is None else round(60 * setting.minutes)
    points: list[Point] = []
    # The publishers and readers share the load core; what they can do is not what is measured.
    mask = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {setting.load_core})
    try:
        with running(subject, setting) as server:
            load = Load(
                subscribers=setting.subscribers or SUBSCRIBERS, phases=(f"rate:1:{seconds}",), filters=(EVERYTHING,)
            )
            with loading(load, server, setting) as readers:
                readers.wait_phase(0)
                with Publishing(server) as publishing:
                    ends = time.monotonic() + seconds - 2
                    while time.monotonic() < ends and publishing.failure is None:
                        points.append(_look(server, publishing.count))
                        time.sleep(SAMPLE_S)
                if publishing.failure is not None:
                    raise BenchError(publishing.failure)
                readers.result()
    finally:
        os.sched_setaffinity(0, mask)
    return {CASE: figures(points, seconds)}


def figures(points: Sequence[Point], seconds: float) -> dict[str, float]:
    """How many there were, and the highest memory and sizes of each quarter of the run."""
    found: dict[str, float] = {
        "signals": points[-1].signals,
        "signals_per_s": points[-1].signals / seconds,
    }
    size = len(points) // 4
    for quarter in range(4):
        part = points[quarter * size : (quarter + 1) * size] or points
        for name in ("rss", "database", "journal"):
            found[f"{name}_q{quarter + 1}_mib"] = max(getattr(point, name) for point in part)
    half = points[len(points) // 2 :]
    if len({point.signals for point in half}) > 1:
        slope, _ = statistics.linear_regression([point.signals / 1e6 for point in half], [point.rss for point in half])
        found["rss_mib_per_million"] = slope
    return found


def _look(server: Running, signals: int) -> Point:
    files = {path.name: path.stat().st_size / 2**20 for path in server.data.iterdir() if path.is_file()}
    journal = sum(size for name, size in files.items() if name.endswith("-wal"))
    return Point(signals, _rss_mib(server.pid), sum(files.values()) - journal, journal)


def _rss_mib(pid: int) -> float:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def claims(setting: Setting) -> tuple[Claim, ...]:
    """The last quarter needs no more than the one before; a quick run does not fill the log."""
    if setting.quick:
        return ()
    return tuple(
        Claim(
            name=f"{name}, last quarter x third",
            top=Operand("product_small_log", CASE, f"{figure}_q4_mib"),
            bottom=Operand("product_small_log", CASE, f"{figure}_q3_mib"),
            better="lower",
            floor=GROWTH,
        )
        for name, figure in (("resident memory", "rss"), ("database file", "database"))
    )


MEASURE = Measure(
    name="soak",
    summary="as many signals as six minutes (--minutes) take, in a log of 50,000: memory and files level off",
    subjects=("product_small_log",),
    run=run,
    claims=claims,
    shown=(
        "signals",
        "signals_per_s",
        *(f"{name}_q{quarter}_mib" for name in ("rss", "database", "journal") for quarter in (1, 2, 3, 4)),
        "rss_mib_per_million",
    ),
    repeat=1,
    default=False,
)
