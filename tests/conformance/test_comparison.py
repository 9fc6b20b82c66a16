"""What counts as a difference: what the real runtime says every time, and this one never."""

from __future__ import annotations

import attrs
import pytest

from tests.conformance.live.differential import ENDS, LOST, RACE, Comparison
from tests.conformance.live.here import Outcomes
from tests.conformance.live.recorder import ServerEnded

PROGRAM = {"name": "p"}


def trace(text):
    return {"name": "p", "events": [["A", text]]}


@attrs.define
class There:
    """The real runtime, with what it says one time after another."""

    says: list[str]

    async def record(self, program):
        if not self.says:
            raise ServerEnded
        return trace(self.says.pop(0))


@attrs.define
class Here:
    """This one: what a program does as it is, and when something is late."""

    plain: str
    late: str = "late"

    async def trace(self, program):
        return trace(self.late if "late" in program else self.plain)

    def outcomes(self, program, first, times):
        return Outcomes(self, [(first, "")], [(program, "")] * (times - 1) + [({**program, "late": 1}, "late")])


async def judged(says, here=None, beside=None):
    return await Comparison(There(says), here or Here("a"), beside).judge(PROGRAM)


async def test_what_is_the_same_at_once_is_looked_at_once():
    there = There(["a", "b"])
    assert not (await Comparison(there, Here("a")).judge(PROGRAM)).texts
    assert there.says == ["b"]


async def test_what_differs_four_times_differs():
    assert (await judged(["b"] * 4)).texts == ('A 0: recorded ["b"], here ["a"]',)


@pytest.mark.parametrize("says", [["b", "a"], ["b", "c", "b", "a"]])
async def test_what_is_the_same_once_is_the_same(says):
    verdict = await judged(says)
    assert not verdict.texts
    assert not verdict.left_out


async def test_what_is_the_same_only_when_something_is_late_says_so():
    assert (await judged(["late"] * 4)).how == "late"
    assert (await judged(["b", "late", "b", "b"])).how == "late"


async def test_what_the_real_runtime_does_in_several_ways_of_which_none_is_done_here_is_a_race():
    assert (await judged(["b", "c", "b", "b"])).left_out == RACE


async def test_what_differs_and_may_have_lost_a_write_there_is_left_out():
    first = {**trace("a"), "lost": True}
    assert (await Comparison(There(["b"] * 4), Here("a")).judge(PROGRAM, first)).left_out == LOST
    assert not (await Comparison(There(["a"]), Here("a")).judge(PROGRAM, first)).left_out


async def test_what_ends_the_real_runtime_says_nothing():
    assert (await judged([])).left_out == ENDS
    assert (await judged(["b", "b"])).left_out == ENDS


async def test_what_the_tree_without_the_bug_does_differently_too_does_not_count():
    assert not (await judged(["b"] * 4, beside=Here("c"))).texts
    assert (await judged(["b"] * 4, beside=Here("b"))).texts
