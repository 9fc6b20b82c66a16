"""The Python client on a million signals: how many it takes in a second, and that its memory levels off (3.5)."""

from __future__ import annotations

from bench.child import run_child
from bench.measure import Cases, Claim, Measure, Operand, Setting

GROWTH = 1.05
KINDS = ("json", "msgpack")


def run(subject: str, setting: Setting) -> Cases:
    """One process for each encoding; its server is in the same process, and gives it the same frame again and again."""
    cases: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        cases |= run_child("bench.sdk_client", kind, setting)
    return cases


def claims(setting: Setting) -> tuple[Claim, ...]:
    """Memory after a million signals is that after half of them."""
    if setting.quick:
        return ()
    return tuple(
        Claim(
            name=f"resident memory of the client, {kind}, last quarter x second",
            top=Operand("product_client", kind, "rss_q4_mib"),
            bottom=Operand("product_client", kind, "rss_q2_mib"),
            better="lower",
            floor=GROWTH,
        )
        for kind in KINDS
    )


MEASURE = Measure(
    name="sdk",
    summary="a million signals through the Python client: its memory in each quarter, and signals a second",
    subjects=("product_client",),
    run=run,
    claims=claims,
    shown=("signals", "signals_per_s", *(f"rss_q{quarter}_mib" for quarter in (1, 2, 3, 4))),
    repeat=1,
)
