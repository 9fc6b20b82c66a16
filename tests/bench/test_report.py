"""Results survive being written, and compare with each other."""

import attrs
import pytest

from bench.chart import chart
from bench.machine import machine_facts
from bench.measure import BenchError, Claim, Operand, Sample, judge
from bench.report import FORMAT, Outcome, Report, compare_text, outcome_text, read_report, write_report


def report(rate, **changes):
    samples = [Sample(repetition=r, server="product", case="window 4", figures={"rate": rate + r}) for r in range(3)]
    claim = Claim(name="T1", top=Operand("product", "window 4", "rate"), better="higher", floor=1_000, goal=1_000_000)
    outcome = Outcome(
        measure="fanout",
        repeat=3,
        samples=samples,
        judged=[judge(claim, samples)],
        failures=["trio_naive: was not ready"],
        shown=["rate"],
    )
    defaults = {"started": "2026-01-01T00:00:00+00:00", "quick": False, "pinned": "server on core 0, load on core 1"}
    return Report(format=FORMAT, machine=machine_facts(), outcomes=[outcome], **(defaults | changes))


def test_a_report_reads_back_as_it_was_written(tmp_path):
    written = report(2_000)
    write_report(written, tmp_path / "results" / "a.json")
    assert read_report(tmp_path / "results" / "a.json") == written


def test_the_text_shows_median_range_floor_goal_verdict_and_failures():
    text = outcome_text(report(2_000).outcomes[0])
    assert "2001 [2000..2002]" in text
    assert "| >= 1000 | >= 1.00M | 2001 [2000..2002] | floor" in text
    assert "FAILED trio_naive: was not ready" in text


def test_two_reports_compare_by_figure():
    assert "| 2.00 |" in compare_text(report(2_000), report(4_001))


def test_a_quick_run_is_said_to_be_one():
    assert "quick run" in compare_text(report(2_000), report(4_000, quick=True))


def test_reports_without_a_common_figure_are_refused():
    before = report(1)
    other = attrs.evolve(before, outcomes=[attrs.evolve(before.outcomes[0], measure="memory")])
    with pytest.raises(BenchError, match="no figure in common"):
        compare_text(before, other)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}', '{"format": 1}'])
def test_a_file_that_is_no_result_is_refused_with_its_name(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(BenchError, match=r"x\.json"):
        read_report(path)


def test_a_chart_has_a_bar_for_every_server_the_longest_first():
    one = report(2_000)
    other = Sample(repetition=0, server="c_send", case="window 4", figures={"rate": 3_000})
    outcome = attrs.evolve(one.outcomes[0], samples=[*one.outcomes[0].samples, other])
    drawn = chart(attrs.evolve(one, outcomes=[outcome]), "fanout", "window 4", "rate", "a < b")
    assert drawn.index(">c_send<") < drawn.index(">product<")
    assert "a &lt; b" in drawn
    with pytest.raises(BenchError, match="no p50_ms of case 'window 5'"):
        chart(one, "fanout", "window 5", "p50_ms", "")
