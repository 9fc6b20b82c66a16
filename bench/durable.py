"""Durability: what the disk adds to the latency (T16), and 10 signals/s to 10,000 beside one send() each (T8)."""

from __future__ import annotations

import os
import statistics
import tempfile
import time

from bench.load import Load, run_load
from bench.measure import Cases, Claim, Measure, Operand, Setting
from bench.servers import running

SUBSCRIBERS = 1_000
RATE = 50
MANY = 10_000
MANY_RATE = 10
SYNC_BYTES = 4_096
DURABLE = "50/s x 1000, on the disk"
VOLATILE = "50/s x 1000, in memory"
ADDED = "added by durability"
WIDE = "10/s x 10000"


def run(subject: str, setting: Setting) -> Cases:
    """The product on a disk and on a file system in memory, one after the other; then the wide case of each server."""
    cases: dict[str, dict[str, float]] = {}
    seconds = 3 if setting.quick else 20
    if subject == "product":
        load = Load(subscribers=SUBSCRIBERS, phases=(f"rate:{RATE}:{seconds}",), polls=True)
        for case, name in ((DURABLE, "product"), (VOLATILE, "product_volatile")):
            with running(name, setting) as server:
                cases[case] = run_load(load, server, setting).phases[0].figures()
        synced = sync_times_ms(setting, seconds)
        cases[ADDED] = {
            "added_p50_ms": cases[DURABLE]["p50_ms"] - cases[VOLATILE]["p50_ms"],
            "added_p99_ms": cases[DURABLE]["p99_ms"] - cases[VOLATILE]["p99_ms"],
            "fdatasync_p50_ms": statistics.median(synced),
            "fdatasync_p99_ms": statistics.quantiles(synced, n=100)[98],
        }
    wide = Load(subscribers=setting.subscribers or MANY, phases=(f"rate:{MANY_RATE}:{seconds}",), polls=True)
    with running(subject, setting) as server:
        cases[WIDE] = run_load(wide, server, setting).phases[0].figures()
    return cases


def sync_times_ms(setting: Setting, seconds: int) -> list[float]:
    """What a 4 KiB append and its `fdatasync` take, at the rate of the publications, on the disk of the data."""
    times: list[float] = []
    with tempfile.TemporaryFile(dir=setting.build) as file:
        for _ in range(seconds * RATE):
            begun = time.perf_counter()
            os.write(file.fileno(), os.urandom(SYNC_BYTES))
            os.fdatasync(file.fileno())
            took = time.perf_counter() - begun
            times.append(took * 1_000)
            time.sleep(max(0.0, 1 / RATE - took))
    return times


def claims(setting: Setting) -> tuple[Claim, ...]:
    """T16, and T8 for the number of subscribers it speaks of."""
    found = [
        Claim(
            name="T16 added p99 x fdatasync p99",
            top=Operand("product", ADDED, "added_p99_ms"),
            bottom=Operand("product", ADDED, "fdatasync_p99_ms"),
            better="lower",
            floor=6.0,
            goal=3.0,
        )
    ]
    if (setting.subscribers or MANY) == MANY:
        found += [
            Claim(
                name="T8 p99 x c_send",
                top=Operand("product", WIDE, "p99_ms"),
                bottom=Operand("c_send", WIDE, "p99_ms"),
                better="lower",
                floor=1.6,
                goal=1.25,
            ),
            Claim(name="T8 missing", top=Operand("product", WIDE, "missing"), better="lower", floor=0),
        ]
    return tuple(found)


MEASURE = Measure(
    name="durable",
    summary="latency on a disk against memory, 50 signals/s to 1,000; 10 signals/s to 10,000 against c_send",
    subjects=("product", "c_send"),
    run=run,
    claims=claims,
    shown=(
        "published",
        "missing",
        "p50_ms",
        "p99_ms",
        "max_ms",
        "us_per_delivery",
        "server_share",
        "added_p50_ms",
        "added_p99_ms",
        "fdatasync_p50_ms",
        "fdatasync_p99_ms",
    ),
    default=False,
)
