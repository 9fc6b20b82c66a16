"""Waking up: everybody is connected and has heard nothing for so long that the shards left memory; then one signal."""

from __future__ import annotations

from bench.load import Load, run_load
from bench.measure import Cases, Claim, Measure, Operand, Setting
from bench.servers import running

SUBSCRIBERS = 10_000
IDLE_S = 14.0  # an idle actor leaves memory after 10 s
LAST_MS = 1_000.0
CASE = "first signal"


def run(subject: str, setting: Setting) -> Cases:
    """One server: silence, then a signal every second, the first of which counts too."""
    subscribers = setting.subscribers or (1_000 if setting.quick else SUBSCRIBERS)
    load = Load(subscribers=subscribers, settle_s=IDLE_S, warmup_s=0.0, phases=("rate:1:3",))
    with running(subject, setting) as server:
        result = run_load(load, server, setting)
    return {CASE: result.phases[0].figures()}


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """The last of all has the first signal within a second."""
    last = Operand("product", CASE, "last_max_ms")
    return (
        Claim(name="wake: ms until the last has it", top=last, better="lower", floor=LAST_MS),
        Claim(name="wake: missing", top=Operand("product", CASE, "missing"), better="lower", floor=0),
    )


MEASURE = Measure(
    name="wake",
    summary="10,000 connections whose shards are not in memory: the first signal wakes them and reaches all",
    subjects=("product", "c_send"),
    run=run,
    claims=claims,
    shown=("p50_ms", "last_max_ms", "missing", "rss_mib"),
    default=False,
)
