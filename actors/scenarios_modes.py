"""Scenarios of what a subscription can ask for beside a filter: changes in place, snapshots, modes, slow reading."""

from __future__ import annotations

from random import Random

import attrs
import trio

from actors.app import app
from actors.client import Ago, Last, Signal, SnapSignal, Subscription
from actors.protocol.limits import Limits
from actors.protocol.requests import OnSlow
from actors.scenarios_clients import LAST, PATIENCE_S, QUIET, Seen, Stream
from runtime.sim import World, scenario

_TYPES = ("price.tick", "alert.high", "rare.one")


@attrs.define(eq=False)
class Changing:
    """A subscriber that changes again and again what it wants.

    Attributes:
        periods: after which offset it wanted which types. offsets: what it was given as it happened.
        early: what it was given of a snapshot and of backfills.
    """

    world: World
    name: str
    periods: list[tuple[int, frozenset[str]]]
    offsets: list[int] = attrs.field(factory=list[int])
    early: dict[int, str] = attrs.field(factory=dict[int, str])
    done: trio.Event = attrs.field(factory=trio.Event)

    async def follow(self, subscription: Subscription, rng: Random) -> None:
        """Take everything until the last signal of all, and change what that is. Raises: AssertionError."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._change, subscription, rng)
            async for item in subscription:
                assert isinstance(item, Signal), f"{self.name} was told of {item}"
                self.world.trace.note("delivered", self.name, f"{item.o} {item.id}")
                if isinstance(item, SnapSignal):
                    self.early[item.o] = item.type
                    continue
                newest = self.offsets[-1] if self.offsets else 0
                assert item.o > newest, f"{self.name} was given {item.o} after {newest}"
                self.offsets.append(item.o)
                if item.type == LAST:
                    self.done.set()
                    nursery.cancel_scope.cancel()

    async def _change(self, subscription: Subscription, rng: Random) -> None:
        for _ in self.world.times(8):
            await trio.sleep(rng.uniform(0, 2.0))
            types = frozenset(rng.sample(_TYPES, rng.randint(1, 2)))
            backfill = rng.choice((None, None, Last(rng.randint(1, 20)), Ago(rng.randint(0, 5_000))))
            changed = await subscription.modify(filter={"types": [*sorted(types), LAST]}, backfill=backfill)
            assert changed is not None
            self.periods.append((changed.offset, types))
            self.world.trace.note("changed", self.name, f"{sorted(types)} after {changed.offset}")

    def wanted(self, offset: int, type_: str) -> bool | None:
        """Whether it wanted a signal when that came; None before it is known what it wanted."""
        types = [types for after, types in self.periods if after < offset]
        return type_ in types[-1] if types else None


@scenario
async def changing_filters(w: World) -> None:
    """Two subscribers change their filters in place all the time: each gets what each filter lets through, once."""
    node = await w.start_node(app, settings=QUIET, idle_s=w.rng("options").choice((0.5, 10.0)))
    stream = Stream(w, node)
    price = frozenset(("price.tick",))
    everybody = [Changing(w, "reads", [(0, price)]), Changing(w, "looks", [])]

    async def publisher() -> None:
        rng = w.rng("publisher")
        async with stream.client("publisher") as client:
            for number in w.times(40):
                await trio.sleep(rng.choice((0.01, 0.2, 0.8)))
                await stream.publish(client, f"p-{number}", rng.choice(_TYPES), rng.choice("ab"), number)

    async def follow(one: Changing) -> None:
        since = "earliest" if one.periods else "snapshot"
        async with stream.client(one.name) as client:
            async with client.subscribe(types=["price.tick", LAST], since=since) as subscription:
                await one.follow(subscription, w.rng(one.name))

    async with trio.open_nursery() as nursery:
        for one in everybody:
            nursery.start_soon(follow, one)
        await publisher()
        await w.quiesce()
        await trio.sleep(20.0)
        with trio.fail_after(PATIENCE_S):
            async with stream.client("last") as client:
                await stream.publish(client, "last", LAST, "all", None)
            for one in everybody:
                await one.done.wait()
    for one in everybody:
        for signal_id, offset in stream.acked.items():
            type_, _ = stream.kinds[signal_id]
            wanted = type_ == LAST or one.wanted(offset, type_)
            if wanted is not None:
                assert (offset in one.offsets) == wanted, (
                    f"{one.name}: {signal_id} at {offset}, which it wants: {wanted}"
                )
        asked = {type_ for _, types in one.periods for type_ in types} | {"price.tick", LAST}
        assert set(one.early.values()) <= asked


@attrs.define(eq=False)
class Conflated:
    """A subscriber that wants the newest of each pair of a type and an entity, always or when it is slow.

    Attributes:
        min_ms: of `mode` `latest`; 0 for `all`.
    """

    world: World
    name: str
    min_ms: int
    on_slow: OnSlow = "close"
    given: dict[int, tuple[str, str]] = attrs.field(factory=dict[int, tuple[str, str]])
    left_out: int = 0

    async def follow(self, stream: Stream, pause_s: float = 0.0) -> None:
        """Take everything until the last signal of all. Raises: AssertionError: it must not come."""
        async with (
            stream.client(self.name) as client,
            client.subscribe(
                since="earliest",
                mode="latest" if self.min_ms else "all",
                min_ms=self.min_ms or None,
                on_slow=self.on_slow,
                buffer=1 if pause_s else 1_000,
            ) as subscription,
        ):
            async for item in subscription:
                assert isinstance(item, Signal), f"{self.name} was told of {item}"
                self.world.trace.note("delivered", self.name, f"{item.o} {item.id}")
                assert item.o > max(self.given, default=0), f"{self.name} was given {item.o} late"
                self.given[item.o] = item.type, item.entity
                if item.type == LAST:
                    break
                if pause_s and not self.world.quiet:
                    await trio.sleep(pause_s)
            await trio.sleep(0.001)  # how many were left out is known behind the last one
            self.left_out = subscription.left_out

    def check(self, stream: Stream) -> None:
        """It has the last of each pair, and knows of all others. Raises: AssertionError."""
        last = {stream.kinds[i]: offset for i, offset in sorted(stream.acked.items(), key=lambda pair: pair[1])}
        for pair, offset in last.items():
            assert self.given.get(offset) == pair, f"{self.name} never got the last of {pair}, at {offset}"
        known = len(stream.by_id)
        assert len(self.given) + self.left_out >= known, f"{self.name} was told of {self.left_out} of {known}"


@scenario
async def conflating(w: World) -> None:
    """Subscribers of the newest values alone: each gets the last of every pair, and is told how many it does not."""
    node = await w.start_node(app, settings=QUIET, idle_s=w.rng("options").choice((0.5, 10.0)))
    stream = Stream(w, node)
    everybody = [Conflated(w, "often", 20), Conflated(w, "seldom", 3_000)]

    async def publisher(name: str) -> None:
        rng = w.rng(name)
        async with stream.client(name) as client:
            for number in w.times(30):
                await trio.sleep(rng.choice((0.001, 0.01, 0.5)))
                await stream.publish(client, f"{name}-{number}", rng.choice(_TYPES), rng.choice("ab"), number)

    async with trio.open_nursery() as nursery:
        for one in everybody:
            nursery.start_soon(one.follow, stream)
        nursery.start_soon(lambda: stream.follow("all", lambda _, __: True))
        async with trio.open_nursery() as publishers:
            publishers.start_soon(publisher, "anna")
            publishers.start_soon(publisher, "ben")
        await stream.end()
    for one in everybody:
        one.check(stream)


@scenario(points=("a slow client is sent nothing for now",))
async def dropping(w: World) -> None:
    """Subscribers that hardly read and would rather miss something than be closed: all that they miss is explained."""
    limits = Limits(msg_bytes=100_000, backlog_bytes=300_000)
    node = await w.start_node(app, settings=attrs.evolve(QUIET, shards=1, limits=limits))
    stream = Stream(w, node)
    skips = Seen(w, "skips", lambda _, __: True, stream.by_id)
    latest = Conflated(w, "latest", 0, "latest")

    async def publisher() -> None:
        rng = w.rng("publisher")
        async with stream.client("publisher") as client:
            for number in w.times(60):
                await trio.sleep(rng.uniform(0, 0.3))
                await stream.publish(client, f"p-{number}", "big.one", rng.choice("ab"), "x" * 30_000)

    async def skip() -> None:
        async with stream.client("skips") as client:
            async with client.subscribe(since="earliest", buffer=1, on_slow="skip") as subscription:
                async for item in subscription:
                    skips.take(item)
                    if skips.done.is_set():
                        return
                    if not w.quiet:
                        await trio.sleep(1.0)

    async with trio.open_nursery() as nursery, trio.open_nursery() as skipping:
        nursery.start_soon(lambda: stream.follow("fast", lambda _, __: True))
        skipping.start_soon(skip)
        nursery.start_soon(latest.follow, stream, 1.0)
        await publisher()
        await stream.end()
        skips.ends_at(stream.acked["last"])
        with trio.fail_after(PATIENCE_S):
            await skips.done.wait()
        skipping.cancel_scope.cancel()  # who was told that the last signal is missing waits for more
    assert {gap.reason for gap in skips.gaps} <= {"slow"}
    missed = [offset for offset in stream.acked.values() if skips.missed(offset)]
    assert not missed, f"skips neither got {missed} nor was told of them"
    latest.check(stream)
