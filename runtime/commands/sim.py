"""`heliograph sim`: run scenarios in a simulated world, see a failure again, make it small."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from runtime.commands.options import UnusableError

DEFAULT_SCENARIOS = "actors.scenarios_all"
DEFAULT_MUTANTS = "tests/sim/mutants.py"  # of the source tree; what is installed has none
_FAILURES_SHOWN = 3


@click.group()
def sim() -> None:
    """Simulate an app while everything goes wrong: crashes, power cuts, bad disks, networks and clocks."""


def _seeds(_: click.Context, __: click.Parameter, value: str) -> range:
    first, dots, last = value.partition("..")
    try:
        begin = int(first)
        end = int(last) if dots else begin
    except ValueError:
        raise click.BadParameter(f"{value!r} is no range of seeds; write 7 or 1..1000") from None
    if end < begin:
        raise click.BadParameter(f"{value!r} is empty; write the smaller one first")
    return range(begin, end + 1)


def _faults(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    from runtime.sim import Faults

    try:
        return Faults.swarm() if value is None else Faults.swarm(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_FILE = click.argument("file", default=DEFAULT_SCENARIOS, metavar="[FILE]")
_ONLY = click.option("--scenario", "names", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
_FAULTS = click.option(
    "--faults",
    callback=_faults,
    metavar="LIST",
    help="Groups of faults to draw from.  [default: crash,disk,net,clock,slow,evict]",
)
_ORDER = click.option(
    "--order",
    type=click.Choice(["drawn", "shuffle", "delaying", "pct"]),
    default="drawn",
    show_default=True,
    help="Order of the tasks that are ready: any, with one that is late for long, by priorities, or one of these.",
)


@sim.command()
@_FILE
@_ONLY
@_FAULTS
@_ORDER
@click.option("--seeds", default="1..100", show_default=True, callback=_seeds, help="One, or a range such as 1..1000.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes at once.")
@click.option("--in-turn", is_flag=True, help="Each seed runs one of the scenarios, not all of them.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure.")
@click.option("--coverage", is_flag=True, help="What never happened is a failure: a fault, a claim, a point.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("heliograph-sim"),
    show_default=True,
    help="Folder for the timelines of failures.",
)
def run(
    file: str,
    names: Sequence[str],
    faults: Any,
    order: Any,
    seeds: range,
    jobs: int,
    in_turn: bool,
    fail_fast: bool,
    coverage: bool,
    out: Path,
) -> None:
    """Run the scenarios of FILE (a .py file or a module), the signal service's own by default, for many seeds.

    The first failures are shown, each with its timeline as an HTML file. The exit status is 1 when anything failed,
    with --coverage also when something never happened.
    """
    from runtime.sim import simulate
    from runtime.sim.runner import pick, run_seeds

    chosen = _load(lambda: pick(file, names))
    fired: Counter[str] = Counter()
    checked: Counter[str] = Counter()
    passed, failed, events, virtual_s = 0, 0, 0, 0.0
    began, options = _wall(), _options(faults, order)
    with _progress() as progress:
        bar = progress.add_task(", ".join(chosen), total=len(seeds) * (1 if in_turn else len(chosen)))
        for one in run_seeds(file, names, seeds, faults, jobs=jobs, order=order, in_turn=in_turn):
            fired.update(one.fired)
            checked.update(one.checked)
            events += one.count
            virtual_s += one.virtual_s
            passed += not one.text
            failed += bool(one.text)
            progress.update(bar, advance=1, description=f"{one.scenario}: {failed} failed")
            if one.text and failed <= _FAILURES_SHOWN:
                progress.stop()
                page = out / f"{one.scenario}-{one.seed}.html"
                _write_timeline(simulate(chosen[one.scenario], seed=one.seed, faults=faults, order=order), page)
                click.echo(f"{one.text}\n\n  look at {page}")
                click.echo(f"  again   {_again('replay', one.seed, one.scenario, file, options)}")
                click.echo(f"  smaller {_again('shrink', one.seed, one.scenario, file, options)}\n")
                progress.start()
            if one.text and fail_fast:
                break
    took = max(_wall() - began, 1e-9)
    never = _show_counts(fired, checked, faults, [point for one in chosen.values() for point in one.points])
    click.echo(
        f"{events:,} events in {took:.1f} s: {events / took:,.0f} events/s, "
        f"{virtual_s / took:,.0f} virtual seconds/s, {(passed + failed) / took:.1f} runs/s"
    )
    click.echo(f"{passed} passed, {failed} failed")
    if failed or (coverage and never):
        raise SystemExit(1)


def _show_counts(fired: Counter[str], checked: Counter[str], faults: Any, points: Sequence[str]) -> list[str]:
    """Say how often each fault, claim and point came, and return those that never did."""
    from runtime.sim import KINDS
    from runtime.sim.trace import POINT

    reached = dict.fromkeys(sorted(points), 0)
    reached |= {what.removeprefix(POINT): count for what, count in sorted(fired.items()) if what.startswith(POINT)}

    happened = [kind.partition(" in io")[0].partition(" at a point")[0] for kind in faults.kinds]
    counts = {kind: fired[kind] for kind in dict.fromkeys(happened) if kind in KINDS and kind != "sync fails"}
    counts |= {"sync fails": fired["sync fails"]} if "sync fails" in faults.kinds else {}
    click.echo("faults: " + (", ".join(f"{kind} {count}" for kind, count in counts.items()) or "none"))
    click.echo("claims: " + ", ".join(f"{name} {count:,}" for name, count in sorted(checked.items())))
    click.echo("points: " + (", ".join(f"{name} {count:,}" for name, count in reached.items()) or "none"))
    never = [kind for kind, count in {**counts, **checked, **reached}.items() if not count]
    if never:
        why = "more seeds would make them, or the scenario gives no occasion"
        click.echo(f"never happened: {', '.join(never)}; {why}", err=True)
    return never


@sim.command()
@click.argument("seed", type=int)
@_FILE
@_ONLY
@_FAULTS
@_ORDER
@click.option("--events", default=60, show_default=True, help="How many of the last events to show.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the timeline there.")
def replay(seed: int, file: str, names: Sequence[str], faults: Any, order: Any, events: int, html: Path | None) -> None:
    """Run SEED again: the same happens, step by step."""
    from runtime.sim import simulate
    from runtime.sim.runner import pick

    bad = False
    found = _load(lambda: pick(file, names))
    for name, chosen in found.items():
        result = simulate(chosen, seed=seed, faults=faults, order=order)
        if result.ok:  # what failed shows its last events itself
            for event in result.events[-events:]:
                click.echo(str(event))
            click.echo()
        click.echo(f"{result.explain(events)}\n\n{name}: trace {result.digest}")
        if html is not None:
            target = html if len(found) == 1 else html.with_stem(f"{html.stem}-{name}")
            _write_timeline(result, target)
            click.echo(f"timeline: {target}")
        bad = bad or not result.ok
    if bad:
        raise SystemExit(1)


@sim.command()
@click.argument("seed", type=int)
@_FILE
@_ONLY
@_FAULTS
@_ORDER
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the timeline there.")
def shrink(seed: int, file: str, names: Sequence[str], faults: Any, order: Any, html: Path | None) -> None:
    """Find the fewest faults and operations with which SEED still fails."""
    from runtime.sim import simulate
    from runtime.sim.runner import pick
    from runtime.sim.runner import shrink as smallest

    for chosen in _load(lambda: pick(file, names)).values():
        failed = simulate(chosen, seed=seed, faults=faults, order=order)
        if failed.ok:
            click.echo(f"{failed.explain()}; there is nothing to make smaller")
            continue
        with _progress() as progress:
            bar = progress.add_task("", total=None)
            small, runs = smallest(chosen, failed, order=order, tried=partial(_tried, progress, bar))
        operations = "" if small.operations is None else f", {small.operations} operations in each loop"
        click.echo(f"{small.explain()}\n")
        click.echo(f"{len(failed.plan)} faults became {len(small.plan)}{operations}, after {runs} runs")
        if html is not None:
            _write_timeline(small, html)
            click.echo(f"timeline: {html}")
        raise SystemExit(1)


@sim.command()
@_FILE
@_ONLY
@_FAULTS
@click.option("--seeds", default="1..20", show_default=True, callback=_seeds, help="One, or a range such as 1..50.")
def determinism(file: str, names: Sequence[str], faults: Any, seeds: range) -> None:
    """Run each seed in two processes whose hashes differ, and twice in each; all four must do the same."""
    from runtime.sim.runner import pick

    chosen = list(_load(lambda: pick(file, names)))
    found = _digests(json.dumps([file, chosen, list(faults.kinds), seeds.start, seeds.stop]), len(seeds) * len(chosen))
    differ = [key for key in found[0] if found[0][key] != found[1].get(key)]
    for key in differ:
        click.echo(f"{key}: {found[0][key]} and {found[1].get(key)}")
    click.echo(f"{len(found[0]) - len(differ)} the same, {len(differ)} different")
    if differ:
        raise SystemExit(1)


@sim.command()
@click.argument("file", type=click.Path(path_type=Path), default=DEFAULT_MUTANTS)
@click.option("--only", "names", multiple=True, metavar="TEXT", help="Only those with this in their name.")
@click.option("--seeds", type=click.IntRange(1), help="Run so many of each and measure the median anew.")
def mutants(file: Path, names: Sequence[str], seeds: int | None) -> None:
    """Plant the bugs of FILE one at a time and show how many seeds it takes to find each.

    FILE is of the tests; without it, the one of Heliograph's own source tree. Each bug has its measured median number
    of seeds, and has to be found within four times as many; the exit status is 1 when one was not.
    """
    from runtime.sim.mutants import first_seed, hunt, load_mutants, median

    found = _load(lambda: load_mutants(file))
    missed = 0
    click.echo(f"{'row':<4} {'planted bug':<62} {'found by':<28} {'median':>6} {'seeds':>8}")
    for bug in found.values():
        if names and not any(name in bug.name for name in names):
            continue
        if seeds is None:
            first = first_seed(bug)
            text, measured = "none" if first is None else str(first), str(bug.median)
        else:
            failing = sum(not result.ok for result in hunt(bug, range(1, seeds + 1)))
            first = median(failing, seeds)
            text, measured = f"{failing}/{seeds}", "none" if first is None else str(first)
        missed += first is None
        click.echo(f"{bug.row:<4} {bug.name:<62} {bug.scenario:<28} {measured:>6} {text:>8}")
    click.echo(f"{missed} not found" if missed else "all found")
    if missed:
        raise SystemExit(1)


def _tried(progress: Progress, bar: TaskID, runs: int, best: Any) -> None:
    progress.update(bar, completed=runs, description=f"{len(best.plan)} faults left")


def _digests(arguments: str, count: int) -> list[dict[str, str]]:
    """Those of two processes at once, each with hashes of its own, by scenario and seed."""
    found: list[dict[str, str]] = []
    with _progress() as progress, contextlib.ExitStack() as stack:
        bar = progress.add_task("in two processes", total=2 * count)
        processes = [
            stack.enter_context(
                subprocess.Popen(  # noqa: S603 -- this very Python
                    [sys.executable, "-m", "runtime.sim.digests", arguments],
                    env={**os.environ, "PYTHONHASHSEED": hash_seed},
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for hash_seed in ("1", "2")
        ]
        for process in processes:
            assert process.stdout is not None
            digests: dict[str, str] = {}
            for line in process.stdout:
                name, digest = json.loads(line)
                digests[name] = digest
                progress.advance(bar)
            found.append(digests)
    for process in processes:
        if process.returncode:
            raise click.ClickException(f"a process has ended with the exit status {process.returncode}")
    return found


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _write_timeline(result: Any, path: Path) -> None:
    from runtime.sim.timeline import timeline

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(timeline(result), encoding="utf-8")


def _load(pick: Any) -> Any:
    from runtime.sim.mutants import NoMutants
    from runtime.sim.runner import NoScenario

    try:
        return pick()
    except (NoScenario, NoMutants, ImportError) as error:
        raise UnusableError(str(error)) from error


def _again(command: str, seed: int, name: str, file: str, options: str) -> str:
    where = "" if file == DEFAULT_SCENARIOS else f" {shlex.quote(file)}"
    return f"heliograph sim {command} {seed}{where} --scenario {name}{options}"


def _options(faults: Any, order: str) -> str:
    from runtime.sim import GROUPS, KINDS

    groups = dict.fromkeys(KINDS[kind].group for kind in faults.kinds)
    chosen = "" if len(groups) == len(GROUPS) else f" --faults {shlex.quote(','.join(groups))}"
    return chosen + ("" if order == "drawn" else f" --order {order}")


def _wall() -> float:
    from runtime.platform import real_platform

    return real_platform().now()
