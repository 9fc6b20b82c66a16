"""`kill -9` under a client that follows server-sent events, which comes back with its last id."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.crash.load import Server, free_port

KILLS = 5
PATIENCE_S = 90
ENDED = (httpx.TransportError, httpx.HTTPStatusError)


class Follower:
    """Follows as a browser does: its address stays the same, and its last id goes along."""

    def __init__(self, url: str) -> None:
        self.offsets: list[int] = []
        self.others: list[str] = []
        self.opened = 0
        self._url = url
        self._last_id = ""

    async def follow(self) -> None:
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
            while True:
                with suppress(*ENDED):
                    await self._read(client)
                await trio.sleep(0.05)

    async def _read(self, client: httpx.AsyncClient) -> None:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": self._last_id} if self._last_id else {})
        async with client.stream("GET", self._url, headers=headers) as response:
            response.raise_for_status()
            self.opened += 1
            async with aclosing(_events(response.aiter_lines())) as events:
                async for name, data, last_id in events:
                    if name == "sig":
                        self.offsets += [one["o"] for one in data["d"]]
                    elif name:
                        self.others.append(name)
                    self._last_id = last_id or self._last_id


async def _events(lines: AsyncIterator[str]) -> AsyncGenerator[tuple[str, Any, str]]:
    """Whole events only; one that was cut off calls nobody and moves no cursor."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            yield fields.get("event", ""), json.loads(fields.get("data", "null")), fields.get("id", "")
            fields = {}


class Publisher:
    """Publishes on and on, and each batch again until it is told where that is stored."""

    def __init__(self, url: str) -> None:
        self.told: set[int] = set()
        self.stopping = False
        self._url = url

    async def publish(self, name: str) -> None:
        batch = 0
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
            while not self.stopping:
                batch += 1
                signals = [
                    {"type": "price.tick", "entity": "x", "id": f"{name}-{batch}-{n}", "data": "." * 200}
                    for n in range(7)
                ]
                while not await self._stored(client, signals):  # noqa: ASYNC110 - what changes is in another process
                    await trio.sleep(0.05)

    async def _stored(self, client: httpx.AsyncClient, signals: list[dict[str, Any]]) -> bool:
        with suppress(*ENDED):
            answer = await client.post(f"{self._url}/v1/signals", json=signals)
            answer.raise_for_status()
            self.told.update(answer.json()["offsets"])
            return True
        return False


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpx does not end its generators
def test_an_event_source_misses_doubles_and_reorders_nothing_over_kills(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", free_port())
    follower = Follower(f"{server.url}/v1/sse?from=earliest")
    publisher = Publisher(server.url)
    rng = random.Random(7)

    async def main() -> None:
        await server.start()
        try:
            with trio.fail_after(PATIENCE_S):
                async with trio.open_nursery() as following:
                    following.start_soon(follower.follow)
                    async with trio.open_nursery() as publishing:
                        for number in range(3):
                            publishing.start_soon(publisher.publish, f"p{number}")
                        for kill in range(KILLS):
                            seen = len(follower.offsets)
                            await _until(lambda kill=kill, seen=seen: follower.opened > kill)
                            await _until(lambda seen=seen: len(follower.offsets) > seen)
                            await trio.sleep(rng.uniform(0.0, 0.5))
                            server.kill()
                            await server.start()
                        await _until(lambda: follower.opened > KILLS)
                        publisher.stopping = True
                    await _until(lambda: follower.offsets[-1] >= max(publisher.told))
                    following.cancel_scope.cancel()
        finally:
            server.kill()

    trio.run(main)
    assert follower.offsets == list(range(1, len(follower.offsets) + 1))
    assert publisher.told <= set(follower.offsets)
    assert len(publisher.told) > 100
    assert follower.others == []


async def _until(done: Any) -> None:
    while not done():  # noqa: ASYNC110 - what changes is in another process
        await trio.sleep(0.02)
