"""`mode` `latest`: of each type and entity the newest signal, one frame every so often, and how many were left out."""

from __future__ import annotations

import json
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.client import Last, SnapSignal
from actors.filters import Filter
from actors.pending import CONFLATED_BYTES, Newest
from actors.signals import Draft, SignalTexts, offset_of, pair_of
from tests.actors.client.test_end_to_end import client_of
from tests.actors.test_connections import ACTIONS, FILTERS, World, run
from tests.actors.test_modify import NAMED, offsets


def test_a_frame_leaves_at_once_and_then_every_so_often_with_the_newest_of_each_pair(peer: Any) -> None:
    async def scenario(world: World) -> None:
        async with peer(world.server, hello={"features": ["latest"]}) as one, peer(world.server, hello={}) as two:
            for who in (one, two):
                await who.ask("sub", s="x", filter={}, mode="latest", min_ms=500)
                assert (await who.receive())["t"] == "live"
            await world.publish("price.tick")
            first = await one.receive()
            assert (offsets(first), first.get("k")) == ([1], None)
            for types in (["price.tick", "alert.high"], ["price.tick"], ["price.tick", "alert.high"]):
                await world.publish(*types)
                await trio.sleep(0.1)
            await one.nothing_for(0.15)
            second = await one.receive()
            assert (second["a"], second["b"], offsets(second), second["k"]) == (1, 6, [5, 6], 3)
            assert [await two.receive(), await two.receive()] == [first, second]
            await one.nothing_for(5)
            await world.publish("price.tick")
            assert offsets(await one.receive()) == [7]

    run(scenario)


def test_catching_up_has_the_newest_of_each_pair_of_each_page(peer: Any) -> None:
    async def scenario(world: World) -> None:
        await world.publish(*["price.tick", "alert.high"] * 300)
        async with peer(world.server, hello={}) as one:
            ok = await one.ask("sub", s="x", filter={}, mode="latest", **{"from": "earliest"})
            pages = [await one.receive(), await one.receive()]
            assert [(page["a"], page["b"], offsets(page), page["k"]) for page in pages] == [
                (0, 500, [499, 500], 498),
                (500, 600, [599, 600], 98),
            ]
            assert (await one.receive())["g"] == ok["g"]
            other = await one.ask("sub", s="y", filter={}, mode="latest", min_ms=20)
            assert other["g"] != ok["g"]

    run(scenario)


def test_what_a_shard_holds_back_is_not_lost_with_it(follower: Any) -> None:
    async def scenario(world: World) -> None:
        async with trio.open_nursery() as nursery:
            one = follower(world.server)
            one.subscribe("x", NAMED["all"], "now", min_ms=60_000)
            await nursery.start(one.run)
            await trio.sleep(1)
            await world.publish("price.tick")
            await trio.sleep(1)
            await world.publish("price.tick", "price.tick")
            await trio.sleep(15)
            await world.evict(world.shard(0))
            await trio.sleep(120)
            assert one.offsets["x"] in ([1, 3], [1, 2, 3])
            assert one.machine.since_of("x").offset == 3
            nursery.cancel_scope.cancel()

    run(scenario)


def test_a_subscription_goes_over_from_one_mode_to_the_other() -> None:
    async def scenario(world: World) -> None:
        async with client_of(world.server) as client, client.subscribe(types=["a"]) as sub:
            await trio.sleep(1)
            await sub.modify(mode="latest", min_ms=2_000)
            for _ in range(5):
                await client.publish("a", "e", None)
            first = [(await sub.__anext__()).o, (await sub.__anext__()).o]  # type: ignore[union-attr]
            assert first == [1, 5]
            assert sub.left_out == 3
            await sub.modify(filter={"types": ["a", "b"]}, mode="all", backfill=Last(1))
            for type_ in "aab":
                await client.publish(type_, "e", None)
            items = [await sub.__anext__() for _ in range(3)]
            assert [item.o for item in items if not isinstance(item, SnapSignal)] == [6, 7, 8]  # type: ignore[union-attr]

    run(scenario)


