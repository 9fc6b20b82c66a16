"""The random programs for the comparison with the real runtime are what it needs, and have one outcome here."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.conformance.compare import differences
from tests.conformance.programs import Tally, overlapping, programs
from tests.conformance.runner import record

generated = settings(
    max_examples=150,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_every_kind_of_operation_is_in_a_tenth_of_them_and_half_have_three_events_at_once():
    tally = Tally()

    @seed(1)
    @generated
    @given(programs())
    def count(program):
        tally.add(program)

    count()
    assert tally.lacking() == []


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
    varying = []

    @seed(2)
    @settings(generated, max_examples=40)
    @given(programs())
    def compare(program):
        varying.extend(differences(record(program), record(program))[:1])

    compare()
    assert len(varying) <= 2
