"""Activation: 100,000 actors come into memory and leave it again; one of 1,000,000 that are stored is called (T14)."""

from __future__ import annotations

from bench.child import run_child
from bench.measure import Cases, Claim, Measure, Operand, Setting

IN_MEMORY, STORED = "in_memory", "stored"


def run(subject: str, setting: Setting) -> Cases:
    """One candidate in its own process, on a disk."""
    return run_child("bench.activation_candidates", subject, setting)


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """T14, no task, no stall, and a stored actor is there within a millisecond."""
    bounds = (
        ("T14 KiB per idle actor", IN_MEMORY, "kib_per_actor", 2.0, 1.2),
        ("tasks that idle actors keep", IN_MEMORY, "tasks", 0.0, None),
        ("longest stall while all are activated, ms", IN_MEMORY, "activation_stall_ms", 10.0, None),
        ("longest stall while all are evicted, ms", IN_MEMORY, "eviction_stall_ms", 10.0, None),
        ("activation of one of 1,000,000, median, us", STORED, "p50_us", 1_000.0, None),
    )
    return tuple(
        Claim(name=name, top=Operand(case, case, figure), better="lower", floor=floor, goal=goal)
        for name, case, figure, floor, goal in bounds
    )


MEASURE = Measure(
    name="activation",
    summary="100,000 actors into memory and out again: memory, stalls; a random one of 1,000,000 stored ones",
    subjects=(IN_MEMORY, STORED),
    run=run,
    claims=claims,
    shown=(
        "actors",
        "kib_per_actor",
        "tasks",
        "us_per_activation",
        "rest_stall_ms",
        "activation_stall_ms",
        "eviction_stall_ms",
        "all_gone_s",
        "kib_left_per_actor",
        "p50_us",
        "p99_us",
        "max_us",
    ),
    repeat=1,
    default=False,
)
