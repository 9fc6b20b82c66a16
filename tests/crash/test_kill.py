"""`kill -9` under load loses nothing that anybody was told, and every client goes on by itself."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from actors.client import Gap, SignalClient

KILLS = 20
TYPES = ("alert.high", "alert.low", "price.tick")


@attrs.define
class Server:
    """The real server as a process that can be killed and started again on the same data."""

    data: Path
    port: int
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        command = [sys.executable, "-m", "runtime", "serve", "--port", str(self.port), "--data", str(self.data)]
        with (self.data.parent / "server.log").open("a") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220
                [*command, "--no-sources"], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        line = await trio.to_thread.run_sync(self.process.stdout.readline)  # noqa: TID251
        assert f"listening on {self.url}" in line, (line, (self.data.parent / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@attrs.define
class Told:
    """Everything that any client was told about the log; contradictions are failures."""

    contents: dict[int, tuple[str, Any]] = attrs.Factory(dict)
    offsets: dict[str, int] = attrs.Factory(dict)
    epochs: set[str] = attrs.Factory(set)

    def content(self, offset: int, id_: str, data: Any) -> None:
        assert self.contents.setdefault(offset, (id_, data)) == (id_, data), f"offset {offset} changed its content"
        self.offset(id_, offset)

    def offset(self, id_: str, offset: int) -> None:
        assert self.offsets.setdefault(id_, offset) == offset, f"{id_} has two offsets"


@attrs.define
class Load:
    """Publishers and subscribers around one server."""

    url: str
    told: Told = attrs.Factory(Told)
    stopping: bool = False
    published: set[str] = attrs.Factory(set)
    in_flight: int = 0
    catching_up: int = 0

    async def publish(self, name: str, rng: random.Random) -> None:
        async with SignalClient(self.url) as client:
            for number in itertools.count():
                if self.stopping:
                    return
                id_ = f"{name}-{number}"
                self.in_flight += 1
                type_ = TYPES[rng.randrange(len(TYPES))]
                receipt = await client.publish(type_, f"e{number % 7}", {"n": number, "by": name}, id=id_)
                self.in_flight -= 1
                self.published.add(id_)
                self.told.offset(id_, receipt.offset)
                self.told.epochs.add(receipt.epoch)

    async def follow(self, seen: list[int], **filters: Any) -> None:
        """A steady subscriber that lives through every kill."""
        async with SignalClient(self.url) as client, client.subscribe(since="earliest", **filters) as subscription:
            async for item in subscription:
                assert not isinstance(item, Gap), f"told of a gap that there is not: {item}"
                self.told.content(item.o, item.id, item.data)
                seen.append(item.o)

    async def catch_up(self) -> None:
        """Clients that come one after another and read the log from its beginning."""
        while True:
            async with SignalClient(self.url) as client, client.subscribe(since="earliest") as subscription:
                self.catching_up += 1
                count = 0
                async for item in subscription:
                    assert not isinstance(item, Gap)
                    self.told.content(item.o, item.id, item.data)
                    count += 1
                    if count >= 2_000:
                        break
                self.catching_up -= 1


@pytest.mark.real
def test_twenty_kills_at_random_moments_lose_double_and_reorder_nothing(tmp_path):
    rng = random.Random(20)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(tmp_path / "data", port)
    load = Load(server.url)
    views: dict[str, list[int]] = {"all": [], "alerts": [], "one entity": [], "even": []}
    observed = Counter[str]()

    async def main() -> None:
        await server.start()
        try:
            with trio.fail_after(240):
                async with trio.open_nursery() as subscribers:
                    subscribers.start_soon(load.catch_up)
                    subscribers.start_soon(load.follow, views["all"])
                    subscribers.start_soon(lambda: load.follow(views["alerts"], types=["alert.>"]))
                    subscribers.start_soon(lambda: load.follow(views["one entity"], entities=["e3"]))
                    subscribers.start_soon(
                        lambda: load.follow(
                            views["even"], where={"f": "/data/n", "op": "in", "v": list(range(0, 200, 2))}
                        )
                    )
                    async with trio.open_nursery() as publishers:
                        for number in range(6):
                            publishers.start_soon(load.publish, f"p{number}", random.Random(number))
                        for _ in range(KILLS):
                            await trio.sleep(rng.uniform(0.1, 1.0))
                            observed["publishing"] += load.in_flight > 0
                            observed["catching up"] += load.catching_up > 0
                            server.kill()
                            await server.start()
                        await trio.sleep(1)
                        load.stopping = True
                    await _until_all_seen(views["all"], max(load.told.offsets.values()))
                    subscribers.cancel_scope.cancel()
                log = await _read_log(server.url, load.told)
        finally:
            server.kill()
        _compare(log, load, views)

    trio.run(main)
    assert observed["publishing"] == KILLS
    assert observed["catching up"] == KILLS
    assert len(load.published) > 100


async def _until_all_seen(seen: list[int], head: int) -> None:
    while not seen or seen[-1] < head:  # noqa: ASYNC110 -- real time, another process
        await trio.sleep(0.05)
    await trio.sleep(1)


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


def _compare(log: dict[int, Any], load: Load, views: dict[str, list[int]]) -> None:
    told = load.told
    assert len(told.epochs) == 1
    assert sorted(log) == list(range(1, len(log) + 1))
    assert {offset for offset in told.contents if offset <= len(log)} <= set(log)
    for id_ in load.published:
        assert log[told.offsets[id_]].id == id_
    assert views["all"] == sorted(log)
    assert views["alerts"] == [o for o in sorted(log) if log[o].type.startswith("alert.")]
    assert views["one entity"] == [o for o in sorted(log) if log[o].entity == "e3"]
    assert views["even"] == [o for o in sorted(log) if log[o].data["n"] % 2 == 0 and log[o].data["n"] < 200]
