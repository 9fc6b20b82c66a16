"""The candidates of `sim`: 100 actors that are used and crashed, and the scenarios of the service, seed by seed."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time

import attrs
import psutil
import trio

from bench.sim import ACTORS, CASE, TOGETHER
from runtime import Actor, App, Namespace
from runtime.sim import Faults, Scenario, Unknown, World, scenario, simulate
from runtime.sim.runner import BATCH, load_scenarios, run_seeds

COUNTED = 100
EVERY_S = 10.0  # between two calls of one actor
ROUNDS = 20
FIRST_SEED = 1
ALL = "actors.scenarios_all"
SEEDS_PER_S = 10  # and job, so that a measurement takes about as long as it is to


class Counter(Actor["Env"]):
    """Counts its calls."""

    async def add(self) -> int:
        """One more."""
        count = self.ctx.storage.get("count", int, 0) + 1
        self.ctx.storage.put("count", count)
        return count


@attrs.frozen
class Env:
    """What the app has."""

    counters: Namespace[Counter]


app = App(env=Env, routes={})


@scenario
async def counting(w: World) -> None:
    """Each of 100 actors is called every ten seconds or so, and writes, and leaves memory, and comes back."""
    node = await w.start_node(app)

    async def caller(name: str) -> None:
        rng, last = w.rng(name), 0
        for _ in range(ROUNDS):
            await trio.sleep(rng.uniform(0.0, 2 * EVERY_S))
            try:
                value = await node.stub("counters", name).add()
            except Unknown:
                continue
            assert value > last, f"{name} was {last} and is {value}"
            last = value

    async with trio.open_nursery() as nursery:
        for number in range(COUNTED):
            nursery.start_soon(caller, f"c{number}")


def measure(scenarios: list[Scenario], seconds: float) -> dict[str, float]:
    """Whole rounds of all scenarios, a seed each, for so many seconds at least."""
    simulate(scenarios[0], seed=0)  # imports what is imported late
    seeds, events, virtual_s = 0, 0, 0.0
    begin = time.perf_counter()
    took = 0.0
    for seed in itertools.count(FIRST_SEED):
        for one in scenarios:
            result = simulate(one, seed=seed)
            result.raise_if_failed()
            seeds, events, virtual_s = seeds + 1, events + result.count, virtual_s + result.virtual_s
        took = time.perf_counter() - begin
        if took >= seconds:
            break
    return {
        "events_per_s": events / took,
        "virtual_s_per_s": virtual_s / took,
        "seeds_per_s": seeds / took,
        "rss_mib": psutil.Process().memory_info().rss / 2**20,
    }


def measure_together(jobs: int, seconds: float) -> dict[str, float]:
    """Scenarios of the service in turn, in several processes; their starts are not counted."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    begin, seeds, events, virtual_s = 0.0, 0, 0, 0.0
    starting = jobs * BATCH
    wanted = range(FIRST_SEED, FIRST_SEED + starting + round(jobs * SEEDS_PER_S * seconds))
    for number, one in enumerate(run_seeds(ALL, (), wanted, Faults.swarm(), jobs=jobs, in_turn=True), 1):
        assert not one.text, one.text
        if number <= starting:
            begin = time.perf_counter()
            continue
        seeds, events, virtual_s = seeds + 1, events + one.count, virtual_s + one.virtual_s
    took = time.perf_counter() - begin
    return {"events_per_s": events / took, "virtual_s_per_s": virtual_s / took, "seeds_per_s": seeds / took}


def main(subject: str, seconds: float) -> None:
    """Prints the case of one candidate as JSON."""
    if subject == TOGETHER:
        result = measure_together(2, 3 * seconds)
    else:
        scenarios = [counting] if subject == ACTORS else list(load_scenarios(ALL).values())
        result = measure(scenarios, 3 * seconds)
    print(json.dumps({CASE: result}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
