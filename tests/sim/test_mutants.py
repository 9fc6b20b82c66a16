"""Planted bugs are found: these are the acceptance criteria of the simulator."""

import pytest

from runtime.sim import Faults, simulate
from tests.sim import counters
from tests.sim.mutants import MUTANTS, planted


def first_seed(name):
    """The first seed that finds it, or None; a run that cannot even be carried out finds it too."""
    with planted(name) as mutant:
        for seed in range(mutant.seeds):
            result = simulate(getattr(counters, mutant.scenario), seed=seed, faults=Faults.swarm(mutant.faults))
            if not result.ok:
                return seed
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name):
    assert first_seed(name) is not None


def test_afterwards_the_runtime_is_as_it_was():
    for name in MUTANTS:
        with planted(name):
            pass
    assert simulate(counters.counting, seed=1).ok
