"""The signal service's own scenarios, for 500 seeds here and for many more by `make sim-nightly`."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from runtime.cli import main
from runtime.sim import simulate
from runtime.sim.faults import Faults
from runtime.sim.runner import load_scenarios, repeat

SCENARIOS = load_scenarios("actors.scenarios_all")
SEEDS = [
    line.split(maxsplit=2)
    for line in Path(__file__).with_name("seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def test_everything_holds_whatever_goes_wrong_and_each_fault_claim_and_point_comes():
    done = CliRunner().invoke(main, ["sim", "run", "--seeds", "1..500", "--in-turn", "--jobs", "2", "--coverage"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(("name", "seed", "was"), SEEDS)
def test_a_seed_that_found_a_bug_finds_none(name, seed, was):
    simulate(SCENARIOS[name], seed=int(seed), order="shuffle").raise_if_failed()


def test_all_scenarios_are_run_without_a_file():
    folder = Path(__file__).parent.parent.parent / "actors"
    files = {f"actors.{path.stem}" for path in folder.glob("scenarios*.py")} - {"actors.scenarios_clients"}
    assert {name: one for file in files for name, one in load_scenarios(file).items()} == SCENARIOS


def test_the_service_is_repeatable():
    repeat(SCENARIOS["following"], 3, Faults.swarm())
