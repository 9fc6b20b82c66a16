"""The tutorial `on-a-bad-day.md`: its first box office fails, and the mended one does not."""

import re
from pathlib import Path

import pytest

from runtime.sim import Faults, simulate
from runtime.sim.runner import load_scenarios

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "on-a-bad-day.md"
FILES = dict(re.findall(r"<!-- file: ([\w.]+) -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.fixture
def a_seat_each(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def load(module):
        for name, text in FILES.items():
            (tmp_path / name).write_text(text.replace("from box_office", f"from {module}"))
        return load_scenarios(str(tmp_path / "scenarios.py"))["a_seat_each"]

    return load


def test_the_first_box_office_sells_a_buyer_two_seats(a_seat_each):
    scenario = a_seat_each("box_office")
    failed = next(result for seed in range(1, 201) if not (result := simulate(scenario, seed=seed)).ok)
    assert "the seats went to" in failed.failure.text
    assert simulate(scenario, faults=Faults.none()).ok


def test_the_mended_one_does_not(a_seat_each):
    scenario = a_seat_each("mended")
    for seed in range(1, 101):
        simulate(scenario, seed=seed).raise_if_failed()
