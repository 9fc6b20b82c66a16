"""Many runs: a scenario from a module or file, over a range of seeds, in several processes."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import attrs

from runtime.sim.faults import Fault, Faults
from runtime.sim.simulate import Order, Result, Scenario, SimulationFailed, simulate

BATCH = 10  # seeds of one piece of work for a process


class NoScenario(ValueError):
    """A module or file has no scenario of that name, or none at all."""


@attrs.frozen
class Summary:
    """One run of many, without its events.

    Attributes:
        text: what to show of a failure; empty when everything held.
    """

    scenario: str
    seed: int
    text: str
    digest: str
    virtual_s: float
    count: int
    fired: Counter[str]
    checked: Counter[str]


def load_scenarios(source: str) -> dict[str, Scenario]:
    """The scenarios of a file (`my_scenarios.py`) or module (`package.scenarios`), by name.

    Raises:
        NoScenario: it has none. ImportError: it cannot be imported.
    """
    path = Path(source)
    if path.suffix == ".py":
        name = f"heliograph_scenarios_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise NoScenario(f"there is no file {source}")
        module = sys.modules.get(name)
        if module is None:
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            sys.path.insert(0, str(path.resolve().parent))
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
            finally:
                sys.path.pop(0)
    else:
        module = importlib.import_module(source)
    found = {value.name: value for value in vars(module).values() if isinstance(value, Scenario)}
    if not found:
        raise NoScenario(f"{source} has no scenario; decorate `async def name(w: World)` with @scenario")
    return found


def pick(source: str, names: Sequence[str]) -> dict[str, Scenario]:
    """Those of some names, or all. Raises: NoScenario."""
    found = load_scenarios(source)
    for name in names:
        if name not in found:
            raise NoScenario(f"{source} has no scenario {name!r}; there are {', '.join(found)}")
    return {name: found[name] for name in names or found}


def run_seeds(
    source: str,
    names: Sequence[str],
    seeds: Iterable[int],
    faults: Faults,
    *,
    jobs: int = 1,
    order: Order = "drawn",
    in_turn: bool = False,
) -> Iterator[Summary]:
    """Run scenarios over seeds and give each result as it comes: with one job in order, else in any.

    Args:
        in_turn: each seed is for one of the scenarios, the next seed for the next one; else each is for all.

    Raises:
        NoScenario, ImportError: see `load_scenarios`.
    """
    chosen = list(pick(source, names))
    work = [(name, seed) for seed in seeds for name in ([chosen[seed % len(chosen)]] if in_turn else chosen)]
    if jobs == 1:
        for name, seed in work:
            yield _run(source, name, seed, faults, order)
        return
    pieces = [work[at : at + BATCH] for at in range(0, len(work), BATCH)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting: list[Future[list[Summary]]] = []
        try:
            for piece in pieces:
                waiting.append(pool.submit(_run_piece, source, piece, faults, order))
                if len(waiting) >= 2 * jobs:
                    yield from waiting.pop(0).result()
            for future in waiting:
                yield from future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _run_piece(source: str, piece: Sequence[tuple[str, int]], faults: Faults, order: Order) -> list[Summary]:
    return [_run(source, name, seed, faults, order) for name, seed in piece]


def _run(source: str, name: str, seed: int, faults: Faults, order: Order) -> Summary:
    return summary(simulate(load_scenarios(source)[name], seed=seed, faults=faults, order=order))


def summary(result: Result) -> Summary:
    """A result without its events."""
    return Summary(
        result.scenario,
        result.seed,
        "" if result.ok else result.explain(),
        result.digest,
        result.virtual_s,
        result.count,
        Counter(result.fired),
        Counter(result.checked),
    )


def check(what: Scenario, *, seeds: int | Iterable[int] = 100, faults: Faults | None = None) -> None:
    """For tests: run a scenario for many seeds.

    Args:
        seeds: so many from 0, or these.

    Raises:
        SimulationFailed: with everything about the first seed that fails.
    """
    drawn = Faults.swarm() if faults is None else faults
    for seed in range(seeds) if isinstance(seeds, int) else seeds:
        simulate(what, seed=seed, faults=drawn).raise_if_failed()


def shrink(
    what: Scenario,
    failed: Result,
    *,
    order: Order = "drawn",
    runs_max: int = 400,
    tried: Callable[[int, Result], None] = lambda runs, best: None,
) -> tuple[Result, int]:
    """The smallest plan and the fewest operations that still break the same claim, and how many runs that took.

    Faults are left out in halves, quarters and so on down to single ones; then loops over operations are cut short.

    Args:
        tried: is told after each run how many there were and which is the smallest that failed.
    """
    assert failed.failure is not None
    claim = failed.failure.claim
    best, runs = failed, 0

    def fails(plan: Sequence[Fault], operations: int | None) -> bool:
        nonlocal best, runs
        if runs >= runs_max:
            return False
        runs += 1
        result = simulate(what, seed=failed.seed, plan=plan, operations=operations, order=order)
        still = result.failure is not None and result.failure.claim == claim
        if still:
            best = result
        tried(runs, best)
        return still

    size = max(len(best.plan), 1)
    while size >= 1:
        at = 0
        while at < len(best.plan):
            if not fails([*best.plan[:at], *best.plan[at + size :]], best.operations):
                at += size
        size //= 2
    for operations in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):
        if operations >= failed.longest or fails(best.plan, operations):
            break
    return best, runs


def repeat(what: Scenario, seed: int, faults: Faults) -> str:
    """Run twice in this process and return the digest. Raises: SimulationFailed: they differ."""
    first, second = (simulate(what, seed=seed, faults=faults).digest for _ in range(2))
    if first != second:
        raise SimulationFailed(f"{what.name}, seed {seed}: two runs differ ({first} and {second})")
    return first
