"""What `call` measures: one actor that answers, and the least that asyncio needs for the same."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import attrs
import structlog
import trio

from runtime import Actor, App, Namespace
from runtime.node import open_node
from runtime.platform import real_platform
from runtime.storage.memory import MemoryStore

BURST = 500  # half of an actor's mailbox
BATCH = 1_000
WARM_UP_S = 0.2

Cases = dict[str, dict[str, float]]


class Echo(Actor["Env"]):
    """Answers with what it was given."""

    async def echo(self, value: int) -> int:
        """The value itself."""
        return value


@attrs.frozen
class Env:
    """The env of the candidate."""

    echoes: Namespace[Echo]


async def _us_per_ask(ask: Callable[[int], Awaitable[int]], seconds: float) -> float:
    for limit in (WARM_UP_S, seconds):
        begin = time.perf_counter()
        count = 0
        while (elapsed := time.perf_counter() - begin) < limit:
            for _ in range(BATCH):
                await ask(count)
            count += BATCH
    return elapsed / count * 1e6


async def measure_actor(seconds: float) -> Cases:
    """A task that calls one actor through a stub, without a network and with nothing to store."""
    log = structlog.stdlib.get_logger()
    app = App(env=Env, routes={})
    async with open_node(app, settings=app.settings(), store=MemoryStore(), platform=real_platform(), log=log) as node:
        env: Env = node.env
        stub = env.echoes.get_by_name("one")
        ask_us = await _us_per_ask(stub.echo, seconds)
        notify = getattr(stub.echo, "notify")  # noqa: B009 -- of the stub's method, not of the coroutine function's type
        sent = handled = 0.0
        count = 0
        while handled < seconds:
            begin = time.perf_counter()
            for value in range(BURST):
                notify(value)
            sent += time.perf_counter() - begin
            await stub.echo(0)
            handled += time.perf_counter() - begin
            count += BURST
    return {"ask": {"us": ask_us}, "tell": {"us": sent / count * 1e6, "us_handled": handled / count * 1e6}}


async def measure_asyncio(seconds: float) -> Cases:
    """A task that answers through a Future what it takes from a Queue."""
    queue: asyncio.Queue[tuple[asyncio.Future[int] | None, int]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def answer() -> None:
        while True:
            future, value = await queue.get()
            if future is not None:
                future.set_result(value)

    async def ask(value: int) -> int:
        future: asyncio.Future[int] = loop.create_future()
        queue.put_nowait((future, value))
        return await future

    task = loop.create_task(answer())
    ask_us = await _us_per_ask(ask, seconds)
    sent = handled = 0.0
    count = 0
    while handled < seconds:
        begin = time.perf_counter()
        for value in range(BURST):
            queue.put_nowait((None, value))
        sent += time.perf_counter() - begin
        await ask(0)
        handled += time.perf_counter() - begin
        count += BURST
    task.cancel()
    return {"ask": {"us": ask_us}, "tell": {"us": sent / count * 1e6, "us_handled": handled / count * 1e6}}


def main(subject: str, seconds: float) -> None:
    """Prints the cases of one candidate as JSON."""
    cases = trio.run(measure_actor, seconds) if subject == "actor" else asyncio.run(measure_asyncio(seconds))
    print(json.dumps(cases))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
