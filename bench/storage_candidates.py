"""What `storage` measures: the runtime's actors, its store alone, and what plain SQLite does with the same rows."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import apsw
import attrs
import structlog
import trio

from runtime import Actor, App, Namespace
from runtime.node import Node, open_node
from runtime.platform import real_platform
from runtime.storage.shared import SharedStore
from runtime.storage.store import WriteBatch

WRITERS = (1, 100, 1_000)
WARM_UP_S = 0.3
ROWS = 100

PUT = "insert or replace into entry values (?, 'value', ?)"

Figures = dict[str, float]
Write = Callable[[int, bytes], Awaitable[None]]


class Keeper(Actor["Env"]):
    """Keeps the last value it was given."""

    async def keep(self, value: bytes) -> None:
        """Returns when the value is durable: a reply waits for the writes made before it."""
        self.ctx.storage.put("value", value)


@attrs.frozen
class Env:
    """The env of the candidate."""

    keepers: Namespace[Keeper]


def _value(number: int) -> bytes:
    return b"%200d" % number  # never the same twice: SQLite skips a page that does not change


async def _drive(writers: int, write: Write, seconds: float) -> Figures:
    """So many tasks, each of which writes again as soon as its last write is durable."""
    latencies: list[float] = []
    begin = time.perf_counter()
    measured_from, until = begin + WARM_UP_S, begin + WARM_UP_S + seconds

    async def writer(index: int) -> None:
        number = index
        while (sent := time.perf_counter()) < until:
            await write(index, _value(number))
            number += writers
            if measured_from <= (now := time.perf_counter()) < until:
                latencies.append(now - sent)

    async with trio.open_nursery() as nursery:
        for index in range(writers):
            nursery.start_soon(writer, index)
    cuts = statistics.quantiles(latencies, n=100)
    return {"writes_per_s": len(latencies) / seconds, "p50_ms": cuts[49] * 1e3, "p99_ms": cuts[98] * 1e3}


@asynccontextmanager
async def _node(folder: Path) -> AsyncGenerator[Node]:
    platform = real_platform()
    app = App(env=Env, routes={})
    store = SharedStore(folder, platform=platform)
    log = structlog.stdlib.get_logger()
    async with open_node(app, settings=app.settings(), store=store, platform=platform, log=log) as node:
        yield node


async def measure_actors(writers: int, seconds: float, folder: Path) -> Figures:
    """Calls to actors that store what they are given; the answer leaves when it is durable."""
    async with _node(folder) as node:
        env: Env = node.env
        stubs = [env.keepers.get_by_name(str(index)) for index in range(writers)]

        async def write(index: int, value: bytes) -> None:
            await stubs[index].keep(value)

        return await _drive(writers, write, seconds)


async def measure_store(writers: int, seconds: float, folder: Path) -> Figures:
    """Batches given to the store without actors in front."""
    async with _node(folder) as node:
        env: Env = node.env
        ids = [env.keepers.id_from_name(str(index)) for index in range(writers)]
        sequences = [0] * writers

        async def write(index: int, value: bytes) -> None:
            done = trio.Event()
            failed: list[Exception] = []

            def on_done(error: Exception | None) -> None:
                failed.extend([error] if error else [])
                done.set()

            sequences[index] += 1
            batch = WriteBatch(actor=ids[index], sequence=sequences[index], writes={b"value": value})
            node.store.submit(batch, on_done)
            await done.wait()
            if failed:
                raise failed[0]

        return await _drive(writers, write, seconds)


async def measure_commit_each(writers: int, seconds: float, folder: Path) -> Figures:
    """Plain SQLite in a thread, one commit per write."""
    lock = trio.Lock()
    with closing(_database(folder)) as database:

        async def write(index: int, value: bytes) -> None:
            async with lock:
                await trio.to_thread.run_sync(database.execute, PUT, (index, value))

        return await _drive(writers, write, seconds)


async def measure_sqlite_100(writers: int, seconds: float, folder: Path) -> Figures:
    """Plain SQLite with nothing else to do: transactions of 100 rows, one after another."""
    number = 0
    with closing(_database(folder)) as database:
        begin = time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            with database:
                for _ in range(ROWS):
                    database.execute(PUT, (number % writers, _value(number)))
                    number += 1
    return {"writes_per_s": number / elapsed}


def _database(folder: Path) -> apsw.Connection:
    folder.mkdir()
    database = apsw.Connection(str(folder / "plain.db"))
    database.execute("pragma journal_mode=wal; pragma synchronous=full")
    database.execute("create table entry (actor, key, value, primary key (actor, key)) without rowid")
    return database


CANDIDATES = {
    "actors": measure_actors,
    "store": measure_store,
    "commit_each": measure_commit_each,
    "sqlite_100": measure_sqlite_100,
}


def main(subject: str, seconds: float, folder: Path) -> None:
    """Prints the cases of one candidate as JSON."""
    measure = CANDIDATES[subject]
    print(
        json.dumps(
            {f"{writers} actors": trio.run(measure, writers, seconds, folder / str(writers)) for writers in WRITERS}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
