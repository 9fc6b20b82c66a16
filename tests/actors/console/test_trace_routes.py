"""One signal in the console: when it came, was held against filters, was stored, and was handed to sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from actors.app import app
from actors.signal_tracer import TRACES
from actors.signals import Draft
from runtime.storage.memory import MemoryStore
from runtime.testing import start_server
from tests.actors.console.test_connection_routes import client
from tests.actors.console.test_console import QUIET, get

ONE_SHARD = attrs.evolve(QUIET, shards=1)
NAMES = ["ingested", "evaluated", "stored", "first delivery", "last delivery"]


@asynccontextmanager
async def looking(server):
    """The page of signals is open, and the stream knows that."""

    async def look():
        while True:
            await get(server, "/trace/main")
            await trio.sleep(2)

    async with trio.open_nursery() as page:
        page.start_soon(look)
        await trio.sleep(1)
        yield
        page.cancel_scope.cancel()


async def trace(server, offset, stream="main"):
    return await get(server, f"/trace/{stream}/{offset}")


async def test_the_way_of_a_signal_is_shown_in_order_with_its_times(autojump_clock):
    slow_disk = MemoryStore(delay=0.05)
    async with start_server(app, settings=ONE_SHARD, store=slow_disk) as server, looking(server):
        async with client(server), client(server, subs=({"s": "b", "filter": {"types": ["none.>"]}},)):
            await server.env.broadcasters.get_by_name("main").publish(
                (Draft.of("a.b", "e", 1), Draft.of("none.x", "e", 2))
            )
            await trio.sleep(1)
            found = await trace(server, 1)
            assert (found["found"], found["offset"], found["type"], found["entity"]) == (True, 1, "a.b", "e")
            steps = found["steps"]
            assert [step["name"] for step in steps] == NAMES
            assert [step["after_ms"] for step in steps] == sorted(step["after_ms"] for step in steps)
            after = {step["name"]: step["after_ms"] for step in steps}
            assert after["evaluated"] < 1
            assert 50 <= after["stored"] < 51
            assert after["stored"] <= after["first delivery"] <= after["last delivery"] < 60
            assert steps[0]["at"] == found["ts"]
            assert steps[2]["at"] - steps[0]["at"] == pytest.approx(50, abs=1)
            detail = {step["name"]: step["detail"] for step in steps}
            assert detail["ingested"] == "published, with 1 more"
            assert detail["last delivery"] == "subscriptions that got it: shard-0: 1"
            both = await trace(server, 2)
            assert both["steps"][-1]["detail"] == "subscriptions that got it: shard-0: 2"


async def test_a_signal_that_nobody_is_subscribed_to_has_no_delivery(autojump_clock):
    async with start_server(app, settings=QUIET) as server, looking(server):
        await server.env.broadcasters.get_by_name("main").ingest("prices", None, "c1", (Draft.of("a.b", "e", 1),))
        await trio.sleep(1)
        found = await trace(server, 1)
        assert [step["name"] for step in found["steps"]] == NAMES[:3]
        assert found["steps"][0]["detail"] == "from the source prices"


async def test_every_shard_that_had_it_is_named_and_the_last_one_ends_it(autojump_clock):
    async with start_server(app, settings=QUIET) as server, looking(server):
        async with client(server), client(server), client(server), client(server):
            await server.env.broadcasters.get_by_name("main").publish((Draft.of("a.b", "e", 1),))
            await trio.sleep(1)
            last = (await trace(server, 1))["steps"][-1]
            assert last["detail"] in (
                "subscriptions that got it: shard-0: 2, shard-1: 2",
                "subscriptions that got it: shard-1: 2, shard-0: 2",
            )


async def test_event_sources_and_clients_that_may_be_slow_get_it_too(autojump_clock):
    careful = {"s": "b", "filter": {}, "on_slow": "skip"}
    async with start_server(app, settings=ONE_SHARD) as server, looking(server):
        async with client(server, subs=[careful]), server.stream("GET", "/v1/sse"):
            await server.env.broadcasters.get_by_name("main").publish((Draft.of("a.b", "e", 1),))
            await trio.sleep(1)
            steps = (await trace(server, 1))["steps"]
            assert [step["name"] for step in steps] == NAMES
            assert steps[-1]["detail"] == "subscriptions that got it: shard-0: 2"


async def test_two_subscriptions_of_one_client_are_two(autojump_clock):
    subs = [{"s": "a", "filter": {}}, {"s": "b", "filter": {}}]
    async with start_server(app, settings=ONE_SHARD) as server, looking(server), client(server, subs=subs):
        await server.env.broadcasters.get_by_name("main").publish((Draft.of("a.b", "e", 1),))
        await trio.sleep(1)
        assert (await trace(server, 1))["steps"][-1]["detail"] == "subscriptions that got it: shard-0: 2"


async def test_who_conflates_gets_it_later_or_a_newer_one_in_its_place(autojump_clock):
    latest = {"s": "c", "filter": {}, "mode": "latest", "min_ms": 500}
    async with start_server(app, settings=ONE_SHARD) as server, looking(server):
        stream = server.env.broadcasters.get_by_name("main")
        async with client(server), client(server, subs=[latest], features=["latest"]):
            await stream.publish((Draft.of("a.b", "e", 1),))
            await trio.sleep(0.1)
            await stream.publish((Draft.of("a.b", "e", 2), Draft.of("a.b", "other", 3)))
            await stream.publish((Draft.of("a.b", "e", 4),))
            await trio.sleep(2)
            first, replaced, other, newest = [(await trace(server, n))["steps"] for n in (1, 2, 3, 4)]
        both = "subscriptions that got it: shard-0: 1, shard-0: 1 latest"
        assert [steps[4]["detail"] for steps in (first, other, newest)] == [both] * 3
        assert first[4]["after_ms"] < 50 < 350 < newest[4]["after_ms"] < 450
        assert newest[3]["after_ms"] < 50
        assert [step["name"] for step in replaced] == [*NAMES, "replaced"]
        assert replaced[4]["detail"] == "subscriptions that got it: shard-0: 1"
        assert replaced[5]["detail"] == "by a newer one of its names, for subscriptions: shard-0: 1"
        assert replaced[5]["after_ms"] == pytest.approx(newest[4]["after_ms"], abs=1)


async def test_who_catches_up_is_the_last_to_get_it(autojump_clock):
    async with start_server(app, settings=ONE_SHARD) as server, looking(server):
        stream = server.env.broadcasters.get_by_name("main")
        async with client(server):
            await stream.publish((Draft.of("none.x", "e", 1), Draft.of("a.b", "e", 2)))
            await trio.sleep(3)
            late = {"s": "b", "filter": {"types": ["a.>"]}, "from": "earliest"}
            async with client(server, subs=[late]):
                await trio.sleep(1)
                steps = (await trace(server, 2))["steps"]
                assert [step["name"] for step in steps] == NAMES
                assert steps[3]["after_ms"] < 100
                assert 3_000 <= steps[4]["after_ms"] < 3_100
                assert steps[4]["detail"] == "subscriptions that got it: shard-0: 1, shard-0: 1 caught up"
                assert (await trace(server, 1))["steps"][4]["detail"] == "subscriptions that got it: shard-0: 1"


async def test_nothing_is_noted_while_nobody_looks(autojump_clock):
    async with start_server(app, settings=ONE_SHARD) as server:
        async with client(server):
            await server.env.broadcasters.get_by_name("main").publish((Draft.of("a.b", "e", 1),))
            await trio.sleep(1)
            assert server.live_ids(server.env.tracers) == []
            found = await trace(server, 1)
            assert (found["found"], found["type"], found["steps"]) == (False, "a.b", [])
            async with looking(server):
                pass
            await trio.sleep(30)
            await server.env.broadcasters.get_by_name("main").publish((Draft.of("a.b", "e", 2),))
            await trio.sleep(1)
            assert (await trace(server, 2))["found"] is False
            assert (await trace(server, 3)) == {
                "found": False,
                "offset": 3,
                "type": None,
                "entity": None,
                "ts": None,
                "steps": [],
            }


async def test_the_newest_traces_are_kept_for_as_long_as_somebody_looks(autojump_clock):
    async with start_server(app, settings=QUIET) as server, looking(server):
        stream = server.env.broadcasters.get_by_name("main")
        for _ in range(TRACES // 1_000 + 1):
            await stream.publish(tuple(Draft.of("a.b", "e", n) for n in range(1_000)))
        await trio.sleep(40)  # four times as long as an idle actor stays in memory
        newest = (TRACES // 1_000 + 1) * 1_000
        assert (await trace(server, newest))["found"] is True
        assert (await trace(server, newest - TRACES + 1))["found"] is True
        assert (await trace(server, newest - TRACES))["found"] is False


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("nowhere/1", 404, "no stream named 'nowhere'"),
        ("main/0", 400, "offset is '0'"),
        ("main/x", 400, "offset is 'x'"),
        ("main/1234567890123456", 400, "offset is"),
    ],
)
async def test_what_is_no_signal_is_refused(autojump_clock, path, status, told):
    async with start_server(app, settings=QUIET) as server:
        answer = await server.request("GET", f"/console/api/trace/{path}")
        assert answer.status == status
        assert told.encode() in answer.body
