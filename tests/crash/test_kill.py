"""`kill -9` under load loses nothing that anybody was told, and every client goes on by itself."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio

from actors.client import SignalClient
from tests.crash.load import Load, Server, Told, free_port

KILLS = 20
RESTARTS = 2
VIEWS: dict[str, Callable[[Any], bool]] = {
    "all": lambda item: True,
    "alerts": lambda item: item.type.startswith("alert."),
    "one entity": lambda item: item.entity == "e3",
    "even": lambda item: item.data["n"] % 2 == 0 and item.data["n"] < 200,
}
STEADY = ("all", "alerts", "one entity")  # what never ends


@pytest.mark.real
def test_twenty_kills_at_random_moments_lose_double_and_reorder_nothing(tmp_path):
    rng = random.Random(20)
    server = Server(tmp_path / "data", free_port())
    load = Load(server.url)
    views: dict[str, list[int]] = {name: [] for name in VIEWS}
    kills = 0

    async def main() -> None:
        nonlocal kills
        await server.start()
        try:
            with trio.fail_after(240):
                async with trio.open_nursery() as subscribers:
                    subscribers.start_soon(load.catch_up)
                    _follow_all(subscribers, load, views)
                    async with trio.open_nursery() as publishers:
                        for number in range(6):
                            publishers.start_soon(load.publish, f"p{number}", random.Random(number))
                        for _ in range(KILLS):
                            await trio.sleep(rng.uniform(0.1, 1.0))
                            await _until(lambda: load.in_flight > 0 and load.catching_up > 0)
                            server.kill()
                            kills += 1
                            await server.start()
                        await trio.sleep(1)
                        load.stopping = True
                    log = await _read_log(server.url, load.told)
                    expected = {name: [o for o, item in log.items() if test(item)] for name, test in VIEWS.items()}
                    with trio.move_on_after(30):  # a client may just wait before it connects again
                        await _until(lambda: views == expected)
                    subscribers.cancel_scope.cancel()
        finally:
            server.kill()
        _compare(log, load)
        assert views == expected

    trio.run(main)
    assert kills == KILLS
    assert len(load.published) > 100


@pytest.mark.real
def test_sigterm_under_load_sends_clients_away_and_they_resume_on_the_next_server(tmp_path, record_testsuite_property):
    server = Server(tmp_path / "data", free_port())
    load = Load(server.url)
    views: dict[str, list[int]] = {name: [] for name in VIEWS}
    statuses: list[int] = []
    stops: list[float] = []  # seconds from SIGTERM to the end of the process
    returns: list[float] = []  # and to the first signal of the next server at every subscriber

    async def main() -> None:
        await server.start()
        try:
            with trio.fail_after(120):
                async with trio.open_nursery() as subscribers:
                    _follow_all(subscribers, load, views)
                    async with trio.open_nursery() as publishers:
                        for number in range(4):
                            publishers.start_soon(load.publish, f"p{number}", random.Random(number))
                        for _ in range(RESTARTS):
                            await trio.sleep(1)
                            began = trio.current_time()
                            statuses.append(await trio.to_thread.run_sync(server.end, signal.SIGTERM))  # noqa: TID251
                            stops.append(trio.current_time() - began)
                            before = max(load.told.offsets.values())
                            await server.start()
                            await _until(lambda before=before: all(views[name][-1] > before for name in STEADY))
                            returns.append(trio.current_time() - began)
                        load.stopping = True
                    log = await _read_log(server.url, load.told)
                    expected = {name: [o for o, item in log.items() if test(item)] for name, test in VIEWS.items()}
                    with trio.move_on_after(30):
                        await _until(lambda: views == expected)
                    subscribers.cancel_scope.cancel()
        finally:
            server.kill()
        assert views == expected
        assert sorted(log) == list(range(1, len(log) + 1))

    trio.run(main)
    record_testsuite_property("seconds from SIGTERM to the end", stops)
    record_testsuite_property("seconds from SIGTERM until everybody is back", returns)
    assert statuses == [0] * RESTARTS
    assert len(load.told.epochs) == 1


def _follow_all(nursery: trio.Nursery, load: Load, views: dict[str, list[int]]) -> None:
    nursery.start_soon(load.follow, views["all"])
    nursery.start_soon(lambda: load.follow(views["alerts"], types=["alert.>"]))
    nursery.start_soon(lambda: load.follow(views["one entity"], entities=["e3"]))
    even = {"f": "/data/n", "op": "in", "v": list(range(0, 200, 2))}
    nursery.start_soon(lambda: load.follow(views["even"], where=even))


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 -- real time, another process
        await trio.sleep(0.002)


async def _read_log(url: str, told: Told) -> dict[int, Any]:
    log: dict[int, Any] = {}
    head = max(told.offsets.values())
    async with SignalClient(url) as client, client.subscribe(since="earliest") as subscription:
        async for item in subscription:
            told.content(item.o, item.id, item.data)
            log[item.o] = item
            if item.o >= head:
                return log
    raise AssertionError("the subscription ended")


def _compare(log: dict[int, Any], load: Load) -> None:
    told = load.told
    assert len(told.epochs) == 1
    assert sorted(log) == list(range(1, len(log) + 1))
    assert {offset for offset in told.contents if offset <= len(log)} <= set(log)
    for id_ in load.published:
        assert log[told.offsets[id_]].id == id_
