"""The service as it is used: 1,000 connections in 20 filter groups at 50 signals/s while the host source ingests."""

from __future__ import annotations

import http.client
import json

from bench.load import Load, run_load
from bench.measure import BenchError, Cases, Claim, Measure, Operand, Setting
from bench.servers import Running, running

SUBSCRIBERS = 1_000
GROUPS = 20
RATE = 50
LAST_P99_MS = 250.0
OVERLAPPING = "all groups match"
DISJOINT = "one group matches"


def overlapping_filters() -> tuple[object, ...]:
    """Different filters that all match every signal of the bench: 20 evaluations and 20 frames per signal."""
    by_name = [{"types": ["bench.>", f"!bench.never.g{group}"]} for group in range(0, GROUPS, 2)]
    by_value = [
        {"types": ["bench.>"], "where": {"f": "/data/n", "op": "gt", "v": -group}} for group in range(1, GROUPS, 2)
    ]
    return (*by_name, *by_value)


def disjoint_filters() -> tuple[object, ...]:
    """Filters of which exactly one matches each signal."""
    return tuple({"types": [f"bench.s{group}"]} for group in range(GROUPS))


def run(subject: str, setting: Setting) -> Cases:
    """The product with its sources on, once with each kind of filters."""
    subscribers = setting.subscribers or SUBSCRIBERS
    phases = (f"rate:{RATE}:{_seconds(setting)}",)
    loads = {
        OVERLAPPING: Load(subscribers=subscribers, phases=phases, filters=overlapping_filters()),
        DISJOINT: Load(subscribers=subscribers, phases=phases, filters=disjoint_filters(), sequences=GROUPS),
    }
    cases: dict[str, dict[str, float]] = {}
    for case, load in loads.items():
        with running(subject, setting) as server:
            before = _produced(server)
            cases[case] = run_load(load, server, setting).phases[0].figures()
            cases[case]["ingested"] = _produced(server) - before
    return cases


def _seconds(setting: Setting) -> int:
    return 10 if setting.quick else 60


def _produced(server: Running) -> int:
    """How many signals all sources have produced so far."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", "/v1/sources")
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"GET /v1/sources failed: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise BenchError(f"GET /v1/sources answered {response.status}: {body[:200]!r}")
    return sum(source["produced"] for source in json.loads(body)["sources"])


def claims(setting: Setting) -> tuple[Claim, ...]:
    """Nothing missing, nothing doubled, nobody closed, the last client has it within 250 ms, and ingest did run."""
    limits = {"missing": 0.0, "duplicates": 0.0, "out_of_order": 0.0, "closed": 0.0, "last_p99_ms": LAST_P99_MS}
    found: list[Claim] = []
    for case in (OVERLAPPING, DISJOINT):
        for figure, limit in limits.items():
            top = Operand("product_ingest", case, figure)
            found.append(Claim(name=f"service {figure}, {case}", top=top, better="lower", floor=limit))
        ingested = Operand("product_ingest", case, "ingested")
        floor = _seconds(setting)  # the host source gives several signals every second
        found.append(Claim(name=f"service ingested, {case}", top=ingested, better="higher", floor=floor))
        published = Operand("product_ingest", case, "published")
        rate = 0.99 * RATE * _seconds(setting)  # a server that keeps its publisher waiting does not do the job
        found.append(Claim(name=f"service published, {case}", top=published, better="higher", floor=rate))
    return tuple(found)


MEASURE = Measure(
    name="service",
    summary="1,000 connections in 20 filter groups, 50 signals/s for 60 s while ingest runs: 0 missing, p99 <= 250 ms",
    subjects=("product_ingest",),
    run=run,
    claims=claims,
    shown=(
        "ingested",
        "published",
        "missing",
        "duplicates",
        "closed",
        "p50_ms",
        "p99_ms",
        "last_p99_ms",
        "last_max_ms",
        "server_share",
    ),
    repeat=1,
)
