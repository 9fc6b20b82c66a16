"""Subscriptions that are changed in place, and snapshots: exactly from where they are, whatever ends in between."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.filters import Filter
from actors.protocol.cursor import Ago, Last
from actors.protocol.remembered import Snapping, Subscription
from runtime import ActorError
from tests.actors.test_connections import ACTIONS, FILTERS, World, run

NAMED = {name: Filter.parse(filter_) for name, filter_ in FILTERS.items()}


def offsets(message: dict[str, Any]) -> list[int]:
    return [signal["o"] for signal in message["d"]]


def test_a_filter_is_changed_in_place_and_backfilled(peer: Any) -> None:
    async def scenario(world: World) -> None:
        await world.publish("price.tick", "rare.one", "alert.high", "rare.one")
        async with peer(world.server, hello={"features": ["mod", "snap"]}) as one:
            sub = await one.ask("sub", s="x", filter=FILTERS["price"])
            assert (await one.receive())["t"] == "live"
            ok = await one.ask("mod", s="x", filter=FILTERS["rare"], backfill={"last": 1})
            assert (ok["t"], ok["from"], ok["filter"], ok["recovered"]) == ("subok", sub["from"], FILTERS["rare"], None)
            assert ok["g"] != sub["g"]
            snap = await one.receive()
            assert (snap["t"], snap["b"], offsets(snap), snap["more"]) == ("snap", 4, [4], False)
            assert await one.receive() == {"t": "live", "s": "x", "g": ok["g"], "b": 4}
            await world.publish("price.tick", "rare.one")
            frame = await one.receive()
            assert (frame["g"], frame["a"], frame["b"], offsets(frame)) == (ok["g"], 4, 6, [6])
            await one.nothing_for(1)

    run(scenario)


def test_a_change_of_nothing_or_of_what_is_not_there(peer: Any) -> None:
    async def scenario(world: World) -> None:
        await world.publish("price.tick")
        async with peer(world.server, hello={}) as one:
            assert (await one.ask("mod", s="x"))["code"] == 404
            sub = await one.ask("sub", s="x", filter=FILTERS["price"])
            await one.receive()
            same = await one.ask("mod", s="x", backfill={"ago_ms": 60_000})
            assert (same["g"], same["from"]) == (sub["g"], sub["from"])
            assert offsets(await one.receive()) == []
            assert (await one.receive())["t"] == "live"
            bad = await one.ask("mod", s="x", filter={"types": []})
            assert (bad["code"], bad["slug"]) == (422, "bad_filter")

    run(scenario)


def test_a_snapshot_has_the_newest_signal_of_each_pair(peer: Any) -> None:
    async def scenario(world: World) -> None:
        await world.publish(*["price.tick", "price.spike", "price.tick", "alert.high"] * 200, "rare.one")
        async with peer(world.server, hello={}) as one:
            ok = await one.ask("sub", s="x", filter=FILTERS["price"], **{"from": "snapshot"})
            assert ok["from"].endswith(":801")
            snap = await one.receive()
            assert (snap["b"], offsets(snap), snap["more"]) == (801, [798, 799], False)
            assert (await one.receive())["t"] == "live"
            await world.publish("price.spike")
            assert offsets(await one.receive()) == [802]
            await one.ask("sub", s="y", filter=FILTERS["price"], **{"from": "snapshot"})
            assert offsets(await one.receive()) == [799, 802]

    run(scenario)


def test_what_is_as_old_as_that_or_newer(peer: Any) -> None:
    async def scenario(world: World) -> None:
        for _ in range(4):
            await world.publish("price.tick")
            await trio.sleep(1)
        async with peer(world.server, hello={}) as one:
            await one.ask("sub", s="x", filter={}, **{"from": {"ago_ms": 2_500}})
            assert offsets(await one.receive()) == [3, 4]
            page = await one.ask("hist", filter={}, **{"from": {"ago_ms": 3_500}})
            while page["t"] != "page":
                page = await one.receive()
            assert offsets(page) == [2, 3, 4]

    run(scenario)


def test_a_long_backfill_goes_on_after_every_end(follower: Any) -> None:
    async def scenario(world: World) -> None:
        for _ in range(30):
            await world.publish(*["price.tick", "rare.one", "alert.high"] * 30)
        async with trio.open_nursery() as nursery:
            one = follower(world.server)
            one.subscribe("x", NAMED["rare"], "snapshot")
            await nursery.start(one.run)
            await trio.sleep(1)
            assert one.snaps["x"] == [2_699]
            one.snaps["x"].clear()
            one.modify("x", filter=NAMED["all"], backfill=Last(1_500))
            for how in (world.evict, world.server.abort) * 2:
                for which in (world.stream, world.shard(0)):
                    await trio.sleep(0.0005)
                    done = how(which)
                    if done is not None:
                        await done
            await trio.sleep(20)
            expected = [o for o in range(1, 2_701) if o % 3 != 2][-1_500:]
            assert one.snaps["x"] == expected
            assert one.modified["x"] == [2_700]
            assert not one.gaps
            nursery.cancel_scope.cancel()

    run(scenario)


def test_what_is_kept_of_a_backfill_names_the_groups_it_needs() -> None:
    assert Subscription(3, 5, snap=Snapping(1, without=2)).groups == (3, 2)
    assert Subscription(3, 5, snap=Snapping(1)).groups == Subscription(3, 5).groups == (3,)


CHANGES = st.tuples(
    st.just("modify"),
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(sorted(FILTERS)),
        st.sampled_from([None, Last(2), Last(1_000), Ago(700)]),
    ),
)


@settings(max_examples=12)
@given(st.lists(st.one_of(ACTIONS, CHANGES, CHANGES), max_size=30), st.integers(0, 1_000))
def test_every_signal_of_every_filter_comes_once_and_in_order(
    follower: Any, actions: list[tuple[str, Any]], seed: int
) -> None:
    async def scenario(world: World) -> None:
        async with trio.open_nursery() as nursery:
            await world.publish("price.tick", "rare.one", "alert.high")
            followers = [follower(world.server, seed + n) for n in range(3)]
            for one in followers:
                one.subscribe("x", NAMED["price"], "earliest")
                one.subscribe("other", NAMED["price"], "earliest")
                await nursery.start(one.run)
            filters = [["price"] for _ in followers]
            for what, how in actions:
                await act(world, nursery, followers, filters, what, how)
            for one in followers:
                one.reading.set()
            await world.publish("alert.high")
            await trio.sleep(150)
            for one, names in zip(followers, filters, strict=True):
                assert not one.gaps
                assert not one.detected
                assert len(one.modified["x"]) == len(names) - 1
                bounds = [0, *one.modified["x"], max(world.log)]
                expected = [
                    [o for o in world.matching(name, after) if o <= upto]
                    for name, after, upto in zip(names, bounds, bounds[1:], strict=False)
                ]
                assert one.offsets["x"] == [o for part in expected for o in part]
                assert one.offsets["other"] == world.matching("price")
                assert one.machine.since_of("x").offset == max(world.log)
            nursery.cancel_scope.cancel()

    async def act(
        world: World, nursery: Any, followers: list[Any], filters: list[list[str]], what: str, how: Any
    ) -> None:
        match what:
            case "modify":
                who, name, backfill = how
                if len(followers[who].modified["x"]) == len(filters[who]) - 1:
                    filters[who].append(name)
                    followers[who].modify("x", filter=NAMED[name], backfill=backfill)
            case "publish":
                await world.publish(*how)
            case "publish_at_once":
                nursery.start_soon(world.publish, *how)
            case "wait":
                await trio.sleep(how)
            case "evict_stream":
                await world.evict(world.stream)
            case "abort_stream":
                world.server.abort(world.stream)
            case "evict_shard":
                await world.evict(world.shard(how))
            case "abort_shard":
                world.server.abort(world.shard(how))
            case "drop":
                followers[how].drop()
            case "pause":
                followers[how].reading = trio.Event()
            case "read":
                followers[how].reading.set()

    run(scenario)


@pytest.mark.parametrize("group", [1, 99])
def test_a_snapshot_of_a_group_that_is_not_there_is_none(group: int) -> None:
    async def scenario(world: World) -> None:
        try:
            assert await world.stream.snap(group, 0, 0, 0) is None
            assert await world.stream.snap(group, 0, 0, 98) is None
        except ActorError as error:
            raise AssertionError from error

    run(scenario)
