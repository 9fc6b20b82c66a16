"""Named streams: each has a log, an epoch and connections of its own, and there are no others than those configured."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import trio
import trio_websocket

from actors.app import app
from actors.client import ClientClosed, Gap, SignalClient
from actors.client.address import Address
from actors.client.errors import InvalidUrl
from actors.client.websocket import websocket_connect
from actors.settings import ConnectionSettings, Settings, SourceSettings
from actors.stream import STREAM, shard_name, stream_of
from runtime.testing import start_server

TWO = Settings(sources_enabled=False, shards=2, streams=("orders", "a_B-9"))


def signal(data: object, id_: str | None = None) -> dict[str, object]:
    return {"type": "price.tick", "entity": "btc-usd", "data": data} | ({} if id_ is None else {"id": id_})


def client(server: Any, url: str = "http://127.0.0.1:8787", **how: Any) -> SignalClient:
    connect = websocket_connect(lambda address: server.network.connect(address.host, address.port))
    return SignalClient(url, connect=connect, random=random.Random(1), **how)


async def refused_with(server: Any, path: str) -> int:
    with pytest.raises(ExceptionGroup) as group:
        async with server.connect(path):
            pass
    error: BaseException = group.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, trio_websocket.ConnectionRejected)
    return error.status_code


async def read(server: Any, path: str) -> Any:
    return json.loads((await server.request("GET", path)).body)


async def published(server: Any, path: str, *signals: dict[str, object]) -> Any:
    answer = await server.request("POST", path, json_body=list(signals))
    assert answer.status == 201, answer.body
    return json.loads(answer.body)


async def test_each_stream_has_its_own_log_offsets_epoch_and_ids(autojump_clock: Any) -> None:
    async with start_server(app, settings=TWO) as server:
        first = await published(server, "/v1/signals", signal("here", "same"))
        other = await published(server, "/v1/streams/orders/signals", signal("there", "same"), signal("more"))
        assert (first["offsets"], other["offsets"], other["dup"]) == ([1], [1, 2], [False, False])
        assert first["epoch"] != other["epoch"]
        pages = {
            path: await read(server, path)
            for path in ("/v1/history", "/v1/streams/main/history", "/v1/streams/orders/history")
        }
        assert [[one["data"] for one in page["d"]] for page in pages.values()] == [
            ["here"],
            ["here"],
            ["there", "more"],
        ]
        assert (await read(server, "/v1/streams/a_B-9/history"))["head"] == 0
        foreign = await server.request("GET", f"/v1/history?after={other['epoch']}:1")
        assert foreign.status == 412


@pytest.mark.parametrize("name", ["payments", "Orders", "orders%20", "x" * 65, "..", "orders/shard-0"])
async def test_a_name_that_is_not_configured_is_answered_with_404(autojump_clock: Any, name: str) -> None:
    async with start_server(app, settings=TWO) as server:
        for method, path in (("GET", "history"), ("POST", "signals")):
            answer = await server.request(method, f"/v1/streams/{name}/{path}", body=b"[]")
            assert answer.status == 404
        assert await refused_with(server, f"/v1/streams/{name}") == 404
        assert server.list_ids(server.env.broadcasters) == []


async def test_without_configured_streams_there_is_one(autojump_clock: Any) -> None:
    async with start_server(app, settings=Settings(sources_enabled=False)) as server:
        answer = await server.request("GET", "/v1/streams/orders/history")
        assert answer.status == 404
        assert json.loads(answer.body)["slug"] == "no_stream"
        assert "'orders'" in json.loads(answer.body)["msg"]
        assert (await server.request("GET", "/v1/streams/main/history")).status == 200


async def test_a_client_gets_the_signals_of_its_stream_alone(autojump_clock: Any) -> None:
    async with start_server(app, settings=TWO) as server:
        async with (
            client(server) as plain,
            client(server, stream="orders", encoding="msgpack") as orders,
            client(server, "ws://127.0.0.1:8787/v1/streams/orders") as by_url,
        ):
            async with plain.subscribe() as a, orders.subscribe(since="earliest") as b, by_url.subscribe() as c:
                await trio.sleep(1)
                assert (await orders.publish("order.paid", "x", 1)).offset == 1
                assert (await plain.publish("price.tick", "x", 2)).offset == 1
                assert (await by_url.publish("order.paid", "x", 3)).offset == 2
                await trio.sleep(1)
                got = {name: [(await anext(sub)).data] for name, sub in (("a", a), ("b", b), ("c", c))}
                for name, sub in (("b", b), ("c", c)):
                    got[name].append((await anext(sub)).data)
                assert got == {"a": [2], "b": [1, 3], "c": [1, 3]}
                with trio.move_on_after(5) as scope:
                    await anext(a)
                assert scope.cancelled_caught


async def test_connections_of_a_stream_are_in_shards_of_its_own(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=TWO) as server:
        async with client(server, stream="orders") as orders, client(server):
            async with orders.subscribe() as sub:
                await trio.sleep(1)
                names = {id_.name for id_ in server.list_ids(server.env.shards)}
                assert {stream_of(str(name)) for name in names} == {STREAM, "orders"}
                for name in names:
                    await server.evict(server.env.shards.get_by_name(name))
                await server.evict(server.env.broadcasters.get_by_name("orders"))
                await orders.publish("order.paid", "x", "after")
                assert (await anext(sub)).data == "after"


def test_names_of_shards_say_whose_they_are() -> None:
    assert (shard_name(1), shard_name(0, "orders")) == ("shard-1", "orders/shard-0")
    for stream in (STREAM, "orders", "shard-0"):
        assert stream_of(shard_name(3, stream)) == stream


async def test_a_source_publishes_to_the_stream_that_it_names(autojump_clock: Any) -> None:
    source = SourceSettings(kind="host", stream="orders")
    async with start_server(app, settings=Settings(sources=(source,), streams=("orders",))) as server:
        await trio.sleep(5)
        assert (await read(server, "/v1/streams/orders/history"))["head"] > 0
        assert (await read(server, "/v1/history"))["head"] == 0


async def test_clients_of_every_stream_are_sent_elsewhere_when_the_server_stops(autojump_clock: Any) -> None:
    settings = Settings(
        sources_enabled=False, streams=("orders",), connections=ConnectionSettings(handover_s=1.0, moves_per_s=10)
    )
    async with start_server(app, settings=settings) as server, client(server, stream="orders") as orders:
        async with orders.subscribe() as sub:
            with orders.events() as events:
                await orders.publish("order.paid", "x", 1)
                await server.stop()
                await server.start()
                await orders.publish("order.paid", "x", 2)
                assert [(await anext(sub)).data for _ in range(2)] == [1, 2]
                states: list[str] = []
                while "draining" not in states:
                    states.append(getattr(await anext(events), "state", ""))


async def test_a_stream_that_was_brought_back_tells_its_own_clients(autojump_clock: Any) -> None:
    async with start_server(app, settings=TWO) as server, client(server, stream="orders") as orders:
        async with orders.subscribe(on_gap="skip") as sub, client(server) as plain, plain.subscribe() as other:
            await orders.publish("order.paid", "x", 1)
            assert (await anext(sub)).data == 1

            async def bring_back(broadcaster: Any) -> None:
                storage = broadcaster.ctx.storage
                await storage.on_next_session_restore_bookmark(await storage.get_current_bookmark())
                broadcaster.ctx.abort("brought back")

            stream = server.env.broadcasters.get_by_name("orders")
            with pytest.raises(Exception, match="brought back"):
                await server.run_in(stream, bring_back)
            gap = await anext(sub)
            assert isinstance(gap, Gap)
            assert gap.reason == "epoch"
            await plain.publish("price.tick", "x", 2)
            assert (await anext(other)).data == 2


async def test_a_client_of_an_unknown_stream_is_told_so_and_stops(autojump_clock: Any) -> None:
    async with start_server(app, settings=TWO) as server, client(server, stream="payments") as one:
        with pytest.raises(ClientClosed, match="no stream named 'payments'"):
            await one.publish("a", "b", 1)


@pytest.mark.parametrize(
    ("url", "stream", "resource"),
    [
        ("h:1", None, "/v1/stream"),
        ("h:1", "orders", "/v1/streams/orders"),
        ("http://h/base/", "orders", "/base/v1/streams/orders"),
        ("http://h/base/v1/stream", "orders", "/base/v1/streams/orders"),
        ("http://h/v1/streams/orders", None, "/v1/streams/orders"),
        ("http://h/v1/streams/orders?x=1", "other", "/v1/streams/other?x=1"),
    ],
)
def test_addresses(url: str, stream: str | None, resource: str) -> None:
    assert Address.parse(url, stream).resource == resource


def test_mistakes_name_what_is_allowed() -> None:
    with pytest.raises(InvalidUrl, match="stream is 'a b'"):
        SignalClient(stream="a b")
    for names, message in (
        (("a b",), "'a b'; a stream's name is"),
        (("a", "a"), "name each stream once"),
        ((STREAM,), "which always are"),
        (tuple(map(str, range(65))), "at most 64"),
    ):
        with pytest.raises(ValueError, match=message):
            Settings(streams=names)
    with pytest.raises(ValueError, match="stream is 'orders'; `streams` has main"):
        Settings(sources=(SourceSettings(kind="host", stream="orders"),))
