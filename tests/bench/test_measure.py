"""How ratios, turns and verdicts are formed."""

from bench.measure import Claim, Operand, Sample, in_turn, judge
from bench.service import disjoint_filters, overlapping_filters


def sample(repetition, server, value):
    return Sample(repetition=repetition, server=server, case="window 4", figures={"rate": value})


def claim(**changes):
    defaults = {
        "name": "T",
        "top": Operand("ours", "window 4", "rate"),
        "bottom": Operand("limit", "window 4", "rate"),
        "better": "higher",
        "floor": 1.5,
        "goal": 2.0,
    }
    return Claim(**(defaults | changes))


def test_ratios_are_formed_inside_a_repetition():
    # A slow second repetition halves both: the ratio of the medians would not be 2 everywhere.
    samples = [sample(0, "ours", 200), sample(0, "limit", 100), sample(1, "ours", 20), sample(1, "limit", 10)]
    judged = judge(claim(), samples)
    assert (judged.measured.least, judged.measured.median, judged.measured.most) == (2, 2, 2)
    assert judged.verdict == "goal"


def test_a_repetition_without_one_of_the_two_is_left_out():
    samples = [sample(0, "ours", 170), sample(0, "limit", 100), sample(1, "ours", 900)]
    assert judge(claim(), samples).measured.median == 1.7


def test_a_claim_nobody_measured_is_not_reached():
    assert judge(claim(), [sample(0, "limit", 100)]).verdict == "not measured"


def test_lower_is_better_where_the_claim_says_so():
    lower = {"bottom": None, "better": "lower", "floor": 2.0, "goal": 1.5}
    verdicts = [judge(claim(**lower), [sample(0, "ours", value)]).verdict for value in (1.5, 1.9, 2.1)]
    assert verdicts == ["goal", "floor", "below the floor"]


def test_nothing_missing_reaches_a_floor_of_zero():
    zero = claim(bottom=None, better="lower", floor=0, goal=None)
    assert judge(zero, [sample(0, "ours", 0)]).verdict == "floor"
    assert judge(zero, [sample(0, "ours", 1)]).verdict == "below the floor"


def test_every_repetition_starts_with_another_subject():
    assert [in_turn(("a", "b", "c"), repetition) for repetition in range(4)] == [
        ("a", "b", "c"),
        ("b", "c", "a"),
        ("c", "a", "b"),
        ("a", "b", "c"),
    ]


def test_the_service_measure_has_twenty_different_filters_of_each_kind():
    for filters in (overlapping_filters(), disjoint_filters()):
        assert len({str(filter_) for filter_ in filters}) == len(filters) == 20
