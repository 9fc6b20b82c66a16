"""Random programs on both runtimes: what differs is shrunk to its smallest program.

The programs are drawn first and then run, some at a time: a run is nearly all waiting. A difference counts only when
the real runtime says the same again and again: a program whose outcome there is a race is recognised by running it
anew. It is left out, unless what is done here is one of its outcomes there. What differs is drawn a second time, from
the same seed, for Hypothesis to shrink it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import trio
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.conformance.compare import Difference, differences
from tests.conformance.live.recorder import ServerEnded, record_run
from tests.conformance.live.workerd import Workerd, workerd
from tests.conformance.programs import Tally, programs
from tests.conformance.runner import record

AGAIN = 3
HERE = 3
BATCH = 400
STAGGER_S = 0.1  # many that begin at the same time would make each other's first steps late
Trace = Mapping[str, Any]


class Differs(AssertionError):
    """The real runtime does something else, every time."""


@attrs.frozen
class Verdict:
    """What came of one program.

    Attributes:
        texts: what differs, first thing first; empty when nothing does.
        trace: on the real runtime.
        race: it has more than one outcome there, or none: some end the server.
    """

    texts: tuple[str, ...] = ()
    trace: Trace = attrs.field(factory=dict)
    race: bool = False


@attrs.define
class Outcome:
    """What a run of random programs came to.

    Attributes:
        tally: of the programs that were run, without those of shrinking and those that are races.
        races: how many had no one outcome on the real runtime.
        seconds: how long it took, without shrinking.
        found: the smallest program that differs, None when there was none; its trace there; what differs.
        found_after: how many programs were run until one differed.
    """

    tally: Tally = attrs.field(factory=Tally)
    races: int = 0
    seconds: float = 0.0
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
    """Programs on both runtimes, each once: what came of one is remembered by its text.

    Args:
        server: the real runtime.
        beside: another tree of this project; what it does differently from the real runtime too does not count.
    """

    server: Workerd
    beside: Path | None = None
    _verdicts: dict[str, Verdict] = attrs.field(factory=dict)

    async def run(self, drawn: Sequence[Trace]) -> list[Verdict]:
        """What came of some programs."""
        new = {text: program for program in drawn if (text := json.dumps(program)) not in self._verdicts}
        # Before, not meanwhile: it would make the outside world's steps there late.
        here = {text: await trio.to_thread.run_sync(_outcomes, one) for text, one in new.items()}  # noqa: TID251 -- has its own loop
        await self._judge_all([(text, new[text], here[text]) for text in new])
        return [self._verdicts[json.dumps(program)] for program in drawn]

    async def _judge_all(self, new: list[tuple[str, Trace, list[Trace]]]) -> None:
        """Run them, one beginning while the others run; where one ends the server for all, the rest in halves."""
        async with trio.open_nursery() as nursery:
            for one in new:
                nursery.start_soon(self._judge, *one)
                await trio.sleep(STAGGER_S)
        await self.server.revive()
        rest = [one for one in new if one[0] not in self._verdicts]
        if len(rest) == len(new) == 1:
            self._verdicts[rest[0][0]] = Verdict(race=True)
        elif rest:
            middle = (len(rest) + 1) // 2
            await self._judge_all(rest[:middle])
            await self._judge_all(rest[middle:])

    async def _judge(self, text: str, program: Trace, here: list[Trace]) -> None:
        try:
            self._verdicts[text] = await self._compared(program, here)
        except ServerEnded:
            return

    async def _compared(self, program: Trace, here: list[Trace]) -> Verdict:
        there = each_caller(await record_run(self.server, program))
        found, race = _least(there, here), False
        for _ in range(AGAIN if found else 0):
            again = each_caller(await record_run(self.server, program))
            if not _least(again, here):
                return Verdict()
            race = race or bool(differences(there, again))
        if race:
            return Verdict(race=True)
        if found and self.beside is not None:
            beside = await trio.to_thread.run_sync(_recorded_in, self.beside, program)  # noqa: TID251 -- a process
            if differences(there, beside):
                return Verdict()
        return Verdict(tuple(str(one) for one in found), there)


def _outcomes(program: Trace) -> list[Trace]:
    """What it comes to here: more than one thing when tasks of several actors are ready at the same moment."""
    found: list[Trace] = []
    for _ in range(HERE):
        trace = each_caller(record(program))
        if all(differences(trace, other) for other in found):
            found.append(trace)
    return found


def _least(there: Trace, here: list[Trace]) -> list[Difference]:
    return min((differences(there, one) for one in here), key=len)


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
    drawn: list[Trace] = []
    _draw(count, start, drawn.append)
    async with workerd(program) as server:
        comparison = Comparison(server, beside)
        began = trio.current_time()
        for index in range(0, len(drawn), BATCH):
            batch = drawn[index : index + BATCH]
            verdicts = await comparison.run(batch)
            for one, verdict in zip(batch, verdicts, strict=True):
                _count(outcome, one, verdict, keep)
            outcome.seconds = trio.current_time() - began
            if outcome.found is not None:
                break
        if outcome.found is not None and beside is None:
            await _shrink(comparison, outcome, count, start)
    return outcome


def _count(outcome: Outcome, program: Trace, verdict: Verdict, keep: Path | None) -> None:
    if outcome.found is not None:
        return
    if verdict.race:
        outcome.races += 1
        return
    outcome.tally.add(program)
    if not verdict.texts:
        return
    number = outcome.tally.programs
    if keep is None:
        outcome.found, outcome.found_after = program, number
        outcome.trace, outcome.texts = verdict.trace, list(verdict.texts)
        return
    outcome.texts.append(f"{number}: {verdict.texts[0]}")
    kept = {"program": program, "trace": verdict.trace, "differences": verdict.texts}
    (keep / f"{number}.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")


def _draw(count: int, start: int, take: Callable[[Trace], None], *phases: Phase) -> None:
    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, *phases],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(programs())
    def run(program: Trace) -> None:
        take(program)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what an abort leaves unawaited
        run()


async def _shrink(comparison: Comparison, outcome: Outcome, count: int, start: int) -> None:
    first = outcome.found

    def take(program: Trace) -> None:
        if outcome.found is first and program != first:
            return  # those before it do not differ
        (verdict,) = trio.from_thread.run(comparison.run, (program,))
        if verdict.texts:
            outcome.found, outcome.trace, outcome.texts = program, verdict.trace, list(verdict.texts)
            raise Differs(verdict.texts[0])

    try:
        await trio.to_thread.run_sync(_draw, count, start, take, Phase.shrink)  # noqa: TID251 -- Hypothesis has no other way
    except Differs:
        return
