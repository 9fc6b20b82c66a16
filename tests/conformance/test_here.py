"""A tree runs programs in a process of its own; an answer is never taken for that of another program."""

from __future__ import annotations

import json

import trio

from tests.conformance.live.here import each_caller, programs_in
from tests.conformance.live.planted import ROOT
from tests.conformance.programs import drawn


async def every_outcome(here, program):
    outcomes = here.outcomes(program, await here.trace(program), 1)
    assert await outcomes.how({"name": program["name"], "events": []}) is None
    return [trace for trace, _ in outcomes.found]


async def test_what_a_question_that_was_given_up_asked_is_not_the_next_ones_answer():
    first, second = drawn(5, 1), drawn(5, 2)
    async with programs_in(ROOT) as here:
        await here.trace(first)
        with trio.CancelScope() as scope:
            scope.cancel()
            await here.trace(first)
        trace = await here.trace(second)
    assert trace["name"] == second["name"]


async def test_nothing_is_left_of_a_process_that_was_ended(tmp_path):
    async with programs_in(ROOT, tmp_path) as here:
        await here.trace(drawn(5, 1))
        assert [path.name for path in tmp_path.glob("*")] != []
    assert list(tmp_path.glob("*")) == []


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
        outcomes = await every_outcome(here, program)
    assert {["B", "leaf"] in one["events"] for one in outcomes} == {True, False}


async def test_a_reply_that_the_next_event_takes_away_with_the_instance_is_an_outcome_too():
    program = {
        "name": "late-reply",
        "actors": {
            "A": {"methods": {"go": [["block", [["sleep", 100]]], ["return", "ok"]], "end": [["abort", "over"]]}},
        },
        "steps": [
            ["driveBg", "r0", [["show", "r0", ["call", "A", "go"]]], 10],
            ["driveBg", "r1", [["show", "r1", ["call", "A", "end"]]], 10],
            ["joinBg", "r0"],
            ["joinBg", "r1"],
        ],
    }
    async with programs_in(ROOT) as here:
        outcomes = await every_outcome(here, program)
    assert {["driver r0", "r0", "ok"] in one["events"] for one in outcomes} == {True, False}


async def test_one_message_of_a_socket_waits_for_the_turn_as_on_the_real_runtime():
    path = ROOT / "tests" / "conformance" / "scenarios" / "ws-frames-wait-one-at-a-time.json"
    async with programs_in(ROOT) as here:
        trace = await here.trace(json.loads(path.read_text()))
    assert [value for who, _, *value in trace["events"] if who == "A"] == [[], ["first"], ["second"], [], ["third"]]


async def test_an_eviction_right_behind_a_write_is_told():
    def program(*rest):
        event = [["timer", 300, [["put", "k", 2], *rest]]]
        steps = [["drive", [["call", "A", "go"]]], ["sleep", 50], ["evict", "A"]]
        return {"name": "evicted", "actors": {"A": {"methods": {"go": event}}}, "steps": steps}

    async with programs_in(ROOT) as here:
        assert (await here.trace(program())).get("lost")
        assert not (await here.trace(program(["sleep", 20]))).get("lost")


async def test_an_instance_that_ends_behind_one_of_two_commits_is_an_outcome_too():
    write = [["put", "k", 1], ["return", "ok"]]
    program = {
        "name": "ends-between-commits",
        "actors": {"A": {"methods": {"hold": [["block", [["sleep", 100]]]], "put": write, "end": [["abort", "over"]]}}},
        "steps": [
            *(
                ["driveBg", name, [["show", name, ["call", "A", method]]], 10]
                for name, method in (("h", "hold"), ("one", "put"), ("two", "put"), ("end", "end"))
            ),
            *(["joinBg", name] for name in ("one", "two", "end")),
        ],
    }
    async with programs_in(ROOT) as here:
        outcomes = await every_outcome(here, program)
    stored = [sum(event[1:] in (["one", "ok"], ["two", "ok"]) for event in one["events"]) for one in outcomes]
    assert {0, 1, 2} == set(stored)


async def test_an_alarm_that_was_deleted_right_before_its_turn_runs_in_one_outcome():
    late = ["setAlarm", 100], ["txn", [["sleep", 300]]], ["deleteAlarm"]
    program = {
        "name": "deleted-alarm",
        "actors": {"A": {"alarm": [["log", "alarm"]], "methods": {"go": [*late], "look": [["log", "look"]]}}},
        "steps": [
            ["driveBg", "r0", [["call", "A", "go"]], 10],
            ["sleep", 200],
            ["drive", [["call", "A", "look"]]],
            ["joinBg", "r0"],
        ],
    }
    async with programs_in(ROOT) as here:
        outcomes = await every_outcome(here, program)
    assert ["A", "alarm"] not in outcomes[0]["events"]
    assert [["A", "construct"], ["A", "alarm"], ["A", "look"]] in [one["events"] for one in outcomes]


def test_each_caller_of_the_driver_is_one_for_itself():
    assert each_caller({"events": [["driver", "r0.1", 1], ["A", "n", 2]]})["events"] == [
        ["driver r0", "r0.1", 1],
        ["A", "n", 2],
    ]
