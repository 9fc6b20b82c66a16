"""Fan-out: deliveries per second to N subscribers with 1, 4 and 16 signals in flight, against both limits (T1–T5)."""

from __future__ import annotations

from bench.load import Load, run_load
from bench.measure import Cases, Claim, Measure, Operand, Setting
from bench.servers import running

SUBSCRIBERS = 1_000
WINDOWS = (4, 1, 16)

# (subscribers, window, compared with) -> name, floor, goal
TARGETS = {
    (1_000, 4, "c_send"): ("T1 x c_send", 1.5, 2.2),
    (1_000, 4, "c_coalesce"): ("T1 x c_coalesce", 0.35, 0.55),
    (10_000, 4, "c_send"): ("T2 x c_send", 1.5, 2.3),
    (10_000, 4, "c_coalesce"): ("T2 x c_coalesce", 0.4, 0.6),
    (1_000, 16, "c_coalesce"): ("T3 x c_coalesce", 0.4, 0.7),
    (1_000, 1, "c_send"): ("T4 x c_send", 0.5, 0.65),
    (10_000, 1, "c_send"): ("T4 x c_send", 0.55, 0.75),
    (1_000, 4, "trio_naive"): ("T5 x trio_naive", 8.0, 12.0),
    (1_000, 1, "trio_naive"): ("T5 x trio_naive", 2.5, 3.5),
}


def run(subject: str, setting: Setting) -> Cases:
    """One server, all windows, one after another on the same connections."""
    seconds = 1 if setting.quick else 4
    windows = setting.windows or WINDOWS
    load = Load(
        subscribers=setting.subscribers or SUBSCRIBERS,
        phases=tuple(f"window:{window}:{seconds}" for window in windows),
        polls=True,
    )
    with running(subject, setting) as server:
        result = run_load(load, server, setting)
    return {f"window {phase.value:g}": phase.figures() for phase in result.phases}


def claims(setting: Setting) -> tuple[Claim, ...]:
    """T1 to T5, as far as the numbers of subscribers and the windows fit."""
    subscribers = setting.subscribers or SUBSCRIBERS
    return tuple(
        Claim(
            name=f"{name}, N={wanted}, window {window}",
            top=Operand("product", f"window {window}", "deliveries_per_s"),
            bottom=Operand(against, f"window {window}", "deliveries_per_s"),
            better="higher",
            floor=floor,
            goal=goal,
        )
        for (wanted, window, against), (name, floor, goal) in TARGETS.items()
        if wanted == subscribers and window in (setting.windows or WINDOWS)
    )


MEASURE = Measure(
    name="fanout",
    summary="deliveries/s to 1,000 subscribers in closed loop, against both C limits and naive trio-websocket",
    subjects=("product", "c_send", "c_coalesce", "trio_naive"),
    run=run,
    claims=claims,
    shown=("deliveries_per_s", "us_per_delivery", "p50_ms", "p99_ms", "server_share", "client_share", "missing"),
)
