"""Random programs on both runtimes: what differs is shrunk to its smallest program.

A difference counts only when the real runtime says the same again and again: a program whose outcome there is a race
is recognised by running it anew, and left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import trio
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.conformance.compare import differences
from tests.conformance.live.recorder import record_run
from tests.conformance.live.workerd import Workerd, workerd
from tests.conformance.programs import Tally, programs
from tests.conformance.runner import record

AGAIN = 3
Trace = Mapping[str, Any]


class Differs(AssertionError):
    """The real runtime does something else, every time."""


@attrs.define
class Outcome:
    """What a run of random programs came to.

    Attributes:
        tally: of the programs that were generated, without those of shrinking.
        races: how many had no one outcome on the real runtime.
        found: the smallest program that differs, None when there was none; its trace there; what differs.
        found_after: how many programs were run until one differed.
    """

    tally: Tally = attrs.field(factory=Tally)
    races: int = 0
    found: Trace | None = None
    trace: Trace | None = None
    found_after: int | None = None
    texts: list[str] = attrs.field(factory=list)


def each_caller(trace: Trace) -> Trace:
    """The same trace with a `who` for each event of the driver: which of two callers hears first is no rule's."""
    events = [
        [f"{who} {label.partition('.')[0]}" if who == "driver" else who, label, *value]
        for who, label, *value in trace["events"]
    ]
    return {**trace, "events": events}


@attrs.define
class Comparison:
    """One program on both runtimes."""

    live: Callable[[Trace], Trace]
    outcome: Outcome
    keep: Path | None = None
    beside: Path | None = None

    def __call__(self, program: Trace) -> None:
        """Compare.

        Raises:
            Differs: with what differs.
        """
        if self.outcome.found_after is None:
            self.outcome.tally.add(program)
        here = each_caller(record(program))
        there = each_caller(self.live(program))
        found = differences(there, here)
        for _ in range(AGAIN if found else 0):
            again = each_caller(self.live(program))
            if differences(there, again) or not differences(again, here):
                self.outcome.races += 1
                return
        if not found or (self.beside is not None and differences(there, _recorded_in(self.beside, program))):
            return
        if self.keep is not None:
            self._save(program, there, [str(one) for one in found])
            return
        if self.outcome.found_after is None:
            self.outcome.found_after = self.outcome.tally.programs
        self.outcome.found, self.outcome.trace = program, there
        self.outcome.texts = [str(one) for one in found]
        raise Differs(self.outcome.texts[0])

    def _save(self, program: Trace, trace: Trace, texts: list[str]) -> None:
        assert self.keep is not None
        number = self.outcome.tally.programs
        self.outcome.texts.append(f"{number}: {texts[0]}")
        text = json.dumps({"program": program, "trace": trace, "differences": texts}, indent=1)
        (self.keep / f"{number}.json").write_text(text, encoding="utf-8")


def _recorded_in(tree: Path, program: Trace) -> Trace:
    command = [sys.executable, "-W", "ignore", "-m", "tests.conformance.live", "here"]
    done = subprocess.run(command, cwd=tree, input=json.dumps(program), capture_output=True, text=True, check=True)
    return each_caller(json.loads(done.stdout))


async def compare_programs(
    program: Path, count: int, start: int, keep: Path | None = None, beside: Path | None = None
) -> Outcome:
    """Run random programs until one differs, and shrink that one.

    Args:
        program: the real runtime.
        count: how many programs. start: the seed they come from.
        keep: a folder where each difference is written as it is instead, without stopping.
        beside: another tree of this project; only what it does as the real runtime does counts, and nothing is shrunk.
    """
    outcome = Outcome()
    async with workerd(program) as server:
        await trio.to_thread.run_sync(_generate, server, outcome, count, start, keep, beside)  # noqa: TID251 -- Hypothesis
    return outcome


def _generate(
    server: Workerd, outcome: Outcome, count: int, start: int, keep: Path | None, beside: Path | None
) -> None:
    def live(program: Trace) -> Trace:
        return trio.from_thread.run(record_run, server, program)

    compare = Comparison(live, outcome, keep, beside)
    phases = [Phase.generate] if keep or beside else [Phase.generate, Phase.shrink]

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(programs())
    def run(program: Trace) -> None:
        compare(program)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what an abort leaves unawaited
        try:
            run()
        except Differs:
            return
