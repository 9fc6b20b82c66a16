"""Calls between actors in one process: an ask and a one-way tell, against asyncio's Queue and Future (T13)."""

from __future__ import annotations

from bench.child import run_child
from bench.measure import Cases, Claim, Measure, Operand, Setting

ASK = "ask"
TELL = "tell"


def run(subject: str, setting: Setting) -> Cases:
    """One candidate in its own process."""
    return run_child("bench.call_candidates", subject, setting)


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """T13, as far as asyncio goes."""
    return (
        Claim(
            name="T13 ask x asyncio Queue + Future",
            top=Operand("actor", ASK, "us"),
            bottom=Operand("asyncio", ASK, "us"),
            better="lower",
            floor=2.0,
            goal=1.6,
        ),
        Claim(
            name="T13 tell, us",
            top=Operand("actor", TELL, "us"),
            better="lower",
            floor=1.0,
            goal=0.4,
        ),
    )


MEASURE = Measure(
    name="call",
    summary="microseconds per actor ask and tell against asyncio Queue + Future",
    subjects=("actor", "asyncio"),
    run=run,
    claims=claims,
    shown=("us", "us_handled"),
    default=False,
)