def test_who_is_sent_elsewhere_takes_what_is_held_back_along(peer: Any) -> None:
    async def scenario(world: World) -> None:
        async with peer(world.server, hello={"features": ["goaway"]}) as one, trio.open_nursery() as nursery:
            await one.ask("sub", s="x", filter={}, mode="latest", min_ms=60_000)
            await one.ask("sub", s="quiet", filter=FILTERS["none"])
            while (message := await one.receive())["t"] != "live" or message["s"] != "quiet":
                pass
            for _ in range(2):
                await world.publish("price.tick")
                await trio.sleep(0.1)
            assert offsets(await one.receive()) == [1]
            for number in range(2):
                nursery.start_soon(rebalance, world.shard(number))
            frames = [await one.receive() for _ in range(3)]
            assert sorted((frame["t"], frame.get("b")) for frame in frames[:2]) == [("sig", 2), ("sig", 2)]
            assert frames[2]["t"] == "goaway"
            nursery.cancel_scope.cancel()

    async def rebalance(shard: Any) -> None:
        await shard.rebalance()

    run(scenario)


def test_how_far_behind_clients_say_they_are_is_kept(peer: Any) -> None:
    async def scenario(world: World) -> None:
        async with peer(world.server) as one:
            welcome = await one.ask("hello", features=["ack"])
            assert welcome["features"] == ["ack"]
            await one.ask("sub", s="x", filter={})
            await world.publish(*["price.tick"] * 5)
            await one.send(t="ack", c={"x": 1, "unknown": 7})
            await one.send(t="ack", c={"x": 5})
            await trio.sleep(1)

            async def lags() -> list[dict[str, int]]:
                return [told for n in range(world.server.env.settings.shards) if (told := await world.shard(n).lags())]

            assert await lags() == [{welcome["session"]: 4}]
            await trio.sleep(5)
            await one.send(t="ack", c={"x": 5})
            await trio.sleep(1)
            assert await lags() == [{welcome["session"]: 0}]

    run(scenario)


def test_a_conflated_frame_has_a_bound() -> None:
    pending, at = Newest(), 0
    while not pending.is_full:
        at += 1
        text = Draft.of("a", f"e{at}", "x" * 9_000).signal(o=at, ts=1, id=f'"{at}').json
        assert (offset_of(text), pair_of(text)) == (at, (b"a", b"e%d" % at))
        pending.extend(at - 1, at, (SignalTexts(text),), 0)
    (frame,) = pending.frames(0)
    text = frame.text(g=1)
    assert CONFLATED_BYTES <= len(text) <= CONFLATED_BYTES + 20_000
    assert len(json.loads(text)["d"]) == at


def test_what_comes_again_is_counted_once() -> None:
    pending = Newest()
    texts = [SignalTexts(Draft.of("a", "e", n).signal(o=n, ts=1, id="i").json) for n in range(1, 4)]
    pending.extend(0, 2, tuple(texts[:2]), 0)
    pending.extend(1, 3, tuple(texts[1:]), 0)
    (frame,) = pending.frames(0)
    assert json.loads(frame.text(s="x")) | {"d": []} == {"t": "sig", "s": "x", "a": 0, "b": 3, "d": [], "k": 2}
    pending.clear()
    assert pending.frames(3) == []


@settings(max_examples=10)
@given(st.lists(ACTIONS, max_size=30), st.sampled_from([20, 700, 5_000]), st.integers(0, 1_000))
def test_each_frame_has_the_newest_of_its_interval(
    follower: Any, actions: list[tuple[str, Any]], min_ms: int, seed: int
) -> None:
    async def scenario(world: World) -> None:
        async with trio.open_nursery() as nursery:
            await world.publish("price.tick", "rare.one", "alert.high")
            followers = [follower(world.server, seed + n) for n in range(3)]
            for one in followers:
                for name in ("all", "price"):
                    one.subscribe(name, Filter.parse(FILTERS[name]), "earliest", min_ms=min_ms)
                one.subscribe("every", Filter.parse({}), "earliest")
                await nursery.start(one.run)
            for what, how in actions:
                match what:
                    case "publish" | "publish_at_once":
                        await world.publish(*how)
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
            await world.publish("alert.high")
            await trio.sleep(150)
            for one in followers:
                assert not one.gaps
                assert not one.detected
                assert one.offsets["every"] == sorted(world.log)
                for name in ("all", "price"):
                    check(world, one, name)
            nursery.cancel_scope.cancel()

    def check(world: World, one: Any, name: str) -> None:
        at = 0
        for frame in one.frames[name]:
            matching = [o for o in world.matching(name, at) if o <= frame.c]
            newest = sorted({world.log[o]["type"]: o for o in matching}.values())
            assert [signal.o for signal in frame.signals] == newest
            assert len(newest) + frame.k >= len(matching)
            at = frame.c
        assert at == max(world.log)

    run(scenario)
