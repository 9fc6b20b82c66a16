"""A tree runs programs in a process of its own; an answer is never taken for that of another program."""

from __future__ import annotations

import trio

from tests.conformance.live.here import each_caller, programs_in
from tests.conformance.live.planted import ROOT
from tests.conformance.programs import drawn


async def test_what_a_question_that_was_given_up_asked_is_not_the_next_ones_answer():
    first, second = drawn(5, 1), drawn(5, 2)
    async with programs_in(ROOT) as here:
        await here.trace(first)
        with trio.CancelScope() as scope:
            scope.cancel()
            await here.trace(first)
        trace = await here.trace(second)
    assert trace["name"] == second["name"]


async def test_a_program_by_its_number_comes_with_its_trace():
    async with programs_in(ROOT) as here:
        program, trace = await here.drawn(5, 3)
    assert program == drawn(5, 3)
    assert trace["name"] == program["name"]


async def test_a_call_that_arrives_after_its_callers_next_turn_is_an_outcome_too():
    spawned = ["spawn", "call", [["show", "leaf", ["call", "B", "leaf"]]]]
    program = {
        "name": "late-call",
        "actors": {
            "A": {"methods": {"go": [spawned, ["block", [["throw", "failed"]]]]}},
            "B": {"methods": {"leaf": [["log", "leaf"]]}},
        },
        "steps": [["drive", [["show", "go", ["call", "A", "go"]]]]],
    }
    async with programs_in(ROOT) as here:
        first = await here.trace(program)
        outcomes = await here.outcomes(program, first, 1)
    assert {["B", "leaf"] in one["events"] for one in outcomes} == {True, False}


def test_each_caller_of_the_driver_is_one_for_itself():
    assert each_caller({"events": [["driver", "r0.1", 1], ["A", "n", 2]]})["events"] == [
        ["driver r0", "r0.1", 1],
        ["A", "n", 2],
    ]
