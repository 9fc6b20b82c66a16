"""Compression of the signal service: off unless configured, made once for a group, bounded on the way in."""

from __future__ import annotations

import json
import zlib
from collections import deque
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.app import app
from actors.settings import ConnectionSettings, Settings
from actors.stream import STREAM
from runtime.testing import start_server
from tests.deflating import deflating

PATH = "/v1/stream"
COMPRESSING = Settings(sources_enabled=False, shards=1, connections=ConnectionSettings(compression=True))
PLAIN = Settings(sources_enabled=False, shards=1)
SUBS = [{"s": "all", "filter": {}}]


class Client:
    """A compressing client that speaks `signals.v1`."""

    def __init__(self, wire: Any) -> None:
        self.wire = wire
        self._lines: deque[str] = deque()

    async def send(self, **fields: Any) -> None:
        await self.wire.send(json.dumps(fields))

    async def receive(self) -> Any:
        while not self._lines:
            message = await self.wire.receive()
            if not isinstance(message, str):
                return message
            self._lines.extend(message.split("\n"))
        return json.loads(self._lines.popleft())

    async def until(self, t: str) -> Any:
        while (message := await self.receive())["t"] != t:
            pass
        return message


@asynccontextmanager
async def connected(server: Any, subs: list[dict[str, Any]] = SUBS) -> Any:
    """A client that was welcomed; `.welcome` is what it was told."""
    stream = await server.network.connect("127.0.0.1", 8787)
    async with deflating(stream, PATH, "127.0.0.1:8787") as wire:
        client = Client(wire)
        await client.send(t="hello", id=1, features=["deflate", "goaway"], subs=subs)
        client.welcome = await client.until("welcome")
        yield client


async def publish(server: Any, *data: object) -> None:
    signals = [{"type": "price.tick", "entity": "btc-usd", "data": one} for one in data]
    assert (await server.request("POST", "/v1/signals", json_body=signals)).status == 201


async def test_it_is_off_unless_configured(autojump_clock: Any) -> None:
    async with start_server(app, settings=PLAIN) as server, connected(server) as client:
        assert client.wire.agreed == []
        assert client.welcome["features"] == ["goaway"]
        await publish(server, "x")
        assert (await client.until("sig"))["d"][0]["data"] == "x"
        assert client.wire.received[0] == 0x81


async def test_who_offers_it_is_served_compressed_and_told_so(autojump_clock: Any) -> None:
    async with start_server(app, settings=COMPRESSING) as server, connected(server) as client:
        assert client.welcome["features"] == ["goaway", "deflate"]
        before = len(client.wire.received)
        await publish(server, "x" * 10_000)
        assert (await client.until("sig"))["d"][0]["data"] == "x" * 10_000
        assert len(client.wire.received) - before < 1_000


async def test_who_does_not_offer_it_gets_the_same_signals_as_they_are(autojump_clock: Any, peer: Any) -> None:
    async with (
        start_server(app, settings=COMPRESSING) as server,
        connected(server) as client,
        peer(server, {"features": ["deflate"], "subs": SUBS}) as other,
    ):
        assert (await other.receive())["t"] == "live"
        await publish(server, 1, 2)
        assert (await client.until("sig"))["d"] == (await other.receive())["d"]


async def test_a_frame_is_compressed_once_for_all_members_of_a_group(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        start_server(app, settings=COMPRESSING) as server,
        connected(server) as a,
        connected(server) as b,
        connected(server, [*SUBS, {"s": "price", "filter": {"types": ["price.>"]}}]) as both,
    ):
        for client in (a, b, both):
            await client.until("live")
        await both.until("live")
        made = 0
        compressobj = zlib.compressobj

        def counted(*how: Any) -> Any:
            nonlocal made
            made += 1
            return compressobj(*how)

        monkeypatch.setattr("runtime.frames.zlib.compressobj", counted)
        at = {client: len(client.wire.received) for client in (a, b)}
        await publish(server, "x" * 1_000)
        first = [await client.until("sig") for client in (a, b, both, both)]
        monkeypatch.undo()
        assert [one["d"][0]["data"] for one in first] == ["x" * 1_000] * 4
        assert made == 2  # two groups, whoever their members are
        assert a.wire.received[at[a] :] == b.wire.received[at[b] :]


async def test_a_compressed_message_may_inflate_to_ten_times_the_limit_and_no_further(autojump_clock: Any) -> None:
    async with start_server(app, settings=COMPRESSING) as server:
        async with connected(server) as client:
            signal = {"type": "a", "entity": "b", "data": "x" * 60_000}
            await client.send(t="pub", id=2, signal=signal)
            assert (await client.until("ok"))["o"] == 1
            await client.send(t="pub", id=3, signal={**signal, "data": "x" * 163_841})
            await client.until("sig")
            code, reason = await client.receive()
            assert (code, reason) == (1009, "Message is too large once inflated: more than 163840")


async def test_who_breaks_the_websocket_protocol_is_forgotten(autojump_clock: Any) -> None:
    async with start_server(app, settings=COMPRESSING) as server, connected(server) as client:
        shard = server.env.shards.get_by_name("shard-0")
        assert await server.run_in(shard, lambda one: len(one._connections)) == 1
        await client.wire.stream.send_all(b"\x83\x80\0\0\0\0")  # an opcode that nobody knows
        await client.until("live")
        assert (await client.receive())[0] == 1002
        assert await server.run_in(shard, lambda one: len(one._connections)) == 0
        await publish(server, 1)
        stream = server.env.broadcasters.get_by_name(STREAM)
        assert (await stream.bounds()).head == 1
