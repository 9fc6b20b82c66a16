"""Clients that read too slowly and say what shall happen then: bounded, exact, and nobody else notices."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.app import app
from actors.catching_up import DRAIN_S
from actors.filters import Filter
from actors.protocol.limits import Limits
from actors.settings import Settings
from actors.signals import Draft
from runtime.testing import start_server
from tests.actors.test_connections import World, run

ALL = Filter.parse({})
SMALL = Settings(sources_enabled=False, shards=1, limits=Limits(backlog_bytes=400_000, backlog_ms=5_000))
POLICIES = ("latest", "skip")


async def publish(world: World, count: int, size: int = 20_000) -> None:
    for _ in range(count):
        n = len(world.log) + 1
        world.log[n] = {"entity": f"e{n % 3}"}
        await world.stream.publish((Draft.of("big.one", f"e{n % 3}", "x" * size),))


def explained(world: World, one: Any, name: str, policy: str) -> None:
    """Every signal was given, or is in a gap, or a newer one of its pair was given in its place."""
    given = set(one.offsets[name])
    assert one.offsets[name] == sorted(given)
    gaps = [(gap.a, gap.b) for gap in one.gaps if gap.s == name]
    assert {gap.reason for gap in one.gaps} <= {"slow"}
    if policy == "skip":
        lost = {o for a, b in gaps for o in range(a + 1, b + 1)}
        assert not lost & given
        assert lost | given == set(world.log)
    else:
        assert not gaps
        at = 0
        for frame in one.frames[name]:
            interval = range(at + 1, frame.c + 1)
            newest = {world.log[o]["entity"]: o for o in interval}
            offsets = [signal.o for signal in frame.signals]
            assert offsets == list(interval) or (offsets == sorted(newest.values()) and frame.k)
            at = frame.c


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_slow_client_goes_on_by_its_policy_and_nobody_else_notices(
    autojump_clock: Any, follower: Any, policy: str
) -> None:
    async with start_server(app, settings=SMALL) as server, trio.open_nursery() as nursery:
        world = World(server)
        slow, fast = follower(server, 1), follower(server, 2)
        slow.subscribe("all", ALL, "earliest", on_slow=policy)
        fast.subscribe("all", ALL, "earliest")
        for one in (slow, fast):
            await nursery.start(one.run)
        await trio.sleep(1)
        slow.reading = trio.Event()
        late = 0.0
        for n in range(80):
            before = trio.current_time()
            await publish(world, 1)
            await fast.until("all", n + 1)
            late = max(late, trio.current_time() - before)
        assert late < 0.05
        slow.reading.set()
        await trio.sleep(10)
        await publish(world, 3)
        await trio.sleep(10)
        assert slow.codes == fast.codes == []
        assert slow.sockets == 1
        assert fast.offsets["all"] == list(world.log)
        explained(world, slow, "all", policy)
        assert 3 < len(slow.offsets["all"]) < 60
        assert slow.offsets["all"][-3:] == [81, 82, 83]
        assert slow.machine.since_of("all").offset == 83
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("policy", POLICIES)
async def test_little_that_is_not_read_for_long_counts_as_well(autojump_clock: Any, follower: Any, policy: str) -> None:
    limits = Limits(backlog_bytes=10_000_000, backlog_ms=5_000)
    settings = Settings(sources_enabled=False, shards=1, limits=limits)
    async with start_server(app, settings=settings) as server, trio.open_nursery() as nursery:
        world = World(server)
        slow = follower(server, 1)
        slow.subscribe("all", ALL, "earliest", on_slow=policy)
        await nursery.start(slow.run)
        await trio.sleep(1)
        slow.reading = trio.Event()
        for _ in range(40):
            await publish(world, 1, 30_000)
            await trio.sleep(0.5)
        slow.reading.set()
        await trio.sleep(30)
        assert slow.codes == []
        explained(world, slow, "all", policy)
        assert len(slow.offsets["all"]) < 35
        assert slow.machine.since_of("all").offset == 40
        nursery.cancel_scope.cancel()


async def test_one_subscription_that_says_close_closes(autojump_clock: Any, follower: Any) -> None:
    async with start_server(app, settings=SMALL) as server, trio.open_nursery() as nursery:
        world = World(server)
        slow = follower(server, 1)
        slow.subscribe("one", ALL, "earliest", on_slow="skip")
        slow.subscribe("two", ALL, "earliest")
        await nursery.start(slow.run)
        await trio.sleep(1)
        slow.reading = trio.Event()
        await publish(world, 60)
        slow.reading.set()
        await trio.sleep(60)
        assert slow.codes[0] in (4103, 1006)
        assert slow.offsets["one"] == slow.offsets["two"] == list(world.log)
        slow.modify("two", on_slow="latest")
        await trio.sleep(1)
        codes = list(slow.codes)
        slow.reading = trio.Event()
        await publish(world, 60)
        slow.reading.set()
        await trio.sleep(60)
        assert slow.codes == codes
        assert [gap.s for gap in slow.gaps] == ["one"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("policies", [("latest", "latest"), ("skip", "latest"), ("latest", "skip")])
async def test_two_subscriptions_of_one_filter_go_on_together(
    autojump_clock: Any, follower: Any, policies: tuple[str, str]
) -> None:
    """Their client counts the group's frames for both, so the first of them must not bring any before the second."""
    async with start_server(app, settings=SMALL) as server, trio.open_nursery() as nursery:
        world = World(server)
        slow = follower(server, 1)
        names = dict(zip(("one", "two"), policies, strict=True))
        for name, policy in names.items():
            slow.subscribe(name, ALL, "earliest", on_slow=policy)
        await nursery.start(slow.run)
        await trio.sleep(1)
        for _ in range(5):
            slow.reading = trio.Event()
            await publish(world, 40)
            slow.reading.set()
            for _ in range(3):
                await trio.sleep(DRAIN_S)  # when the server looks whether there is room again
                async with trio.open_nursery() as publishers:
                    for _ in range(4):
                        publishers.start_soon(publish, world, 25, 20)
            await trio.sleep(10)
        assert not slow.detected
        for name in names:
            assert slow.machine.since_of(name).offset == len(world.log)
        nursery.cancel_scope.cancel()


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 40)),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.02, 0.7, 6.0, 12.0])),
        st.tuples(
            st.sampled_from(["pause", "read", "drop", "evict_stream", "abort_stream", "evict", "abort"]), st.just(0)
        ),
    ),
    max_size=25,
)


