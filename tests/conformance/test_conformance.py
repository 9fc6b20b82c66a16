"""Every recorded scenario gives the recorded trace here, but for the differences that are written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.compare import accepted, differences
from tests.conformance.runner import record

HERE = Path(__file__).parent
MEANT = accepted(HERE / "differences.md")
SCENARIOS = sorted(path.stem for path in (HERE / "scenarios").glob("*.json"))

# What a scenario needs that the runtime does not have yet; it fails until then, and has to leave this list after.
MISSING: dict[str, str] = {}


def _scenarios() -> list[object]:
    return [
        pytest.param(name, marks=[pytest.mark.xfail(reason=MISSING[name], strict=True)] if name in MISSING else [])
        for name in SCENARIOS
    ]


@pytest.mark.parametrize("name", _scenarios())
def test_the_trace_is_the_recorded_one(name):
    scenario = json.loads((HERE / "scenarios" / f"{name}.json").read_text())
    recorded = json.loads((HERE / "traces" / f"{name}.json").read_text())
    found = set(differences(recorded, record(scenario)))
    meant = {difference for difference in MEANT if difference.scenario == name}
    assert sorted(map(str, found - meant)) == []
    assert sorted(map(str, meant - found)) == [], "in differences.md, and not a difference any more"


def test_every_entry_of_the_table_names_a_scenario():
    assert {difference.scenario for difference in MEANT} <= set(SCENARIOS)


def test_every_scenario_has_its_trace():
    assert sorted(path.stem for path in (HERE / "traces").glob("*.json")) == SCENARIOS
