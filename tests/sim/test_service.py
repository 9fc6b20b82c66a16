"""The signal service's own scenarios, for a few seeds here; `make sim` runs 500, and `make sim-nightly` many more."""

from pathlib import Path

import pytest

from runtime.sim import check, simulate
from runtime.sim.faults import Faults
from runtime.sim.runner import load_scenarios, repeat

SCENARIOS = load_scenarios("actors.scenarios_all")
SEEDS = [
    line.split(maxsplit=2)
    for line in Path(__file__).with_name("seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize("name", SCENARIOS)
def test_everything_holds_whatever_goes_wrong(name):
    check(SCENARIOS[name], seeds=2)


@pytest.mark.parametrize(("name", "seed", "was"), SEEDS)
def test_a_seed_that_found_a_bug_finds_none(name, seed, was):
    simulate(SCENARIOS[name], seed=int(seed), order="shuffle").raise_if_failed()


def test_all_scenarios_are_run_without_a_file():
    folder = Path(__file__).parent.parent.parent / "actors"
    files = {f"actors.{path.stem}" for path in folder.glob("scenarios*.py")} - {"actors.scenarios_clients"}
    assert {name: one for file in files for name, one in load_scenarios(file).items()} == SCENARIOS


def test_the_service_is_repeatable():
    repeat(SCENARIOS["following"], 3, Faults.swarm())
