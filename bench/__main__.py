"""The command line of the bench: `python -m bench list | run NAME… | compare A.json B.json`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from bench import (
    activation,
    call,
    connect,
    console,
    durable,
    fairness,
    fanout,
    filters,
    latency,
    memory,
    peers,
    recovery,
    scale,
    scroll,
    sdk,
    semantics,
    service,
    sim,
    soak,
    storage,
    storm,
    stuck,
    wake,
)
from bench.chart import chart
from bench.machine import machine_facts, pick_cores
from bench.measure import BenchError, Measure, Sample, Setting, in_turn, judge
from bench.report import FORMAT, Outcome, Report, compare_text, outcome_text, read_report, write_report

FOLDER = Path(__file__).parent
_MODULES = (
    fanout,
    latency,
    stuck,
    service,
    connect,
    memory,
    call,
    storage,
    wake,
    storm,
    scale,
    console,
    scroll,
    fairness,
    activation,
    filters,
    durable,
    soak,
    sdk,
    peers,
    semantics,
    recovery,
    sim,
)
MEASURES = {module.MEASURE.name: module.MEASURE for module in _MODULES}


def run_measure(measure: Measure, setting: Setting, repeat: int) -> Outcome:
    """Takes the subjects in turn inside each repetition; one that cannot run is reported and the rest goes on."""
    samples: list[Sample] = []
    failures: list[str] = []
    for repetition in range(repeat):
        for subject in in_turn(measure.subjects, repetition):
            click.echo(f"{measure.name} {repetition + 1}/{repeat}: {subject}", err=True)
            try:
                cases = measure.run(subject, setting)
            except BenchError as error:
                failures.append(f"{subject}: {error}")
                click.echo(f"  failed: {error}", err=True)
                continue
            samples.extend(
                Sample(repetition=repetition, server=subject, case=case, figures=dict(figures))
                for case, figures in cases.items()
            )
    judged = [judge(claim, samples) for claim in measure.claims(setting)]
    return Outcome(
        measure=measure.name,
        repeat=repeat,
        samples=samples,
        judged=judged,
        failures=list(dict.fromkeys(failures)),
        shown=list(measure.shown),
    )


@click.group()
def main() -> None:
    """Measures the service beside the physical limit and its peers."""


@main.command("list")
def list_measures() -> None:
    """Shows the measures."""
    for measure in MEASURES.values():
        mark = "*" if measure.default else " "
        click.echo(f"{mark} {measure.name:10} {measure.summary}")
    click.echo("(* runs when no name is given)")


@main.command()
@click.argument("names", nargs=-1, type=click.Choice(list(MEASURES)))
@click.option("--quick", is_flag=True, help="Short phases, one repetition: shows that it works, not how fast.")
@click.option("--repeat", type=click.IntRange(1, 100), help="Repetitions (3; 1 for service and with --quick).")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Where the result goes (bench/results/).")
@click.option("--check", is_flag=True, help="Exit with 1 when a floor is not reached or not measured.")
@click.option("--subscribers", type=click.IntRange(2, 19_000), help="Connections, instead of the measure's own.")
@click.option("--windows", help="Signals in flight of fanout, for example 4 or 1,4,16.")
@click.option("--minutes", type=click.FloatRange(0.5, 1_440), help="Length of soak (6).")
@click.option("--cores", help="SERVER,LOAD (the first two usable cores).")
def run(
    names: tuple[str, ...],
    quick: bool,
    repeat: int | None,
    path: Path | None,
    check: bool,
    subscribers: int | None,
    windows: str | None,
    minutes: float | None,
    cores: str | None,
) -> None:
    """Runs measures, prints their tables and writes the result as JSON."""
    chosen = [MEASURES[name] for name in names] or [one for one in MEASURES.values() if one.default]
    started = datetime.now(UTC)
    try:
        server_core, load_core = pick_cores(_pair(cores))
        machine = machine_facts()
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    setting = Setting(
        quick=quick,
        server_core=server_core,
        load_core=load_core,
        build=FOLDER / "build",
        subscribers=subscribers,
        windows=None if windows is None else _numbers("--windows", windows),
        minutes=minutes,
    )
    outcomes: list[Outcome] = []
    for measure in chosen:
        outcomes.append(run_measure(measure, setting, repeat or (1 if quick else measure.repeat)))
        click.echo("\n" + outcome_text(outcomes[-1]))
    report = Report(
        format=FORMAT,
        started=started.isoformat(timespec="seconds"),
        quick=quick,
        pinned=f"server on core {server_core}, load on core {load_core}",
        machine=machine,
        outcomes=outcomes,
    )
    path = path or FOLDER / "results" / f"{started:%Y%m%d-%H%M%S}.json"
    write_report(report, path)
    click.echo(_closing(report, path))
    sys.exit(1 if check and not _all_floors(outcomes) else 0)


@main.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
def compare(before: Path, after: Path) -> None:
    """Shows two results beside each other."""
    try:
        click.echo(compare_text(read_report(before), read_report(after)))
    except BenchError as error:
        raise click.ClickException(str(error)) from error


@main.command("chart")
@click.argument("result", type=click.Path(path_type=Path))
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--measure", default="peers", show_default=True)
@click.option("--case", default="window 4", show_default=True)
@click.option("--figure", default="deliveries_per_s", show_default=True)
@click.option("--title", default="Deliveries per second, 1,000 subscribers, 4 signals in flight", show_default=True)
def chart_command(result: Path, picture: Path, measure: str, case: str, figure: str, title: str) -> None:
    """Draws one figure of a result as an SVG."""
    try:
        picture.write_text(chart(read_report(result), measure, case, figure, title))
    except BenchError as error:
        raise click.ClickException(str(error)) from error


def _closing(report: Report, path: Path) -> str:
    machine = report.machine
    where = f"{machine.processor}, {machine.cores} cores, {machine.system}; {report.pinned}"
    lines = [
        f"{where}; load before the run {machine.load_before:.1f}; commit {machine.commit}",
        f"result in {path}",
    ]
    if machine.cores == 1:
        lines.insert(0, "Only one core: server and load shared it, so no figure here means much.")
    return "\n".join(lines)


def _all_floors(outcomes: Sequence[Outcome]) -> bool:
    reached = ("floor", "goal")
    return all(judged.verdict in reached for outcome in outcomes for judged in outcome.judged)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) >= 0 for part in parts):
        raise click.BadParameter(f"{text!r} is not a list of whole numbers such as 1,4,16", param_hint=option)
    return tuple(map(int, parts))


def _pair(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    numbers = _numbers("--cores", text)
    if len(numbers) != 2:
        raise click.BadParameter(f"{text!r} is not SERVER,LOAD such as 0,1", param_hint="--cores")
    return numbers[0], numbers[1]


if __name__ == "__main__":
    main()
