"""Planted bugs are found: these are the acceptance criteria of the simulator."""

from pathlib import Path

import pytest

from runtime.sim import simulate
from runtime.sim.mutants import first_seed, load_mutants, planted
from tests.sim import counters

MUTANTS = load_mutants(Path(__file__).with_name("mutants.py"))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name):
    assert first_seed(MUTANTS[name]) is not None


def test_there_are_enough_of_them():
    assert len(MUTANTS) >= 20
    assert sum(bug.blind for bug in MUTANTS.values()) >= 5


def test_afterwards_the_runtime_is_as_it_was():
    for bug in MUTANTS.values():
        with planted(bug):
            pass
    assert simulate(counters.counting, seed=1).ok
