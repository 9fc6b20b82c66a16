"""Scale: as many subscribers as one process may have descriptors for, at 5 signals/s (T17)."""

from __future__ import annotations

from bench.load import Load, run_load
from bench.measure import Cases, Claim, Measure, Operand, Setting
from bench.servers import running

SUBSCRIBERS = 19_000
CASE = "5/s"


def run(subject: str, setting: Setting) -> Cases:
    """One server, all of them in one group."""
    load = Load(
        subscribers=setting.subscribers or SUBSCRIBERS,
        connect_s=180.0,
        phases=(f"rate:5:{4 if setting.quick else 10}",),
        polls=True,
    )
    with running(subject, setting) as server:
        result = run_load(load, server, setting)
    return {CASE: {**result.phases[0].figures(), "connects_per_s": result.connect.per_s}}


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """T17: it runs and nothing is missing; how late, beside the physical limit."""
    p99 = Operand("product", CASE, "p99_ms")
    return (
        Claim(name="T17 missing", top=Operand("product", CASE, "missing"), better="lower", floor=0),
        Claim(name="T17 closed", top=Operand("product", CASE, "closed"), better="lower", floor=0),
        Claim(
            name="T17 p99 x c_send",
            top=p99,
            bottom=Operand("c_send", CASE, "p99_ms"),
            better="lower",
            floor=10.0,
            goal=1.5,
        ),
    )


MEASURE = Measure(
    name="scale",
    summary="19,000 subscribers in one process at 5 signals/s: nothing missing, p99",
    subjects=("product", "c_send"),
    run=run,
    claims=claims,
    shown=("p50_ms", "p99_ms", "missing", "us_per_delivery", "server_share", "rss_mib"),
    repeat=1,
    default=False,
)
