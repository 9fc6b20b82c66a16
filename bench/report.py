"""Results as JSON and as readable tables, and two results beside each other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs
import cattrs

from bench.machine import Machine
from bench.measure import BenchError, Judged, Operand, Sample, Spread, spreads

FORMAT = 1


@attrs.frozen(kw_only=True)
class Outcome:
    """One measure of a run.

    Attributes:
        failures: what could not be measured, "server: why".
        shown: the figures of the readable table.
    """

    measure: str
    repeat: int
    samples: list[Sample]
    judged: list[Judged]
    failures: list[str]
    shown: list[str]


@attrs.frozen(kw_only=True)
class Report:
    """One run of the bench."""

    format: int
    started: str
    quick: bool
    pinned: str
    machine: Machine
    outcomes: list[Outcome]


def write_report(report: Report, path: Path) -> None:
    """Writes it as JSON, with medians and ranges beside the samples they come from."""
    document = cattrs.unstructure(report)
    for outcome, plain in zip(report.outcomes, document["outcomes"], strict=True):
        plain["spreads"] = [
            attrs.asdict(operand) | attrs.asdict(spread) for operand, spread in spreads(outcome.samples).items()
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def read_report(path: Path) -> Report:
    """Reads one back.

    Raises:
        BenchError: it cannot be read, or is not a result of this bench.
    """
    try:
        document = json.loads(path.read_text())
        seen = document.get("format") if isinstance(document, dict) else None
        if seen != FORMAT:
            raise BenchError(f"{path} is not a result of this bench: format {seen!r}, not {FORMAT}")
        return cattrs.structure(document, Report)
    except (OSError, ValueError, cattrs.BaseValidationError) as error:
        raise BenchError(f"{path} cannot be read as a result of this bench: {error}") from error


def outcome_text(outcome: Outcome) -> str:
    """The tables of one measure: figures by server and case, then floor, goal and measured."""
    found = spreads(outcome.samples)
    rows = dict.fromkeys((sample.case, sample.server) for sample in outcome.samples)
    figures = [figure for figure in outcome.shown if any(operand.figure == figure for operand in found)]
    parts = [f"## {outcome.measure}, median [range] of {outcome.repeat}\n"]
    if rows:
        body = [
            [case, server, *(_cell(found.get(Operand(server, case, figure))) for figure in figures)]
            for case, server in sorted(rows, key=lambda row: row[0])
        ]
        parts.append(_table(["case", "server", *figures], body))
    if outcome.judged:
        parts.append(_table(["target", "floor", "goal", "measured", "verdict"], map(_judged_row, outcome.judged)))
    parts.extend(f"FAILED {failure}\n" for failure in outcome.failures)
    return "\n".join(parts)


def compare_text(before: Report, after: Report) -> str:
    """Each figure of both results, and the second as a multiple of the first."""
    old, new = (
        {
            (outcome.measure, operand): spread
            for outcome in report.outcomes
            for operand, spread in spreads(outcome.samples).items()
            if operand.figure in outcome.shown
        }
        for report in (before, after)
    )
    rows = [
        [
            measure,
            operand.case,
            operand.server,
            operand.figure,
            _cell(old[key]),
            _cell(new[key]),
            _times(old[key], new[key]),
        ]
        for key in old
        if key in new
        for measure, operand in [key]
    ]
    if not rows:
        raise BenchError("the two results have no figure in common")
    notes = []
    if before.machine.processor != after.machine.processor or before.machine.cores != after.machine.cores:
        notes.append(f"Different machines: {before.machine.processor} and {after.machine.processor}.\n")
    if before.quick or after.quick:
        notes.append("At least one of them is a quick run: it shows that things work, not how fast.\n")
    header = ["measure", "case", "server", "figure", before.machine.commit, after.machine.commit, "x"]
    return "\n".join([*notes, _table(header, rows)])


def _times(old: Spread, new: Spread) -> str:
    return f"{new.median / old.median:.2f}" if old.median else "-"


def _judged_row(judged: Judged) -> list[str]:
    sign = ">=" if judged.better == "higher" else "<="
    return [
        judged.name,
        f"{sign} {_number(judged.floor)}",
        "-" if judged.goal is None else f"{sign} {_number(judged.goal)}",
        _cell(judged.measured),
        judged.verdict,
    ]


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    if spread.least == spread.most:
        return _number(spread.median)
    return f"{_number(spread.median)} [{_number(spread.least)}..{_number(spread.most)}]"


def _number(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1e6:.2f}M"
    if value >= 10_000:
        return f"{value / 1e3:.1f}k"
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in body) for column in range(len(header))]
    body.insert(1, ["-" * width for width in widths])
    lines = ("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in body)
    return "\n".join(lines) + "\n"
