"""What it costs that actors can be brought back, and how long bringing back a gigabyte takes (settled question 14)."""

from __future__ import annotations

from bench.child import run_child
from bench.measure import Cases, Claim, Measure, Operand, Setting

CASE = "all changed"
_LONGEST_S = 900.0  # a gigabyte is written twice, and once more


def run(subject: str, setting: Setting) -> Cases:
    """One backend in its own process, on new data."""
    return run_child("bench.recovery_candidates", subject, setting, longest_s=_LONGEST_S)


def claims(setting: Setting) -> tuple[Claim, ...]:
    """At most twice the bytes written, and a gigabyte in at most 10 s."""
    found = [
        Claim(
            name=f"bytes written with history x without, {subject}",
            top=Operand(subject, CASE, "written_ratio"),
            better="lower",
            floor=2.0,
        )
        for subject in ("sql", "shared")
    ]
    if not setting.quick:
        found += [
            Claim(name=f"restore of 1 GB, {subject}", top=Operand(subject, CASE, "restore_s"), better="lower", floor=10)
            for subject in ("sql", "shared")
        ]
    return tuple(found)


MEASURE = Measure(
    name="recovery",
    summary="bytes written with history against without, and seconds to bring 1 GB back, for both backends",
    subjects=("sql", "shared", "shared_100", "shared_900", "shared_10000"),
    run=run,
    claims=claims,
    shown=("mb", "write_s", "written_ratio", "restore_s", "peak_mb"),
    repeat=1,
    default=False,
)
