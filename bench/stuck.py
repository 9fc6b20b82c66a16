"""A stuck client: one of 50 stops reading; what the other 49 notice, and what becomes of the one (T9)."""

from __future__ import annotations

from bench.load import Load, run_load
from bench.measure import Cases, Claim, Measure, Operand, Setting
from bench.servers import running

SUBSCRIBERS = 50
DATA_BYTES = 16_000  # 16 KB with what surrounds it; an inbound message may have 16 KiB
KEPT_MIB = 8.0  # the backlog limit of 1 MiB and what the kernel's buffers of one connection take
NOBODY = "none stuck"
ONE = "one stuck"


def run(subject: str, setting: Setting) -> Cases:
    """One server, first with 49 readers, then with a fiftieth connection that does not read."""
    cases: dict[str, dict[str, float]] = {}
    readers = (setting.subscribers or SUBSCRIBERS) - 1
    for case, stuck in ((NOBODY, 0), (ONE, 1)):
        load = Load(
            subscribers=readers + stuck,
            stuck=stuck,
            size=DATA_BYTES,
            phases=(f"rate:200:{4 if setting.quick else 10}",),
            drain_s=5,
        )
        with running(subject, setting) as server:
            result = run_load(load, server, setting)
        cases[case] = result.phases[0].figures()
        cases[case]["rss_growth_mib"] = cases[case]["rss_mib"] - result.connect.rss_after_kib / 1024
        if result.stuck is not None:
            cases[case]["stuck_closed"] = result.stuck.closed
            cases[case]["stuck_kept_mib"] = result.stuck.bytes_kept / 2**20
            cases[case]["stuck_close_code"] = result.stuck.close_codes[0]
    return cases


def claims(_setting: Setting) -> tuple[Claim, ...]:
    """T9: the others hardly notice; the stuck one is bounded and closed."""
    one = {
        figure: Operand("product", ONE, figure) for figure in ("p99_ms", "missing", "stuck_closed", "stuck_kept_mib")
    }
    return (
        Claim(
            name="T9 p99 of the others x none stuck",
            top=one["p99_ms"],
            bottom=Operand("product", NOBODY, "p99_ms"),
            better="lower",
            floor=2.0,
            goal=1.4,
        ),
        Claim(name="T9 missing at the others", top=one["missing"], better="lower", floor=0),
        Claim(name="T9 stuck one closed", top=one["stuck_closed"], better="higher", floor=1),
        Claim(name="T9 MiB held for the stuck one", top=one["stuck_kept_mib"], better="lower", floor=KEPT_MIB),
    )


MEASURE = Measure(
    name="stuck",
    summary="one stuck client in 50 at 200 messages/s of 16 KB: p99 of the others, and what the stuck one may hold",
    subjects=("product", "c_send", "trio_naive"),
    run=run,
    claims=claims,
    shown=("p50_ms", "p99_ms", "missing", "stuck_closed", "stuck_close_code", "stuck_kept_mib", "rss_growth_mib"),
)
