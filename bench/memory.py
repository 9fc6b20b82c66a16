"""Memory: resident KiB of the server per idle connection, everything the service keeps for it included (T12)."""

from __future__ import annotations

from bench.load import Load, run_load
from bench.measure import Cases, Claim, Measure, Operand, Setting
from bench.servers import running

SUBSCRIBERS = 10_000
FLOOR_KIB = 24.0
GOAL_KIB = 10.0
IDLE_S = 14.0  # an idle actor leaves memory after 10 s
CASE = "idle"


def run(subject: str, setting: Setting) -> Cases:
    """One server: resident memory before the first connection and once the shards have left it."""
    subscribers = setting.subscribers or (1_000 if setting.quick else SUBSCRIBERS)
    with running(subject, setting) as server:
        connect = run_load(Load(subscribers=subscribers, settle_s=IDLE_S), server, setting).connect
    return {
        CASE: {
            "connections": connect.count,
            "kib_per_connection": (connect.rss_after_kib - connect.rss_before_kib) / connect.count,
            "rss_before_mib": connect.rss_before_kib / 1024,
            "rss_after_mib": connect.rss_after_kib / 1024,
        }
    }


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """T12."""
    return (
        Claim(
            name="T12 KiB per idle connection",
            top=Operand("product", CASE, "kib_per_connection"),
            better="lower",
            floor=FLOOR_KIB,
            goal=GOAL_KIB,
        ),
    )


MEASURE = Measure(
    name="memory",
    summary="resident KiB per idle connection, beside plain trio-websocket",
    subjects=("product", "trio_naive"),
    run=run,
    claims=claims,
    shown=("connections", "kib_per_connection", "rss_before_mib", "rss_after_mib"),
    default=False,
)
