"""A difference is written down as a scenario that can be run, with both traces beside each other."""

from __future__ import annotations

import json

from tests.conformance.live.found import LINE, laid_out, side_by_side, write_down
from tests.conformance.programs import drawn

THERE = {
    "name": "x",
    "events": [["A", "construct"], ["driver r0", "r0.0", 1], ["A", "n", 1]],
    "clients": {"s1": ["hello"]},
}
HERE = {
    "name": "x",
    "events": [["A", "construct"], ["driver r0", "r0.0", 1], ["A", "n", 2]],
    "clients": {"s1": ["hello", "<eof>"]},
}


def test_what_is_written_is_a_folder_of_scenarios_and_traces(tmp_path):
    program = drawn(5, 1)
    path = write_down(tmp_path, "seen", program, THERE, HERE)
    assert json.loads((tmp_path / "scenarios" / "seen.json").read_text()) == {**program, "name": "seen"}
    assert json.loads((tmp_path / "traces" / "seen.json").read_text()) == {
        "name": "seen",
        "events": [["A", "construct"], ["driver", "r0.0", 1], ["A", "n", 1]],
        "clients": {"s1": ["hello"]},
    }
    assert path.read_text().startswith("{\n")


def test_a_line_that_differs_is_marked_and_one_that_is_missing_shown_as_a_dash():
    marked = [" ".join(line.split()) for line in side_by_side(THERE, HERE).splitlines() if "≠" in line]
    assert marked == ['≠ ["n", 1] ["n", 2]', '≠ — "<eof>"']


def test_a_program_is_laid_out_an_operation_a_line():
    program = drawn(5, 1)
    text = laid_out(program)
    assert json.loads(text) == program
    assert max(map(len, text.splitlines())) <= LINE + 40
