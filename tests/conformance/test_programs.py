"""The random programs for the comparison with the real runtime are what it needs, and have one outcome here."""

from __future__ import annotations

import json

import pytest

from tests.conformance.compare import differences
from tests.conformance.programs import drawn
from tests.conformance.runner import record
from tests.conformance.tally import Tally, overlapping


def test_every_kind_of_operation_is_in_a_tenth_of_them_and_half_have_three_events_at_once():
    tally = Tally()
    for number in range(1, 301):
        tally.add(drawn(1, number))
    assert tally.lacking() == []


def test_a_number_of_a_seed_is_one_program():
    assert drawn(3, 17) == drawn(3, 17)
    texts = [json.dumps(drawn(seed, number)["actors"]) for seed in (3, 4) for number in range(1, 21)]
    assert len(set(texts)) == len(texts)


def test_events_overlap_until_one_is_waited_for():
    call, join = ["driveBg", "a", [], 1], ["joinBg", "a"]
    assert overlapping({"steps": [call, call, join, call]}) == 2
    assert overlapping({"steps": [["wsOpen", "s", "A"], call, ["wsSend", "s", "m"], call, join]}) == 3


def test_too_few_of_a_kind_are_named():
    tally = Tally()
    tally.add({"actors": {"A": {"methods": {"go": [["put", "k", 1]]}}}, "steps": []})
    assert "storage" not in tally.lacking()
    assert {"sockets", "alarms", "3 overlapping events"} <= set(tally.lacking())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # what an abort leaves unawaited
def test_a_program_seldom_has_two_traces():
    programs = [drawn(2, number) for number in range(1, 41)]
    varying = [program["name"] for program in programs if differences(record(program), record(program))]
    assert len(varying) <= 2
