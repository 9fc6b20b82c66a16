"""`python -m tests.conformance.live`: record the scenarios anew, compare random programs, find the planted bugs."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import click
import structlog
import trio

from tests.conformance.compare import accepted, differences
from tests.conformance.live.differential import AGAIN, Outcome, compare_programs
from tests.conformance.live.planted import PATCHES, with_planted
from tests.conformance.live.recorder import record_alone
from tests.conformance.live.workerd import NoWorkerd, install
from tests.conformance.runner import record

HERE = Path(__file__).parent.parent
BUILD = HERE.parent.parent / "build" / "conformance"
AT_ONCE = 3
PLANTED_PROGRAMS = 100


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """The real runtime beside this one; without a command: record, then random."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    if context.invoked_subcommand is None:
        same = _record((), slow=False)
        sys.exit(0 if _random(2000, 0, None) and same else 1)


@main.command("record")
@click.argument("names", nargs=-1)
@click.option("--slow", is_flag=True, help="Also the scenarios that take minutes.")
def record_command(names: tuple[str, ...], slow: bool) -> None:
    """Runs the scenarios on the real runtime and compares with the committed traces."""
    sys.exit(0 if _record(names, slow=slow) else 1)


@main.command("random")
@click.option("--programs", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--keep", type=click.Path(path_type=Path), help="A folder for every difference; do not stop at the first."
)
@click.option("--beside", type=click.Path(path_type=Path), help="A tree: what differs there too does not count.")
def random_command(programs: int, seed: int, keep: Path | None, beside: Path | None) -> None:
    """Compares random programs and shrinks the first difference."""
    sys.exit(0 if _random(programs, seed, keep, beside) else 1)


@main.command("here")
def here_command() -> None:
    """Runs the program on standard input on this runtime alone and prints its trace."""
    click.echo(json.dumps(record(json.load(sys.stdin))))


@main.command("planted")
@click.option("--seed", type=int, default=0, show_default=True)
def planted_command(seed: int) -> None:
    """Plants each bug into a copy of the tree and looks for it."""
    _install()
    found = [with_planted(patch, PLANTED_PROGRAMS, seed) for patch in PATCHES]
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


def _random(programs: int, seed: int, keep: Path | None, beside: Path | None = None) -> bool:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    outcome = trio.run(partial(compare_programs, _install(), programs, seed, keep, beside))
    click.echo(_report(outcome, seed))
    lacking = outcome.tally.lacking() if outcome.found_after is None else []
    if lacking:
        click.echo(f"too few programs with: {', '.join(lacking)}")
    return not (outcome.texts or lacking)


def _report(outcome: Outcome, seed: int) -> str:
    rate = (outcome.tally.programs + outcome.races) / outcome.seconds
    run = f"{outcome.tally.programs} programs (seed {seed}), {rate:.1f} a second"
    left_out = f"{outcome.races} more have several outcomes there, none of them the one here"
    lines = [f"{run}; {left_out}", str(outcome.tally)]
    if outcome.found is not None:
        lines += [f"difference after {outcome.found_after} programs; the smallest program:", json.dumps(outcome.found)]
        lines += ["its trace on the real runtime:", json.dumps(outcome.trace)]
    return "\n".join([*lines, *outcome.texts])


if __name__ == "__main__":
    main()
