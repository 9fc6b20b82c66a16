"""Filters: what many groups cost beside one, and 10,000 connections of which each has a filter of its own."""

from __future__ import annotations

from bench.load import EVERYTHING, Load, run_load
from bench.measure import Cases, Claim, Measure, Operand, Setting
from bench.servers import running

SUBSCRIBERS = 10_000
GROUPS = 100
SLOW_RATE = 5  # all of it fits one core, so that CPU time per delivery compares like with like
RATE = 10
RATIO = 1.3
LAST_MS = 1_000.0
ONE = "one group"
MANY = "100 groups"
OWN = "own filters, all match"
OWN_DISJOINT = "own filters, one matches"


def matching_filters(count: int) -> tuple[object, ...]:
    """Different filters that all match every signal of the bench: half decide by the names, half by the data."""
    return tuple(
        {"types": ["bench.>", f"!bench.never.g{n}"]}
        if n % 2
        else {"types": ["bench.>"], "where": {"f": "/data/n", "op": "gt", "v": -1 - n}}
        for n in range(count)
    )


def disjoint_filters(count: int) -> tuple[object, ...]:
    """Filters of which exactly one matches each signal."""
    return tuple({"types": [f"bench.s{n}"]} for n in range(count))


def run(subject: str, setting: Setting) -> Cases:
    """One server, started anew for each kind of filters."""
    subscribers = setting.subscribers or (1_000 if setting.quick else SUBSCRIBERS)
    seconds = 3 if setting.quick else 10
    slow, fast = f"rate:{SLOW_RATE}:{seconds}", f"rate:{RATE}:{seconds}"
    loads = {
        ONE: Load(subscribers=subscribers, phases=(slow,), filters=(EVERYTHING,)),
        MANY: Load(subscribers=subscribers, phases=(slow,), filters=matching_filters(GROUPS)),
        OWN: Load(subscribers=subscribers, phases=(fast,), filters=matching_filters(subscribers)),
        OWN_DISJOINT: Load(
            subscribers=subscribers, phases=(fast,), filters=disjoint_filters(subscribers), sequences=subscribers
        ),
    }
    cases: dict[str, dict[str, float]] = {}
    for case, load in loads.items():
        with running(subject, setting) as server:
            result = run_load(load, server, setting)
        cases[case] = result.phases[0].figures()
        grown = result.connect.rss_after_kib - result.connect.rss_before_kib
        cases[case]["kib_per_connection"] = grown / result.connect.count
        cases[case]["connects_per_s"] = result.connect.per_s
    return cases


def claims(setting: Setting) -> tuple[Claim, ...]:
    """Groups are cheap, and nobody with a filter of their own waits or misses anything."""
    if (setting.subscribers or SUBSCRIBERS) != SUBSCRIBERS:
        return ()
    found = [
        Claim(
            name="CPU per delivery, 100 groups x one group",
            top=Operand("product", MANY, "us_per_delivery"),
            bottom=Operand("product", ONE, "us_per_delivery"),
            better="lower",
            floor=RATIO,
        )
    ]
    for case in (OWN, OWN_DISJOINT):
        limits = {"missing": 0.0, "duplicates": 0.0, "out_of_order": 0.0, "closed": 0.0, "last_max_ms": LAST_MS}
        for figure, limit in limits.items():
            found.append(
                Claim(name=f"{figure}, {case}", top=Operand("product", case, figure), better="lower", floor=limit)
            )
    return tuple(found)


MEASURE = Measure(
    name="filters",
    summary="10,000 subscribers in one group, in 100, and with 10,000 different filters at 10 signals/s",
    subjects=("product",),
    run=run,
    claims=claims,
    shown=(
        "published",
        "missing",
        "closed",
        "p50_ms",
        "p99_ms",
        "last_p99_ms",
        "last_max_ms",
        "us_per_delivery",
        "server_share",
        "kib_per_connection",
        "connects_per_s",
    ),
    default=False,
)
