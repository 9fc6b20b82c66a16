"""The simulator: events and virtual seconds a second with 100 actors, seeds of the service in one process and two."""

from __future__ import annotations

from bench.child import run_child
from bench.measure import Cases, Claim, Measure, Operand, Setting

ACTORS = "actors"
SERVICE = "service"
TOGETHER = "service, 2 jobs"
CASE = "run"
EVENTS_PER_S = 10_000.0
VIRTUAL_PER_S = 100.0


def run(subject: str, setting: Setting) -> Cases:
    """One candidate in its own process, on one core, or on all with two jobs."""
    return run_child("bench.sim_candidates", subject, setting)


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """What a simulator must reach to find rare mistakes in the time of a coffee."""
    events = Operand(ACTORS, CASE, "events_per_s")
    virtual = Operand(ACTORS, CASE, "virtual_s_per_s")
    return (
        Claim(name="sim: events/s", top=events, better="higher", floor=EVENTS_PER_S),
        Claim(name="sim: virtual s/s", top=virtual, better="higher", floor=VIRTUAL_PER_S),
    )


MEASURE = Measure(
    name="sim",
    summary="the simulator: events/s, virtual s/s with 100 actors, seeds/s of the service alone and with two jobs",
    subjects=(ACTORS, SERVICE, TOGETHER),
    run=run,
    claims=claims,
    shown=("events_per_s", "virtual_s_per_s", "seeds_per_s", "rss_mib"),
    default=False,
)
