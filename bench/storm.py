"""A reconnect storm: 2,000 of the clients vanish and come back all at once; what the others notice."""

from __future__ import annotations

import time

from bench.load import Load, loading
from bench.measure import BenchError, Cases, Claim, Measure, Operand, Setting
from bench.servers import Running, running

SUBSCRIBERS = 10_000
LEAVING = 2_000
HOLD_S = 600.0
QUIET, STORM = "quiet", "storm"


def run(subject: str, setting: Setting) -> Cases:
    """One server: 5 signals/s to those who stay, some to warm up, then in peace, then while the others come back."""
    leaving = 200 if setting.quick else LEAVING
    staying = (setting.subscribers or (1_000 if setting.quick else SUBSCRIBERS)) - leaving
    with running(subject, setting) as server:
        return _storm(server, setting, staying, leaving)


def _storm(server: Running, setting: Setting, staying: int, leaving: int) -> Cases:
    steady = Load(subscribers=staying, phases=("rate:5:4", "rate:5:6", "rate:5:6"), connect_s=180.0)
    with loading(Load(subscribers=leaving, settle_s=HOLD_S), server, setting) as there:
        there.wait_connected(leaving)
        with loading(steady, server, setting) as others:
            others.wait_phase(2)
            time.sleep(1)  # the warm-up of the phase is over
            there.process.kill()
            with loading(Load(subscribers=leaving, connecting=leaving, settle_s=0.0), server, setting) as back:
                seconds = back.result().connect.seconds
            phases = [phase.figures() for phase in others.result().phases]
    if len(phases) < 3:
        raise BenchError("it does not even keep up with 5 signals/s in peace")
    return {QUIET: phases[1], STORM: {**phases[2], "all_back_s": seconds}}


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """The others' p99 at most doubles, and they miss nothing."""
    return (
        Claim(
            name="storm: p99 of the others x quiet",
            top=Operand("product", STORM, "p99_ms"),
            bottom=Operand("product", QUIET, "p99_ms"),
            better="lower",
            floor=2.0,
        ),
        Claim(name="storm: missing at the others", top=Operand("product", STORM, "missing"), better="lower", floor=0),
    )


MEASURE = Measure(
    name="storm",
    summary="2,000 of 10,000 clients vanish and reconnect at once: p99 of the others",
    subjects=("product", "trio_naive"),
    run=run,
    claims=claims,
    shown=("p50_ms", "p99_ms", "max_ms", "missing", "all_back_s"),
    default=False,
)
