"""A server is replaced while a hundred clients publish: none of what was acknowledged is lost or comes twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from actors.client import SignalClient
from tests.browser.serving import Server

pytestmark = pytest.mark.real

CLIENTS = 100
ROUNDS = 5  # publications of each client before the restart, and again after it
PATIENCE_S = 120


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data")
    server.start()
    yield server
    server.kill()


async def test_a_restart_under_a_hundred_publishing_clients_loses_and_doubles_nothing(
    server: Server, record_property: Callable[[str, object], None]
) -> None:
    acknowledged: dict[str, int] = {}
    answers: list[float] = []
    finish = trio.Event()
    seen: list[tuple[int, str]] = []
    with trio.fail_after(PATIENCE_S):

        async def read() -> None:
            async with SignalClient(server.url) as client, client.subscribe(since="earliest") as signals:
                async for item in signals:
                    if item.type == "the.end":
                        return
                    seen.append((item.o, item.id))

        async def publish(number: int) -> None:
            async with SignalClient(server.url) as client:
                while not finish.is_set():
                    name = f"{number}-{len(acknowledged)}"
                    acknowledged[name] = (await client.publish("t.a", f"e{number}", number, id=name)).offset
                    answers.append(trio.current_time())
                    await trio.sleep(0.1)

        async def until(count: int) -> None:
            while len(answers) < count:  # noqa: ASYNC110 -- only the number counts
                await trio.sleep(0.02)

        async with trio.open_nursery() as reading:
            reading.start_soon(read)
            async with trio.open_nursery() as publishing:
                for number in range(CLIENTS):
                    publishing.start_soon(publish, number)
                await until(ROUNDS * CLIENTS)
                began = trio.current_time()
                await trio.to_thread.run_sync(server.stop)  # noqa: TID251 -- a process of its own
                stopped = trio.current_time()
                await trio.to_thread.run_sync(server.start)  # noqa: TID251
                started = trio.current_time()
                before = len(answers)
                await until(before + ROUNDS * CLIENTS)
                finish.set()
            async with SignalClient(server.url) as client:
                await client.publish("the.end", "e", None)
    assert [offset for offset, _ in seen] == list(range(1, len(seen) + 1))
    assert sorted(id_ for _, id_ in seen) == sorted(acknowledged)
    assert {id_: offset for offset, id_ in seen} == acknowledged
    record_property("acknowledged", len(acknowledged))
    record_property("down_s", round(stopped - began, 2))
    record_property("up_s", round(started - stopped, 2))
    record_property("no_answer_s", round(max(b - a for a, b in pairwise(answers)), 2))
