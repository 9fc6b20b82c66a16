"""Latency: 50 signals a second to 1,000 subscribers; how late, and at which CPU cost, beside one send() each (T7)."""

from __future__ import annotations

from bench.load import Load, run_load
from bench.measure import Cases, Claim, Measure, Operand, Setting
from bench.servers import running

SUBSCRIBERS = 1_000
CASE = "50/s"


def run(subject: str, setting: Setting) -> Cases:
    """One server at a fixed rate; latencies count from the moment a signal was due."""
    load = Load(
        subscribers=setting.subscribers or SUBSCRIBERS,
        phases=(f"rate:50:{3 if setting.quick else 10}",),
        polls=True,
    )
    with running(subject, setting) as server:
        result = run_load(load, server, setting)
    return {CASE: result.phases[0].figures()}


def claims(setting: Setting) -> tuple[Claim, ...]:
    """T7, for the number of subscribers it speaks of."""
    if (setting.subscribers or SUBSCRIBERS) != SUBSCRIBERS:
        return ()
    figures = {"p50_ms": "p50", "p99_ms": "p99", "us_per_delivery": "CPU per delivery"}
    return tuple(
        Claim(
            name=f"T7 {name} x c_send",
            top=Operand("product", CASE, figure),
            bottom=Operand("c_send", CASE, figure),
            better="lower",
            floor=2.0,
            goal=1.5,
        )
        for figure, name in figures.items()
    )


MEASURE = Measure(
    name="latency",
    summary="50 signals/s to 1,000 subscribers: p50, p99 and CPU per delivery against c_send",
    subjects=("product", "c_send"),
    run=run,
    claims=claims,
    shown=("p50_ms", "p99_ms", "max_ms", "us_per_delivery", "server_share", "missing"),
)