@settings(max_examples=15)
@given(ACTIONS, st.sampled_from(POLICIES), st.sampled_from([0, 100]))
def test_whatever_happens_all_is_explained(
    follower: Any, actions: list[tuple[str, Any]], policy: str, min_ms: int
) -> None:
    async def scenario(world: World) -> None:
        async with trio.open_nursery() as nursery:
            slow, fast = follower(world.server, 1), follower(world.server, 2)
            slow.subscribe("x", ALL, "earliest", on_slow=policy, min_ms=min_ms)
            fast.subscribe("x", ALL, "earliest")
            for one in (slow, fast):
                await nursery.start(one.run)
            for what, how in actions:
                match what:
                    case "publish":
                        await publish(world, how, 15_000)
                    case "wait":
                        await trio.sleep(how)
                    case "pause":
                        slow.reading = trio.Event()
                    case "read":
                        slow.reading.set()
                    case "drop":
                        slow.drop()
                    case "evict_stream":
                        await world.evict(world.stream)
                    case "evict":
                        await world.evict(world.shard(0))
                    case "abort_stream":
                        world.server.abort(world.stream)
                    case "abort":
                        world.server.abort(world.shard(0))
            slow.reading.set()
            await publish(world, 1)
            await trio.sleep(150)
            assert fast.offsets["x"] == list(world.log)
            assert not slow.detected
            assert slow.machine.since_of("x").offset == len(world.log)
            if policy == "latest":
                at = 0
                for frame in slow.frames["x"]:
                    interval = range(at + 1, frame.c + 1)
                    newest = sorted({world.log[o]["entity"]: o for o in interval}.values())
                    assert [s.o for s in frame.signals] in (list(interval), newest)
                    at = frame.c
                assert not slow.gaps
            else:
                lost = {o for gap in slow.gaps for o in range(gap.a + 1, gap.b + 1)}
                given_ = set(slow.offsets["x"])
                assert not lost & given_
                if not min_ms:
                    assert lost | given_ == set(world.log)
            nursery.cancel_scope.cancel()

    run(scenario, settings=SMALL)
