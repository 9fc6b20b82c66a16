"""Clients of both encodings on one server: the same signals, one frame for each group and encoding."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgpack
import pytest
import trio_websocket

from actors.app import app
from actors.client import ClientClosed, PublishRefused, SignalClient
from actors.client.websocket import websocket_connect
from actors.connections import ConnectionManager
from actors.protocol import messagepack
from actors.protocol.codes import CloseCode
from actors.protocol.encoding import ENCODINGS
from actors.settings import ConnectionSettings, Settings
from runtime import PreparedMessage
from runtime.testing import start_server
from tests.deflating import deflating

QUIET = Settings(sources_enabled=False, shards=2)
ONE = Settings(sources_enabled=False, shards=1)
SUBS = [{"s": "all", "filter": {}}]
MSGPACK = "signals.v1.msgpack"


class PackedPeer:
    """A client that sends and receives messages as they are on the wire."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws
        self.frames: list[bytes] = []
        self._messages: list[Any] = []

    async def send(self, *messages: Any) -> None:
        await self.ws.send_message(b"".join(map(msgpack.packb, messages)))

    async def receive(self) -> Any:
        while not self._messages:
            frame = await self.ws.get_message()
            assert isinstance(frame, bytes), frame
            self.frames.append(frame)
            self._messages = [msgpack.unpackb(one) for one in messagepack.split(frame)]
        return self._messages.pop(0)

    async def until(self, t: str) -> Any:
        while (message := await self.receive())["t"] != t:
            pass
        return message


@asynccontextmanager
async def packed(server: Any, **hello: Any) -> AsyncGenerator[PackedPeer]:
    async with server.connect("/v1/stream", subprotocols=[MSGPACK]) as ws:
        assert ws.subprotocol == MSGPACK
        peer = PackedPeer(ws)
        await peer.send({"t": "hello", "id": 1, **hello})
        yield peer


