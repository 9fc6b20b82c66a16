"""Clients are sent elsewhere: asked a few at a time, served meanwhile, and none loses or doubles a signal."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio

from actors.app import app
from actors.filters import Filter
from actors.protocol.codes import CloseCode
from actors.settings import ConnectionSettings, Settings
from actors.signals import Draft
from actors.stream import STREAM
from runtime.testing import RunningServer, start_server

MOVING = Settings(sources_enabled=False, connections=ConnectionSettings(handover_s=10.0))
SUBS = [{"s": "all", "filter": {}}]


def stream(server: RunningServer) -> Any:
    return server.env.broadcasters.get_by_name(STREAM)


def shard(server: RunningServer, number: int) -> Any:
    return server.env.shards.get_by_name(f"shard-{number}")


async def publish_for(server: RunningServer, seconds: float, log: list[int]) -> None:
    with trio.move_on_after(seconds):
        while True:
            published = await stream(server).publish((Draft.of("a.b" if len(log) % 3 else "c.d", "e", len(log)),))
            log.append(published.receipts[0].offset)
            await trio.sleep(0.01)


async def follow_many(server: RunningServer, nursery: trio.Nursery, follower: Any, count: int) -> list[Any]:
    followers = [follower(server, seed) for seed in range(count)]
    for one in followers:
        one.subscribe("all", Filter.parse({}), "earliest")
        one.subscribe("some", Filter.parse({"types": ["a.>"]}), "earliest")
        one.subscribe("none", Filter.parse({"types": ["never"]}))
        await nursery.start(one.run)
    await trio.sleep(1)
    return followers


def check(followers: list[Any], log: list[int]) -> None:
    for one in followers:
        assert one.offsets["all"] == log
        assert one.offsets["some"] == [o for n, o in enumerate(log) if n % 3]
        assert not one.gaps
        assert not one.detected
        assert set(one.states.values()) == {"live"}


async def test_clients_of_a_shard_open_their_next_socket_before_they_leave(autojump_clock: Any, follower: Any) -> None:
    async with start_server(app, settings=MOVING) as server, trio.open_nursery() as nursery:
        followers = await follow_many(server, nursery, follower, 10)
        log: list[int] = []
        async with trio.open_nursery() as busy:
            busy.start_soon(publish_for, server, 20, log)
            await trio.sleep(1)
            await shard(server, 0).rebalance()
            await shard(server, 1).rebalance()
        await trio.sleep(60)
        check(followers, log)
        assert all(one.sockets >= 2 for one in followers)
        assert all("reconnecting" not in one.client_states for one in followers)
        assert all(one.client_states.count("draining") == one.sockets - 1 for one in followers)
        nursery.cancel_scope.cancel()


async def test_a_server_that_goes_down_sends_its_clients_away_and_they_come_back(
    autojump_clock: Any, follower: Any
) -> None:
    settings = Settings(sources_enabled=False)
    async with start_server(app, settings=settings) as server, trio.open_nursery() as nursery:
        followers = await follow_many(server, nursery, follower, 10)
        log: list[int] = []
        await publish_for(server, 1, log)
        for _ in range(3):
            await server.restart()
            await publish_for(server, 3, log)
        await trio.sleep(60)
        check(followers, log)
        assert {code for one in followers for code in one.codes} == {CloseCode.SHUTDOWN}
        nursery.cancel_scope.cancel()


async def test_a_client_that_does_not_know_goaway_is_closed_in_its_turn(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=MOVING) as server:
        async with peer(server, {"subs": SUBS}) as p, peer(server, {"subs": SUBS, "features": ["goaway"]}) as q:
            assert (await p.receive())["t"] == (await q.receive())["t"] == "live"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.stop)
                told = await q.receive()
                assert (told["t"], told["reason"], told["deadline_ms"]) == ("goaway", "shutdown", 10_000)
                assert told["after_ms"] == [0, 5_000]
                assert (await p.closed())[0] == CloseCode.SHUTDOWN
                await stream(server).publish((Draft.of("a", "e", 1),))
                assert (await q.receive())["b"] == 1, "it is served until its time is over"
                began = trio.current_time()
                assert (await q.closed())[0] == CloseCode.SHUTDOWN
                assert trio.current_time() - began > 9
        await server.start()


async def test_at_most_so_many_clients_are_asked_in_a_second(autojump_clock: Any, peer: Any) -> None:
    connections = ConnectionSettings(handover_s=10.0, moves_per_s=20)
    settings = Settings(sources_enabled=False, connections=connections)
    times: list[float] = []

    async def client(server: RunningServer) -> None:
        async with peer(server, {"features": ["goaway"]}) as p:
            assert (await p.receive())["t"] == "goaway"
            times.append(trio.current_time())

    async with start_server(app, settings=settings) as server:
        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(client, server)
            await trio.sleep(1)
            nursery.start_soon(server.stop)
        times.sort()
        assert all(later - sooner > 0.9 for sooner, later in zip(times, times[22:], strict=False))
        assert times[-1] - times[0] < 4
        await trio.sleep(30)
        await server.start()


async def test_a_draining_server_refuses_new_clients_until_it_hurries(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=MOVING) as server:
        async with peer(server, {"features": ["goaway"]}) as p:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.stop)
                assert (await p.receive())["t"] == "goaway"
                refused = await server.request(
                    "GET",
                    "/v1/stream",
                    headers={
                        "connection": "upgrade",
                        "upgrade": "websocket",
                        "sec-websocket-version": "13",
                        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
                    },
                )
                assert (refused.status, refused.headers["retry-after"]) == (503, "1")
                began = trio.current_time()
                nursery.start_soon(lambda: server.stop(hurry=True))
                assert (await p.closed())[0] == 1001
                assert trio.current_time() - began < 1
        await server.start()


async def test_quiet_subscriptions_take_the_newest_cursor_along(autojump_clock: Any, peer: Any) -> None:
    quiet = [{"s": "none", "filter": {"types": ["never"]}}]
    async with start_server(app, settings=MOVING) as server:
        async with peer(server, {"subs": quiet, "features": ["goaway"]}) as p:
            assert (await p.receive())["t"] == "live"
            await stream(server).publish((Draft.of("a", "e", 1),))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.stop)
                position, goaway = await p.receive(), await p.receive()
                assert (position["t"], position["b"], position["d"]) == ("sig", 1, [])
                assert goaway["t"] == "goaway"
                nursery.start_soon(lambda: server.stop(hurry=True))
        await server.start()


async def test_goaway_says_where_to_go(autojump_clock: Any, peer: Any) -> None:
    connections = attrs.evolve(MOVING.connections, move_to="wss://other.example/v1/stream")
    async with start_server(app, settings=attrs.evolve(MOVING, connections=connections)) as server:
        async with peer(server, {"features": ["goaway"]}) as p, trio.open_nursery() as nursery:
            nursery.start_soon(server.stop)
            assert json.loads(json.dumps(await p.receive()))["url"] == "wss://other.example/v1/stream"
            nursery.start_soon(lambda: server.stop(hurry=True))
        await server.start()
    with pytest.raises(ValueError, match="must be empty, or begin with"):
        ConnectionSettings(move_to="other.example")


async def test_who_has_been_connected_for_long_connects_anew(autojump_clock: Any, follower: Any, peer: Any) -> None:
    connections = ConnectionSettings(handover_s=4.0, age_max_s=300.0, moves_per_s=20)
    settings = Settings(sources_enabled=False, connections=connections)
    async with start_server(app, settings=settings) as server, trio.open_nursery() as nursery:
        followers = await follow_many(server, nursery, follower, 10)
        async with peer(server, {"subs": SUBS}) as p:
            async with trio.open_nursery() as beside:

                async def ping() -> None:
                    while True:
                        await trio.sleep(20)
                        await p.ws.send_message('{"t":"ping"}')

                beside.start_soon(ping)
                began = trio.current_time()
                assert (await p.closed())[0] == CloseCode.REBALANCE, "it does not know goaway"
                assert 299 < trio.current_time() - began < 310
                beside.cancel_scope.cancel()
        log: list[int] = []
        for _ in range(70):
            await publish_for(server, 0.05, log)
            await trio.sleep(10)
        await trio.sleep(60)
        check(followers, log)
        assert all(one.sockets in (4, 5) for one in followers)
        assert all("reconnecting" not in one.client_states for one in followers)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("closes", [True, False])
async def test_who_is_sent_away_alone_knows_first_how_far_it_is(autojump_clock: Any, peer: Any, closes: bool) -> None:
    async with start_server(app, settings=MOVING) as server, peer(server) as p:
        subs = [{"s": "quiet", "filter": {"types": ["never"]}}]
        welcome = await p.ask("hello", subs=subs, features=["goaway"])
        assert (await p.receive())["t"] == "live"
        for _ in range(3):
            await stream(server).publish((Draft.of("a.b", "e", 1),))
        session = welcome["session"]
        if closes:
            done = [await shard(server, n).dismiss(session, CloseCode.REBALANCE, "go") for n in range(2)]
        else:
            done = [await shard(server, n).send_away(session) for n in range(2)]
        assert sorted(done) == [False, True]
        told = await p.receive()
        assert (told["t"], told["a"], told["b"], told["d"]) == ("sig", 0, 3, [])
        if not closes:
            assert (await p.receive())["t"] == "goaway"
        assert (await p.closed())[0] == CloseCode.REBALANCE
