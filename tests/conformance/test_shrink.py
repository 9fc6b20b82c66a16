"""A program that differs is made smaller, stays one that says something, and takes no longer than it may."""

from __future__ import annotations

import json

import pytest
import trio

from tests.conformance.live.shrink import edits, shrunk, tidied, without
from tests.conformance.programs import GAP, HALF_GAP, TURN, drawn
from tests.conformance.tally import operations

GO = ["call", "A", "go"]


def program(go, *steps, **others):
    return {"name": "p", "actors": {"A": {"methods": {"go": go}} | others}, "steps": list(steps), "settleMs": 0}


def of(text, among):
    return [text in json.dumps(one) for one in among]


@pytest.mark.parametrize("number", range(1, 9))
def test_whatever_is_left_out_what_remains_is_tidy(number):
    one = tidied(drawn(5, number))
    for edit in edits(one):
        smaller = without(one, [edit])
        assert tidied(smaller) == smaller
        assert len(json.dumps(smaller)) <= len(json.dumps(one))


def test_parts_can_be_left_out_together():
    one = tidied(drawn(5, 4))
    some = edits(one)
    for every in (2, 3, 7):
        smaller = without(one, some[::every])
        assert tidied(smaller) == smaller


async def test_a_drawn_program_ends_as_the_operation_that_makes_the_difference(autojump_clock):
    whole = tidied(drawn(5, 3))
    assert of('"abort"', [whole]) == [True]

    async def differ(programs):
        return of('"abort"', programs)

    smallest = (await shrunk(whole, differ, 60))[-1]
    assert list(operations(smallest["actors"])) == ["abort"]


async def test_what_makes_the_difference_only_together_stays_together(autojump_clock):
    whole = program([["put", "k", 1], ["show", "n", ["memIncr", "n"]], ["abort", "over"]], ["drive", [GO, GO]])

    async def differ(programs):
        return [a and b for a, b in zip(of('"put"', programs), of('"abort"', programs), strict=True)]

    smallest = (await shrunk(whole, differ, 60))[-1]
    assert smallest["actors"]["A"]["methods"]["go"] == [["put", "k", 1], ["abort", "over"]]


async def test_shrinking_ends_when_its_time_is_over(autojump_clock):
    async def differ(programs):
        await trio.sleep(9)
        return [True] * len(programs)

    began = trio.current_time()
    found = await shrunk(drawn(5, 1), differ, 12)
    assert trio.current_time() - began == pytest.approx(12)
    assert len(found) > 1


async def test_a_program_that_is_as_small_as_it_gets_is_the_last_one(autojump_clock):
    async def differ(programs):
        return [False] * len(programs)

    whole = drawn(5, 2)
    assert await shrunk(whole, differ, 60) == [whole]


def test_what_refers_to_nothing_goes():
    go = [
        ["scall", "s", "leaf"],
        ["join", "t"],
        TURN,
        ["wait", "latch"],
        TURN,
        ["show", "r", ["rollback"]],
        ["memIncr", "n"],
    ]
    left = tidied(program(go, ["wsSend", "s1", "m"], GAP, ["joinBg", "r"], GAP, ["drive", [GO]], message=[]))
    assert left["actors"] == {"A": {"methods": {"go": [["memIncr", "n"]]}}}
    assert left["steps"] == [["drive", [GO]]]


def test_methods_and_actors_that_nobody_calls_go():
    one = program([["log", "here"]], ["drive", [GO]])
    one["actors"]["A"]["methods"]["run"] = [["log", "never"]]
    one["actors"]["B"] = {"methods": {"go": []}}
    assert tidied(one)["actors"] == {"A": {"methods": {"go": [["log", "here"]]}}}


def test_the_gaps_that_keep_events_apart_are_put_back():
    shown = ["show", "r.0", GO]
    steps = [["wsOpen", "s1", "A"], ["wsSend", "s1", "m"], ["driveBg", "r", [shown, shown], 240], ["joinBg", "r"]]
    left = tidied(program([["spawn", "t", [["sleep", 480]]], ["join", "t"]], *steps, message=[["log", "m"]]))
    assert left["steps"] == [
        ["wsOpen", "s1", "A"],
        ["wsSend", "s1", "m"],
        GAP,
        ["driveBg", "r", [shown, HALF_GAP, shown], 240],
        ["joinBg", "r"],
        GAP,
    ]
    assert left["actors"]["A"]["methods"]["go"][-1] == TURN
    assert left["settleMs"] >= 240 + 480
