"""A run of random programs goes on after a difference, and past a program that ends the real runtime for all."""

from __future__ import annotations

import attrs
import trio

from tests.conformance.live.differential import ENDS, RACE, Judged, RandomRun, Verdict
from tests.conformance.live.summary import DIFFERENCES, Summary
from tests.conformance.programs import drawn


@attrs.define
class Runtimes:
    """Both, as far as a run sees them: a program is its number here."""

    differing: set[int] = attrs.field(factory=set)
    ending: set[int] = attrs.field(factory=set)

    @property
    def here(self):
        return self

    async def drawn(self, start, number):
        return number, {}

    async def look(self, program, trace):
        return await self.judge(program, trace)

    async def judge(self, program, trace):
        await trio.sleep(5)
        if program in self.ending:
            return Verdict(left_out=ENDS)
        return Verdict(("differs",) if program in self.differing else ())


async def judged(runtimes, count, enough=1000, first=1):
    taken: list[Judged] = []

    def take(one):
        taken.append(one)
        return sum(bool(one.verdict.texts) for one in taken) >= enough

    await RandomRun(runtimes, 0, count, take, first).run()
    return {one.number: one.verdict for one in taken}


async def test_every_program_is_judged_once_and_differences_do_not_end_the_run(autojump_clock):
    verdicts = await judged(Runtimes(differing={3, 150}), 300)
    assert sorted(verdicts) == list(range(1, 301))
    assert [number for number, verdict in verdicts.items() if verdict.texts] == [3, 150]


async def test_a_run_begins_at_any_number(autojump_clock):
    assert sorted(await judged(Runtimes(), 40, first=301)) == list(range(301, 341))


async def test_a_run_ends_early_when_it_is_told_that_there_are_enough(autojump_clock):
    verdicts = await judged(Runtimes(differing=set(range(3, 60))), 1000, enough=3)
    assert 3 <= len(verdicts) < 1000


async def test_what_differs_in_a_crowd_is_judged_anew_without_one(autojump_clock):
    class Crowded(Runtimes):
        running = 0

        async def judge(self, program, trace):
            self.running += 1
            crowd = self.running > 50
            verdict = await super().judge(program, trace)
            self.running -= 1
            return verdict if not crowd else Verdict(("late",))

    verdicts = await judged(Crowded(differing={3}), 300)
    assert sorted(verdicts) == list(range(1, 301))
    assert [number for number, verdict in verdicts.items() if verdict.texts] == [3]


async def test_what_ends_the_real_runtime_is_left_out_and_the_others_are_judged(autojump_clock):
    verdicts = await judged(Runtimes(ending={40, 41, 250}, differing={42}), 300)
    assert sorted(verdicts) == list(range(1, 301))
    assert [number for number, verdict in sorted(verdicts.items()) if verdict.left_out] == [40, 41, 250]
    assert verdicts[42].texts


async def test_what_differed_in_a_crowd_and_was_not_judged_anew_is_known(autojump_clock):
    taken = []
    run = RandomRun(Runtimes(differing={3, 4}), 0, 20, taken.append)
    with trio.move_on_after(8):  # the crowd is gone, what differed is judged anew
        await run.run()
    assert run.suspects == 2
    assert [one.number for one in taken if one.verdict.texts] == []


def test_so_many_differences_are_enough_and_each_is_written_down(tmp_path):
    summary = Summary(7, 50, tmp_path, began=0.0, now=lambda: 10.0)
    trace = {"name": "x", "events": []}
    ends = [
        summary.take(Judged(n, drawn(7, n), Verdict(("differs",), trace, trace))) for n in range(1, DIFFERENCES + 1)
    ]
    assert ends == [False] * (DIFFERENCES - 1) + [True]
    assert len(list(tmp_path.glob("*.txt"))) == DIFFERENCES
    assert "10 different" in str(summary)


def test_the_programs_for_the_planted_bugs_are_the_first_on_which_both_agree(tmp_path):
    summary = Summary(7, 50, tmp_path, first=2, began=0.0, now=lambda: 10.0)
    for number, verdict in ((3, Verdict()), (2, Verdict(left_out=RACE)), (1, Verdict())):
        summary.take(Judged(number, drawn(7, number), verdict))
    assert [one.number for one in summary.same] == [1]
    assert "1 races on workerd" in str(summary)


def test_a_run_in_which_programs_were_not_judged_says_so_and_is_not_good(tmp_path):
    summary = Summary(7, 2, tmp_path, suspects=lambda: 1, began=0.0, now=lambda: 10.0)
    summary.take(Judged(1, drawn(7, 1), Verdict()))
    assert "not judged: 1; of these 1 differed once" in str(summary)
    assert not summary.good
    summary.take(Judged(2, drawn(7, 2), Verdict()))
    assert "not judged" not in str(summary)


def test_what_had_to_be_late_for_a_program_to_be_the_same_is_told(tmp_path):
    summary = Summary(7, 3, tmp_path, began=0.0, now=lambda: 10.0)
    for number, how in ((1, ""), (2, "lateCalls"), (3, "lateCalls")):
        summary.take(Judged(number, drawn(7, number), Verdict(how=how)))
    assert "the same only with lateCalls: 2 (2, 3)" in str(summary)
