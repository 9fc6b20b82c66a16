"""What `activation` measures: very many actors that come into memory and leave it, and one of many that are stored."""

from __future__ import annotations

import gc
import json
import os
import random
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import structlog
import trio

from runtime import Actor, ActorId, App, Namespace, durable
from runtime.cli import COLLECTOR
from runtime.node import Node, open_node
from runtime.platform import real_platform
from runtime.storage.shared import SharedStore
from runtime.storage.store import WriteBatch

Figures = dict[str, float]

IN_MEMORY = 100_000
STORED = 1_000_000
QUICK_PART = 50
CALLERS = 64
SAMPLES = 3_000
BATCHES_AT_ONCE = 10_000
TICK_S = 0.001
REST_S = 2.0  # after the last call, before the first eviction


@attrs.frozen
class Score:
    """One small value."""

    points: int = 0


class Player(Actor["Env"]):
    """Keeps one small value, as most actors of most apps do."""

    score = durable(Score)

    async def add(self, points: int) -> int:
        """Change it."""
        self.score = Score(self.score.points + points)
        return self.score.points

    async def points(self) -> int:
        """Read it."""
        return self.score.points


@attrs.frozen
class Env:
    """The env of the candidates."""

    players: Namespace[Player]


@attrs.define(eq=False)
class Stalls:
    """A task that wants to run every millisecond, and how late it was."""

    _longest_s: float = 0.0

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            due = trio.current_time() + TICK_S
            await trio.sleep_until(due)
            self._longest_s = max(self._longest_s, trio.current_time() - due)

    def take_ms(self) -> float:
        """The worst since this was asked last."""
        longest, self._longest_s = self._longest_s, 0.0
        return longest * 1e3


@asynccontextmanager
async def _node(folder: Path, idle_s: float) -> AsyncGenerator[Node]:
    gc.set_threshold(*COLLECTOR)
    platform = real_platform()
    app = App(env=Env, routes={})
    store = SharedStore(folder, platform=platform)
    log = structlog.stdlib.get_logger()
    async with open_node(app, settings=app.settings(), store=store, platform=platform, log=log, idle_s=idle_s) as node:
        yield node


async def _store_players(node: Node, count: int) -> list[ActorId]:
    """Give so many actors what the first one has stored by itself."""
    env: Env = node.env
    ids = [env.players.id_from_name(f"player {number}") for number in range(count)]
    await env.players.get(ids[0]).add(1)
    writes = dict(node.store.open(ids[0]).list(b"", None, None, False))
    for start in range(1, count, BATCHES_AT_ONCE):
        part = ids[start : start + BATCHES_AT_ONCE]
        left = len(part)
        stored = trio.Event()

        def done(error: Exception | None, stored: trio.Event = stored) -> None:
            nonlocal left
            if error is not None:
                raise error
            left -= 1
            if not left:
                stored.set()

        for actor in part:
            node.store.submit(WriteBatch(actor=actor, sequence=1, writes=writes, history=False), done)
        await stored.wait()
    return ids


async def _call_all(node: Node, ids: Iterable[ActorId]) -> None:
    env: Env = node.env
    left = iter(ids)

    async def call() -> None:
        for actor in left:
            assert await env.players.get(actor).points() == 1

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(call)


async def measure_in_memory(part: int, folder: Path) -> Figures:
    """Bring very many into memory, let them rest, and see them leave again: twice, the second time counts."""
    count = IN_MEMORY // part
    figures: Figures = {"actors": count}
    idle_s = 25.0 if part == 1 else 3.0
    async with _node(folder, idle_s) as node, trio.open_nursery() as nursery:
        ids = await _store_players(node, count)
        stalls = Stalls()
        nursery.start_soon(stalls.watch)
        await _call_all(node, ids[:CALLERS])
        gc.collect()
        gc.freeze()
        stalls.take_ms()
        await trio.sleep(idle_s + REST_S)
        figures["rest_stall_ms"] = stalls.take_ms()  # nothing runs: the machine's own
        before_kib, before_tasks = _rss_kib(), trio.lowlevel.current_statistics().tasks_living
        begun = time.perf_counter()
        await _call_all(node, ids)
        figures["us_per_activation"] = (time.perf_counter() - begun) / count * 1e6
        figures["activation_stall_ms"] = stalls.take_ms()
        await trio.sleep(REST_S / 2)
        figures["kib_per_actor"] = (_rss_kib() - before_kib) / count
        figures["tasks"] = max(0, trio.lowlevel.current_statistics().tasks_living - before_tasks - CALLERS)
        stalls.take_ms()
        begun = trio.current_time()
        while node.router.containers:  # noqa: ASYNC110 -- nobody is told of evictions
            await trio.sleep(0.01)
        figures["all_gone_s"] = trio.current_time() - begun
        figures["eviction_stall_ms"] = stalls.take_ms()
        figures["kib_left_per_actor"] = (_rss_kib() - before_kib) / count
        nursery.cancel_scope.cancel()
    return figures


async def measure_stored(part: int, folder: Path) -> Figures:
    """Call one of very many that are stored, none of which is in memory: from the call to the answer."""
    count = STORED // part
    async with _node(folder, 25.0) as node:
        ids = await _store_players(node, count)
    took: list[float] = []
    async with _node(folder, 25.0) as node:  # opened anew: nothing is in SQLite's cache
        env: Env = node.env
        for actor in random.Random(1).sample(ids[1:], min(SAMPLES, count // 2)):
            begun = time.perf_counter()
            await env.players.get(actor).points()
            took.append(time.perf_counter() - begun)
    cuts = statistics.quantiles(took, n=100)
    return {"actors": count, "p50_us": cuts[49] * 1e6, "p99_us": cuts[98] * 1e6, "max_us": max(took) * 1e6}


def _rss_kib() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


CANDIDATES = {"in_memory": measure_in_memory, "stored": measure_stored}


def main(subject: str, seconds: float, folder: Path) -> None:
    """Prints the case of one candidate as JSON; a short time means a part of the actors."""
    part = QUICK_PART if seconds < 1 else 1
    print(json.dumps({subject: trio.run(CANDIDATES[subject], part, folder / subject)}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
