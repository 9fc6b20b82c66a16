"""Planted bugs: patches under which scenarios must fail, because a simulator that finds nothing may also see nothing.

The patches belong to the tests of an app, never to what is shipped: a file with `@mutant` functions. Each patches
through `put(owner, attribute, value)`, which is taken back after the run.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from runtime.sim.faults import GROUPS, Faults
from runtime.sim.runner import load_scenarios
from runtime.sim.simulate import Order, Result, simulate

Put = Callable[[object, str, object], None]
Plant = Callable[[Put], None]

PATIENCE = 4  # times the measured median


class NoMutants(ValueError):
    """A file has no planted bugs, or not that one."""


@attrs.frozen
class Mutant:
    """A planted bug.

    Attributes:
        name: what is wrong. plant: patches the code.
        row: of the table of guarantees, which it breaks. blind: written from that table alone.
        source, scenario: what must find it. faults: groups that it needs. order: of the tasks.
        median: the measured number of seeds to find it; in `PATIENCE` times as many it must be found.
    """

    name: str
    plant: Plant
    source: str
    scenario: str
    row: str = ""
    blind: bool = False
    faults: tuple[str, ...] = GROUPS
    order: Order = "shuffle"
    median: int = 1

    @property
    def seeds(self) -> int:
        """Within so many it must be found."""
        return PATIENCE * self.median


def mutant(source: str, scenario: str, **fields: Any) -> Callable[[Plant], Mutant]:
    """Decorate a function as a planted bug; the rest are fields of `Mutant`.

    Args:
        source: file or module of the scenario.
    """
    return lambda plant: Mutant(plant.__name__.replace("_", " "), plant, source, scenario, **fields)


@contextmanager
def planted(bug: Mutant) -> Generator[None, None, None]:
    """The code with one bug while the block runs."""
    before: list[tuple[Any, str, Any]] = []

    def put(owner: Any, attribute: str, value: object) -> None:
        before.append((owner, attribute, owner.__dict__[attribute]))
        setattr(owner, attribute, value)

    try:
        bug.plant(put)
        yield
    finally:
        for owner, attribute, value in reversed(before):
            setattr(owner, attribute, value)


def hunt(bug: Mutant, seeds: range) -> Iterator[Result]:
    """Run its scenario with the bug in place, seed by seed."""
    chosen = load_scenarios(bug.source)[bug.scenario]
    for seed in seeds:
        with planted(bug):
            result = simulate(chosen, seed=seed, faults=Faults.swarm(bug.faults), order=bug.order)
        yield result


def first_seed(bug: Mutant) -> int | None:
    """The number of seeds until it is found, or None when it is not found in time."""
    return next((at for at, result in enumerate(hunt(bug, range(bug.seeds)), 1) if not result.ok), None)


def median(failing: int, seeds: int) -> int | None:
    """How many seeds it takes as a rule to find a bug that so many of them found; None: none did."""
    if failing in (0, seeds):
        return 1 if failing else None
    return math.ceil(math.log(0.5) / math.log(1 - failing / seeds))


def load_mutants(file: Path) -> dict[str, Mutant]:
    """The planted bugs of a file, by name.

    Raises:
        NoMutants: there is no such file, or none in it.
    """
    if not file.is_file():
        raise NoMutants(
            f"there is no file {file}; planted bugs belong to the tests, which are in the source tree and not in what "
            "is installed: run this in a checkout, or name a file with @mutant functions"
        )
    name = "heliograph_mutants"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path.cwd()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
        del sys.modules[name]
    found = {value.name: value for value in vars(module).values() if isinstance(value, Mutant)}
    if not found:
        raise NoMutants(f"{file} has no planted bug; decorate `def name(put)` with @mutant")
    return found