async def publish(server: Any, *data: object) -> None:
    signals = [{"type": "price.tick", "entity": "btc-usd", "data": one} for one in data]
    assert (await server.request("POST", "/v1/signals", json_body=signals)).status == 201


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([MSGPACK], MSGPACK),
        ([MSGPACK, "signals.v1.json"], "signals.v1.json"),
        (["signals.v9.json", MSGPACK], MSGPACK),
        ([], None),
    ],
)
async def test_the_server_picks_the_first_that_it_likes(autojump_clock: Any, offered: list[str], chosen: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        async with server.connect("/v1/stream", subprotocols=offered) as ws:
            assert ws.subprotocol == chosen


async def test_every_request_and_answer_goes_through(autojump_clock: Any) -> None:
    async with start_server(app, settings=ONE) as server, packed(server, features=["msgpack"], subs=SUBS) as peer:
        assert (await peer.receive())["features"] == ["msgpack"]
        assert (await peer.receive())["t"] == "live"
        data = {"pct": 2.5, "n": 2**53 - 1, "l": [1.0, -1, None, True, "é", {}]}
        signal = {"type": "a", "entity": "b", "data": data, "tags": {"venue": "X"}}
        await peer.send(
            {"t": "pub", "id": 2, "signal": signal}, {"t": "sub", "id": 3, "s": "old", "filter": {}, "from": "earliest"}
        )
        assert (await peer.receive())["o"] == 1
        found = {message["t"]: message for message in [await peer.receive() for _ in range(4)]}
        assert found["sig"]["d"][0]["data"] == data
        assert type(found["sig"]["d"][0]["data"]["l"][0]) is float
        assert found["subok"]["id"] == 3
        await peer.send({"t": "hist", "id": 4, "filter": {}, "from": "earliest"})
        page = await peer.until("page")
        assert page["d"][0]["data"] == data
        await peer.send({"t": "mod", "id": 5, "s": "old", "filter": {"types": ["b"]}})
        assert (await peer.until("subok"))["filter"] == {"types": ["b"]}
        await peer.send({"t": "sub", "id": 6, "s": "snap", "filter": {}, "from": "snapshot"})
        assert (await peer.until("snap"))["d"][0]["data"] == data
        await peer.send({"t": "unsub", "id": 7, "s": "snap"})
        assert (await peer.until("ok"))["id"] == 7
        await peer.ws.send_message('{"t":"ping"}')
        assert await peer.ws.get_message() == '{"t":"pong"}'


async def test_members_of_both_encodings_get_the_same(autojump_clock: Any, peer: Any) -> None:
    async with (
        start_server(app, settings=QUIET) as server,
        packed(server, subs=SUBS) as a,
        packed(server, subs=SUBS) as b,
        peer(server, {"subs": SUBS}) as c,
        peer(server, {"subs": SUBS}) as d,
    ):
        for client in (a, b):
            await client.until("live")
        for client in (c, d):
            assert (await client.receive())["t"] == "live"
        await publish(server, {"p": 1.5}, "two")
        frames = [await a.until("sig"), await b.until("sig"), await c.receive(), await d.receive()]
        assert all(frame == frames[0] for frame in frames)
        assert frames[0]["d"][0]["data"] == {"p": 1.5}
        assert a.frames[-1] == b.frames[-1]


async def test_a_signal_is_packed_once_and_only_for_those_who_want_it(
    autojump_clock: Any, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all groups, shards and members; and a frame is made once for a group and an encoding."""
    packs = frames = 0
    dump, of = messagepack.dump, PreparedMessage.of

    def counted_dump(value: Any) -> bytes:
        nonlocal packs
        packs += "data" in value
        return dump(value)

    def counted_of(message: str | bytes) -> PreparedMessage:
        nonlocal frames
        frames += 1
        return of(message)

    two = [*SUBS, {"s": "price", "filter": {"types": ["price.>"]}}]
    async with start_server(app, settings=QUIET) as server, peer(server, {"subs": two}) as plain:
        assert [(await plain.receive())["t"] for _ in range(2)] == ["live", "live"]
        monkeypatch.setattr(messagepack, "dump", counted_dump)
        await publish(server, "nobody wants it packed")
        assert [(await plain.receive())["t"] for _ in range(2)] == ["sig", "sig"]
        assert packs == 0
        async with packed(server, subs=two) as a, packed(server, subs=two) as b, packed(server, subs=two) as c:
            for client in (a, b, c):
                assert [(await client.receive())["t"] for _ in range(3)] == ["welcome", "live", "live"]
            monkeypatch.setattr(PreparedMessage, "of", counted_of)
            await publish(server, "x" * 1_000)
            for client in (plain, a, b, c):
                assert [(await client.receive())["t"] for _ in range(2)] == ["sig", "sig"]
        assert packs == 1
        assert frames == 2 + 2 * 2  # JSON in one shard, MessagePack in two, two groups each


@pytest.mark.parametrize("bad", [b"\xc1", b"\xdd\xff\xff\xff\xff", msgpack.packb({"t": b"x"}), b""])
async def test_a_bad_message_is_answered_and_many_close(autojump_clock: Any, bad: bytes) -> None:
    async with start_server(app, settings=ONE) as server, packed(server) as peer:
        await peer.until("welcome")
        for _ in range(11):
            await peer.ws.send_message(bad)
            assert (await peer.until("err"))["code"] == 400
        with pytest.raises(trio_websocket.ConnectionClosed) as ended:
            await peer.receive()
        assert ended.value.reason.code == CloseCode.BAD_MESSAGE


async def test_texts_under_msgpack_and_bytes_under_json_are_refused(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=ONE) as server:
        async with packed(server) as one:
            await one.until("welcome")
            await one.ws.send_message('{"t":"unsub","id":2,"s":"x"}')
            assert (await one.until("err"))["msg"].startswith("a text frame")
        async with peer(server, {}) as other:
            await other.ws.send_message(msgpack.packb({"t": "unsub", "id": 2, "s": "x"}))
            assert (await other.receive())["msg"].startswith("a binary frame")


async def test_random_bytes_disturb_nobody_else(autojump_clock: Any, peer: Any) -> None:
    """Each who sends them is answered 400, or closed; who listens beside them gets every signal."""
    rng = random.Random(6)
    async with start_server(app, settings=ONE) as server, peer(server, {"subs": SUBS}) as listener:
        assert (await listener.receive())["t"] == "live"
        for number in range(60):
            async with packed(server, subs=SUBS) as fuzzer:
                await fuzzer.until("live")
                frames = [rng.randbytes(rng.randint(1, 300)) for _ in range(rng.randint(1, 15))]
                if number % 2:  # or what is nearly right
                    frames = [
                        _flipped(rng, msgpack.packb({"t": "sub", "id": 9, "s": "x", "filter": {}, "from": {"last": 3}}))
                    ]
                with suppress(trio_websocket.ConnectionClosed):
                    for frame in frames:
                        await fuzzer.ws.send_message(frame)
                    await fuzzer.ws.send_message(msgpack.packb({"t": "unsub", "id": 77, "s": "nobody"}))
                    while (answer := await fuzzer.receive()).get("id") != 77:
                        assert answer["t"] != "err" or answer["code"] in (400, 404, 413, 422), answer
                assert fuzzer.ws.closed is None or fuzzer.ws.closed.code == CloseCode.BAD_MESSAGE
            await publish(server, number)
            assert (await listener.receive())["d"][0]["data"] == number


def _flipped(rng: random.Random, data: bytes) -> bytes:
    flipped = bytearray(data)
    flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


async def test_the_encoding_of_a_socket_survives_that_its_shard_leaves_memory(autojump_clock: Any, peer: Any) -> None:
    async with (
        start_server(app, settings=ONE) as server,
        packed(server, subs=SUBS) as a,
        peer(server, {"subs": SUBS}) as b,
    ):
        await a.until("live")
        assert (await b.receive())["t"] == "live"
        await server.evict(server.env.shards.get_by_name("shard-0"))
        await publish(server, "after")
        assert (await a.until("sig"))["d"] == (await b.receive())["d"]
        await a.send({"t": "unsub", "id": 2, "s": "all"})
        assert (await a.until("ok"))["id"] == 2


async def test_what_was_missed_is_read_from_the_log_in_both(
    autojump_clock: Any, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        start_server(app, settings=ONE) as server,
        packed(server, subs=SUBS) as a,
        packed(server, subs=[{"s": "all", "filter": {}, "mode": "latest", "min_ms": 20}]) as latest,
        peer(server, {"subs": SUBS}) as b,
    ):
        for client in (a, latest):
            await client.until("live")
        assert (await b.receive())["t"] == "live"

        async def lost(shard: ConnectionManager, deliveries: object) -> None:
            pass

        with monkeypatch.context() as patch:
            patch.setattr(ConnectionManager, "deliver", lost)
            await publish(server, "missed", "too")
            await server.run_in(server.env.shards.get_by_name("shard-0"), lambda _: None)
        await publish(server, "seen")
        packed_data: list[Any] = []
        plain_data: list[Any] = []
        while len(packed_data) < 3:
            packed_data += [one["data"] for one in (await a.until("sig"))["d"]]
        while len(plain_data) < 3:
            plain_data += [one["data"] for one in (await b.receive())["d"]]
        assert packed_data == plain_data == ["missed", "too", "seen"]
        assert (await latest.until("sig"))["d"][-1]["data"] == "seen"


async def test_a_compressed_packed_message_is_bounded(autojump_clock: Any) -> None:
    settings = Settings(sources_enabled=False, shards=1, connections=ConnectionSettings(compression=True))
    async with start_server(app, settings=settings) as server:
        stream = await server.network.connect("127.0.0.1", 8787)
        async with deflating(stream, "/v1/stream", "127.0.0.1:8787", subprotocols=[MSGPACK]) as wire:
            await wire.send(msgpack.packb({"t": "hello", "id": 1, "subs": SUBS}))
            assert isinstance(await wire.receive(), bytes)
            signal = {"type": "a", "entity": "b", "data": "x" * 163_841}
            await wire.send(msgpack.packb({"t": "pub", "id": 3, "signal": signal}))
            while isinstance(answer := await wire.receive(), bytes):
                pass
            assert answer[0] == 1009


# --- the Python client -----------------------------------------------------------------------------------------


def client(server: Any, **how: Any) -> SignalClient:
    connect = websocket_connect(lambda address: server.network.connect(address.host, address.port))
    return SignalClient("http://127.0.0.1:8787", connect=connect, random=random.Random(1), **how)


async def test_the_python_client_speaks_both(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        async with client(server, encoding="msgpack") as one, client(server) as other:
            async with one.subscribe(since="earliest") as packed_sub, other.subscribe(since="earliest") as plain_sub:
                ack = await one.publish("a", "b", {"p": 1.0, "l": [None]})
                assert ack.offset == 1
                await other.publish("a", "b", "é")
                got = [await anext(sub) for sub in (packed_sub, plain_sub) for _ in range(2)]
                assert [signal.json for signal in got[:2]] == [signal.json for signal in got[2:]]


async def test_a_publication_that_is_too_large_once_it_is_packed_is_refused_by_the_client(autojump_clock: Any) -> None:
    """Numbers with few digits take nine bytes there: it would be closed with 1009, which ends a client for good."""
    async with start_server(app, settings=QUIET) as server, client(server, encoding="msgpack") as one:
        numbers = [0.5] * 3_000
        assert len(json.dumps(numbers, separators=(",", ":"))) < 16_000
        with pytest.raises(PublishRefused) as refused:
            await one.publish("a", "b", numbers)
        assert refused.value.code == 413
        assert (await one.publish("a", "b", numbers[:1_000])).offset == 1


async def test_a_server_that_does_not_know_it_is_told_from_one_that_is_down(
    autojump_clock: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("actors.admission.ENCODINGS", {"json": ENCODINGS["json"]})
    async with start_server(app, settings=QUIET) as server, client(server, encoding="msgpack") as one:
        with pytest.raises(ClientClosed, match=r"signals\.v1\.msgpack"):
            await one.publish("a", "b", 1)
    with pytest.raises(ValueError, match="'json' or 'msgpack'"):
        SignalClient(encoding="xml")
