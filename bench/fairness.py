"""Fairness: how long somebody else waits for a first answer while signals go out to 10,000 (T10)."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Iterator

from bench.load import Load, loading
from bench.measure import BenchError, Cases, Claim, Measure, Operand, Setting
from bench.servers import Running, running

SUBSCRIBERS = 10_000
PAUSE_S = 0.005
CASE = "5/s"
PATHS = {"product": "/healthz"}  # the loop's fairness: a WebSocket would wait for its shard's turn as well
REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n"
)


def run(subject: str, setting: Setting) -> Cases:
    """One server at 5 signals/s; one request after another, each on a connection of its own."""
    seconds = 4 if setting.quick else 10
    subscribers = setting.subscribers or (1_000 if setting.quick else SUBSCRIBERS)
    with running(subject, setting) as server:
        with loading(Load(subscribers=subscribers, phases=(f"rate:5:{seconds}",)), server, setting) as others:
            others.wait_phase(0)
            cores = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {setting.load_core})
            try:
                path = PATHS.get(subject, server.dialect.publish_path)
                trips = sorted(_trips(server, path, time.perf_counter() + seconds))
            finally:
                os.sched_setaffinity(0, cores)
            phase = others.result().phases[0]
    return {
        CASE: {
            "requests": len(trips),
            "median_ms": statistics.median(trips),
            "p99_ms": trips[len(trips) * 99 // 100],
            "longest_ms": trips[-1],
            "missing": phase.missing,
        }
    }


def _trips(server: Running, path: str, end: float) -> Iterator[float]:
    request = REQUEST.format(path=path).encode()
    while (begin := time.perf_counter()) < end:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(request)
            answer = client.recv(4_096)
            if not answer.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 200 ")):
                raise BenchError(f"a request was answered with {answer[:80]!r}")
            yield (time.perf_counter() - begin) * 1e3
        time.sleep(PAUSE_S)


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """T10: `c_send` sends each signal to everybody without looking at anything else."""
    return (
        Claim(
            name="T10 longest wait x c_send",
            top=Operand("product", CASE, "longest_ms"),
            bottom=Operand("c_send", CASE, "longest_ms"),
            better="lower",
            floor=1 / 5,
            goal=1 / 15,
        ),
    )


MEASURE = Measure(
    name="fairness",
    summary="requests of others while 5 signals/s go to 10,000: the longest wait, beside a server that does not yield",
    subjects=("product", "c_send"),
    run=run,
    claims=claims,
    shown=("requests", "median_ms", "p99_ms", "longest_ms", "missing"),
    default=False,
)
