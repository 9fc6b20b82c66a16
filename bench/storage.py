"""Durable writes per second of 1, 100 and 1,000 actors, against one commit each and SQLite's own limit (T15)."""

from __future__ import annotations

from bench.child import run_child
from bench.measure import Cases, Claim, Measure, Operand, Setting

MANY = "1000 actors"


def run(subject: str, setting: Setting) -> Cases:
    """One candidate in its own process, on a new database."""
    return run_child("bench.storage_candidates", subject, setting)


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """T15: rows that 1,000 writers hand to the store.

    Writes through actors are shown beside it. Each of them is a call as well, whose own target (T13) and the store's
    cost come to more than a quarter of SQLite's speed leaves for both.
    """
    store = Operand("store", MANY, "writes_per_s")
    return (
        Claim(
            name="T15 x one commit per message",
            top=store,
            bottom=Operand("commit_each", MANY, "writes_per_s"),
            better="higher",
            floor=15,
            goal=25,
        ),
        Claim(
            name="T15 x SQLite, 100 per transaction",
            top=store,
            bottom=Operand("sqlite_100", MANY, "writes_per_s"),
            better="higher",
            floor=0.25,
            goal=0.45,
        ),
    )


MEASURE = Measure(
    name="storage",
    summary="durable writes/s of 1, 100 and 1,000 actors against one commit each and SQLite's own limit",
    subjects=("actors", "store", "commit_each", "sqlite_100"),
    run=run,
    claims=claims,
    shown=("writes_per_s", "p50_ms", "p99_ms"),
    default=False,
)
