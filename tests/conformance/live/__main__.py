"""`python -m tests.conformance.live`: record the scenarios anew, compare random programs, find the planted bugs."""

from __future__ import annotations

import json
import signal
import sys
from functools import partial
from pathlib import Path

import click
import structlog
import trio

from tests.conformance.compare import accepted, differences
from tests.conformance.live.differential import AGAIN, Comparison, RandomRun
from tests.conformance.live.found import write_down
from tests.conformance.live.here import Here, programs_in
from tests.conformance.live.planted import PATCHES, ROOT, first_found, with_bug
from tests.conformance.live.recorder import record_alone
from tests.conformance.live.servers import Servers, servers
from tests.conformance.live.summary import Summary, smallest
from tests.conformance.live.workerd import NoWorkerd, install, workerd

HERE = Path(__file__).parent.parent
BUILD = HERE.parent.parent / "build" / "conformance"
_MEMORY = Path("/dev/shm")  # a disk makes steps late
IN_MEMORY = _MEMORY if _MEMORY.is_dir() else None
AT_ONCE = 3
PROGRAMS = 2000
PLANTED = 100
_SEED = click.option("--seed", type=int, default=0, show_default=True)
_SHRINK = click.option(
    "--shrink", type=click.FloatRange(0), default=60, show_default=True, help="Seconds for each difference; 0: not."
)


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """The real runtime beside this one; without a command: the scenarios, random programs, the planted bugs."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    if context.invoked_subcommand is None:
        same = _record((), slow=False)
        sys.exit(0 if trio.run(partial(_random, _install(), PROGRAMS, 0, 60, bugs=True)) and same else 1)


@main.command("record")
@click.argument("names", nargs=-1)
@click.option("--slow", is_flag=True, help="Also the scenarios that take minutes.")
def record_command(names: tuple[str, ...], slow: bool) -> None:
    """Runs the scenarios on the real runtime and compares with the committed traces."""
    sys.exit(0 if _record(names, slow=slow) else 1)


@main.command("random")
@click.option("--programs", type=click.IntRange(1), default=PROGRAMS, show_default=True)
@click.option("--from", "first", type=click.IntRange(1), default=1, show_default=True, help="The first one's number.")
@_SEED
@_SHRINK
def random_command(programs: int, first: int, seed: int, shrink: float) -> None:
    """Compares random programs on both runtimes, and makes those that differ smaller."""
    sys.exit(0 if trio.run(partial(_random, _install(), programs, seed, shrink, first=first)) else 1)


@main.command("planted")
@_SEED
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="How many, from --seed on.")
@_SHRINK
def planted_command(seed: int, seeds: int, shrink: float) -> None:
    """Plants each bug into a copy of the tree and looks for it."""
    program = _install()
    found = [trio.run(partial(_random, program, PLANTED, one, shrink, bugs=True)) for one in range(seed, seed + seeds)]
    sys.exit(0 if all(found) else 1)


def _install() -> Path:
    try:
        return install(BUILD)
    except NoWorkerd as error:
        raise click.ClickException(str(error)) from error


def _record(names: tuple[str, ...], *, slow: bool) -> bool:
    program = _install()
    scenarios = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((HERE / "scenarios").glob("*.json"))]
    unknown = set(names) - {one["name"] for one in scenarios}
    if unknown:
        raise click.ClickException(
            f"no such scenario: {', '.join(sorted(unknown))}; they are the files of {HERE / 'scenarios'}"
        )
    wanted = [one for one in scenarios if (one["name"] in names if names else slow or not one.get("slow"))]
    failed: list[str] = []
    meant = accepted(HERE / "differences.md")

    async def check(scenario: dict[str, object], limiter: trio.CapacityLimiter) -> None:
        trace = json.loads((HERE / "traces" / f"{scenario['name']}.json").read_text(encoding="utf-8"))
        async with limiter:
            for _ in range(AGAIN):
                # What a new recording has as it is here is no news.
                found = [one for one in differences(trace, await record_alone(program, scenario)) if one not in meant]
                if not found:
                    return
        failed.append(f"{scenario['name']}: {found[0]}")

    async def check_all() -> None:
        limiter = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            for scenario in wanted:
                nursery.start_soon(check, scenario, limiter)

    trio.run(check_all)
    for text in failed:
        click.echo(text)
    click.echo(f"recorded anew: {len(wanted) - len(failed)} same, {len(failed)} different")
    return not failed


async def _random(
    program: Path, programs: int, seed: int, shrink: float, *, first: int = 1, bugs: bool = False
) -> bool:
    """Compare programs, then find the planted bugs with the first of them."""
    async with servers(partial(workerd, program, below=IN_MEMORY)) as there, programs_in(ROOT, IN_MEMORY) as here:
        comparison = Comparison(there, here)
        summary = Summary(seed, programs, BUILD / "found", PLANTED if bugs else 0)
        run = RandomRun(comparison, seed, programs, summary.take, first)
        summary.suspects = lambda: run.suspects
        async with trio.open_nursery() as nursery:
            nursery.start_soon(summary.tell)
            with trio.CancelScope() as scope:
                await nursery.start(_end_with_a_signal, scope)
                await run.run()
            nursery.cancel_scope.cancel()
        click.echo(str(summary))
        if scope.cancelled_caught:
            return False
        await summary.shrink(comparison, shrink)
        found = [await _planted(there, here, patch, summary, shrink) for patch in PATCHES] if bugs else []
    return summary.good and all(found)


async def _end_with_a_signal(
    scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """End a run, so that what is known by then is told; the next signal ends the process."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            click.echo(f"  ended early: {signal.Signals(number).name}")
            scope.cancel()
            return


async def _planted(there: Servers, here: Here, patch: Path, summary: Summary, shrink: float) -> bool:
    with with_bug(patch) as tree:
        async with programs_in(tree, IN_MEMORY) as bug:
            one = await first_found(there, here, bug, sorted(summary.same, key=lambda one: one.number))
            if one is None:
                click.echo(f"planted {patch.stem}: not found in {PLANTED} programs of seed {summary.start}")
                return False
            click.echo(f"planted {patch.stem}: found by program {one.number} of seed {summary.start}")
            if shrink:
                small = await smallest(Comparison(there, bug, here), one, shrink)
                verdict = small.verdict
                path = write_down(BUILD / "planted", patch.stem, small.program, verdict.there, verdict.here)
                click.echo(f"  {verdict.texts[0]}\n  {path}")
    return True


if __name__ == "__main__":
    main()
