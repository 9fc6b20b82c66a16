"""The signal service's own scenarios, for a few seeds here and for many by `heliograph sim run`."""

from pathlib import Path

import pytest

from runtime.sim import check, simulate
from runtime.sim.faults import Faults
from runtime.sim.runner import load_scenarios, repeat

SCENARIOS = load_scenarios("actors.scenarios")
SEEDS = [
    line.split(maxsplit=2)
    for line in Path(__file__).with_name("seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize("name", SCENARIOS)
def test_everything_holds_whatever_goes_wrong(name):
    check(SCENARIOS[name], seeds=range(1, 13))


@pytest.mark.parametrize(("name", "seed", "was"), SEEDS)
def test_a_seed_that_found_a_bug_finds_none(name, seed, was):
    simulate(SCENARIOS[name], seed=int(seed)).raise_if_failed()


def test_the_service_is_repeatable():
    repeat(SCENARIOS["following"], 3, Faults.swarm())
