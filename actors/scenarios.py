"""Scenarios of the signal service: publishers, subscribers, sources, restarts.

Clients are the Python SDK, sockets are real WebSockets, and the actors are those that `heliograph serve` serves.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import attrs
import trio

from actors.app import app
from actors.client import Gap, SignalClient
from actors.ingest.source import BATCH_SIGNALS, Batch, InvalidCursor, SourceFailed
from actors.ingest.source import World as SourceWorld
from actors.protocol.limits import Limits
from actors.protocol.requests import OnGap
from actors.scenarios_clients import LAST, PATIENCE_S, QUIET, Stream
from actors.settings import ConnectionSettings, Settings, SourceSettings, StreamSettings
from actors.signals import Draft
from actors.stream import STREAM, shard_name
from runtime import InvalidBookmark
from runtime.sim import Unknown, World, scenario


@scenario(
    points=(
        "a shard asks again",
        "a shard is behind after a restart",
        "a shard missed a frame",
        "a signal is published again",
        "a stream goes on with listeners",
        "an actor with sockets comes back into memory",
        "an event waits for the batches of an instance that ended",
        "an instance ends with a commit that failed",
        "an instance ends with batches on their way",
        "the commit of a group fails",
    )
)
async def following(w: World) -> None:
    """Two publishers and three subscribers with filters: each gets every matching signal once and in order."""
    node = await w.start_node(app, settings=QUIET)
    stream = Stream(w, node)

    async def publisher(name: str) -> None:
        rng = w.rng(name)
        async with stream.client(name) as client:
            for number in w.times(15):
                await trio.sleep(rng.uniform(0, 1.0))
                type_, entity = rng.choice(("price.tick", "alert.high")), rng.choice(("btc-usd", "eth-usd"))
                await stream.publish(client, f"{name}-{number}", type_, entity, {"n": number})

    async with trio.open_nursery() as everybody:
        start = everybody.start_soon
        start(lambda: stream.follow("all", lambda _, __: True))
        start(lambda: stream.follow("prices", lambda t, _: t == "price.tick", types=["price.>", LAST]))
        start(lambda: stream.follow("btc", lambda _, e: e == "btc-usd", entities=["btc-*", "all"]))
        async with trio.open_nursery() as publishers:
            publishers.start_soon(publisher, "anna")
            publishers.start_soon(publisher, "ben")
        await stream.end()


@scenario
async def slow_consumers(w: World) -> None:
    """A subscriber that hardly reads is closed and resumes; another one beside it notices nothing of it."""
    node = await w.start_node(app, settings=attrs.evolve(QUIET, shards=1, limits=Limits(backlog_bytes=200_000)))
    stream = Stream(w, node)

    async def publisher() -> None:
        rng = w.rng("publisher")
        async with stream.client("publisher") as client:
            for number in w.times(60):
                await trio.sleep(rng.uniform(0, 0.3))
                await stream.publish(client, f"p-{number}", "big.one", "x", "x" * 10_000)

    async with trio.open_nursery() as everybody:
        start = everybody.start_soon
        start(lambda: stream.follow("fast", lambda _, __: True))
        start(lambda: stream.follow("slow", lambda _, __: True, pause_s=1.5, buffer=1))
        await publisher()
        await stream.end()


@scenario(points=("a subscriber comes back too late",))
async def forgetting(w: World) -> None:
    """A stream that keeps little: who comes late is told exactly what is missing, and gets the rest.

    Sometimes signals are so large that a page holds two of them, and what follows a page is gone before it is read.
    """
    few = StreamSettings(retention_signals=w.rng("options").choice((3, 12)), retention_s=0.0)
    data = w.rng("data").choice(("", "x" * 30_000))
    limits = Limits(msg_bytes=100_000, backlog_bytes=300_000)
    node = await w.start_node(app, settings=attrs.evolve(QUIET, stream=few, shards=1, limits=limits))
    stream = Stream(w, node, forgets=True)

    async def publisher() -> None:
        rng = w.rng("publisher")
        async with stream.client("publisher") as client:
            for number in w.times(40):
                await trio.sleep(rng.uniform(0, 0.4))
                await stream.publish(client, f"p-{number}", "price.tick", "x", data)

    async with trio.open_nursery() as everybody:
        start = everybody.start_soon
        start(lambda: stream.follow("all", lambda _, __: True))
        start(lambda: stream.follow("late", lambda _, __: True, pause_s=0.8, buffer=1))
        start(lambda: stream.follow("later", lambda _, __: True, pause_s=1.0, buffer=1, on_gap="skip"))
        await publisher()
        await stream.end()
        everybody.cancel_scope.cancel()  # who was told that the last signal is missing waits for more


_NUMBERS = 30


class Numbers:
    """A source of the numbers from 1 on, two for each second of the wall clock, which fails often and in every way."""

    EPOCH_S = 1_767_225_600.0

    def __init__(self, world: SourceWorld, options: Mapping[str, Any]) -> None:
        self._world = world
        self._last = int(options.get("last", _NUMBERS))

    async def fetch(self, cursor: str | None) -> Batch:
        """What follows. Raises: SourceFailed, InvalidCursor."""
        if cursor is not None and not cursor.isdecimal():
            raise InvalidCursor(cursor)
        now = self._world.now()
        await trio.sleep(now * 7 % 0.4)
        after = int(cursor or 0)
        if now < self.EPOCH_S + 20.0:
            match int(now * 13) % 12:
                case 0 | 3 | 6:
                    raise SourceFailed("it does not answer")
                case 4:
                    raise InvalidCursor(f"{cursor} is not known here any more")
                case 7:
                    await trio.sleep_forever()  # it is given up
                case 10:  # refused as a whole
                    return Batch(str(after + 1), (Draft.of("number", "too many", None),) * (BATCH_SIGNALS + 1))
                case _:
                    pass
        known = max(0, min(int((self._world.now() - self.EPOCH_S) * 2), self._last))
        upto = max(after, min(known, after + 4))
        numbers = range(after + 1, upto + 1)
        signals = tuple(Draft.of("number", str(n), n, id=self._world.id(str(n))) for n in numbers)
        return Batch(str(upto), signals, more=upto < known)


@scenario(points=("a source goes on from elsewhere", "an alarm is tried again"))
async def ingesting(w: World) -> None:
    """A source that fails often: each of its signals is in the stream exactly once and in order."""
    source = SourceSettings(kind="actors.scenarios:Numbers", name="numbers", schedule="@every 1s", timeout_s=2.0)
    node = await w.start_node(app, settings=Settings(sources=(source,), shards=1))
    stream = Stream(w, node)
    found: list[str] = []
    complete = trio.Event()

    def wants(type_: str, entity: str) -> bool:
        if type_ == "number":
            found.append(entity)
            if len(found) == _NUMBERS:
                complete.set()
        return True

    async def operator() -> None:
        rng = w.rng("operator")
        for _ in w.times(4):
            await trio.sleep(rng.uniform(0.5, 3.0))
            with suppress(Unknown):  # its run ends wherever it is, and is made again
                await node.run_in("ingests", "numbers", lambda ingest: ingest.ctx.abort("its operator wants it so"))

    async with trio.open_nursery() as everybody:
        everybody.start_soon(lambda: stream.follow("reader", wants))
        everybody.start_soon(operator)
        await trio.sleep(12.0)
        await w.quiesce()
        with trio.move_on_after(700.0):  # the pauses of a source that fails grow
            await complete.wait()
        await trio.sleep(10.0)  # in which nothing may come again
        await stream.end()
    numbers = [int(number) for number in found]
    assert numbers == list(range(1, _NUMBERS + 1)), f"the numbers in the stream are {numbers}"


@scenario
async def restarting(w: World) -> None:
    """The server is told to stop again and again while it is used: its clients go on, and nobody misses anything."""
    connections = ConnectionSettings(handover_s=0.5, moves_per_s=10)
    node = await w.start_node(app, settings=attrs.evolve(QUIET, connections=connections))
    stream = Stream(w, node)

    async def publisher(name: str) -> None:
        rng = w.rng(name)
        async with stream.client(name) as client:
            for number in w.times(20):
                await trio.sleep(rng.uniform(0, 1.0))
                await stream.publish(client, f"{name}-{number}", "price.tick", rng.choice(("btc-usd", "eth-usd")), None)

    async def operator() -> None:
        rng = w.rng("operator")
        for _ in w.times(4):
            await trio.sleep(rng.uniform(0.2, 3.0))
            await w.restart(node)

    async with trio.open_nursery() as everybody:
        start = everybody.start_soon
        start(lambda: stream.follow("all", lambda _, __: True))
        start(lambda: stream.follow("btc", lambda _, e: e == "btc-usd", entities=["btc-*", "all"]))
        async with trio.open_nursery() as busy:
            busy.start_soon(publisher, "anna")
            busy.start_soon(publisher, "ben")
            busy.start_soon(operator)
        await stream.end()


@scenario(points=("an older socket of a session is replaced",))
async def moving(w: World) -> None:
    """Clients are asked to go, and come back to the same server: each opens its next connection first."""
    connections = ConnectionSettings(handover_s=1.0, moves_per_s=10)
    node = await w.start_node(app, settings=attrs.evolve(QUIET, connections=connections))
    stream = Stream(w, node)

    async def publisher() -> None:
        rng = w.rng("publisher")
        async with stream.client("publisher") as client:
            for number in w.times(40):
                await trio.sleep(rng.uniform(0, 0.5))
                await stream.publish(client, f"p-{number}", "price.tick", rng.choice(("btc-usd", "eth-usd")), None)

    async def operator() -> None:
        rng = w.rng("operator")
        for _ in w.times(4):
            await trio.sleep(rng.uniform(0.2, 3.0))
            shard = node.stub("shards", shard_name(rng.randrange(2)))
            with suppress(Unknown):  # it ended meanwhile, and its clients come back all the same
                await shard.rebalance()

    async with trio.open_nursery() as everybody:
        start = everybody.start_soon
        start(lambda: stream.follow("all", lambda _, __: True))
        start(lambda: stream.follow("slow", lambda _, __: True, pause_s=0.3, buffer=1))
        start(lambda: stream.follow("btc", lambda _, e: e == "btc-usd", entities=["btc-*", "all"]))
        async with trio.open_nursery() as busy:
            busy.start_soon(publisher)
            busy.start_soon(operator)
        await stream.end()


@scenario
async def hibernating(w: World) -> None:
    """Everybody is silent for longer than an actor stays in memory: each wakes and gets what it missed meanwhile."""
    few = StreamSettings(dedup_s=0.2)  # but always the last 1,000
    node = await w.start_node(app, settings=attrs.evolve(QUIET, stream=few), idle_s=0.5)
    stream = Stream(w, node)

    async def publisher(name: str) -> None:
        rng = w.rng(name)
        async with stream.client(name) as client:
            for number in w.times(8):
                await trio.sleep(rng.choice((0.01, 0.6, 2.5)))
                await stream.publish(client, f"{name}-{number}", "price.tick", rng.choice(("btc-usd", "eth-usd")), None)

    async with trio.open_nursery() as everybody:
        start = everybody.start_soon
        start(lambda: stream.follow("all", lambda _, __: True))
        start(lambda: stream.follow("btc", lambda _, e: e == "btc-usd", entities=["btc-*", "all"]))
        async with trio.open_nursery() as publishers:
            publishers.start_soon(publisher, "anna")
            publishers.start_soon(publisher, "ben")
        await stream.end()


@attrs.define(eq=False)
class Reader:
    """A subscriber to everything of a stream that is brought back: the offsets it was given of each epoch.

    Attributes:
        on_gap: `skip`: it wants all that a new epoch has; `fail`: only what comes from then on.
    """

    world: World
    name: str
    on_gap: OnGap
    by_offset: dict[tuple[str, int], str]
    given: dict[str, list[int]] = attrs.field(factory=dict[str, list[int]])
    done: trio.Event = attrs.field(factory=trio.Event)

    async def read(self, client: SignalClient) -> None:
        """Take everything until the last signal of all. Raises: AssertionError: it must not come."""
        async with client, client.subscribe(since="earliest", on_gap=self.on_gap) as subscription:
            async for item in subscription:
                if isinstance(item, Gap):
                    self.world.trace.note("gap", self.name, f"{item.after}..{item.upto} {item.reason}")
                    assert item.reason == "epoch", f"{self.name} was told of a gap by {item.reason}"
                    continue
                assert subscription.cursor is not None
                epoch = subscription.cursor.epoch
                self.world.trace.note("delivered", self.name, f"{epoch}:{item.o} {item.id}")
                given = self.given.setdefault(epoch, [])
                follows = item.o == given[-1] + 1 if given else item.o == 1 or self.on_gap == "fail"
                assert follows, f"{self.name} was given {item.o} of {epoch} after {given[-1:]}"
                known = self.by_offset.setdefault((epoch, item.o), item.id)
                assert known == item.id, f"offset {item.o} of {epoch} was {known} and is {item.id} for {self.name}"
                given.append(item.o)
                if item.type == LAST:
                    self.done.set()
                    return


@scenario
async def bringing_back(w: World) -> None:
    """The log is brought back to an earlier moment while it is used: everybody hears of it, and goes on."""
    node = await w.start_node(app, settings=QUIET)
    stream = Stream(w, node)
    by_offset: dict[tuple[str, int], str] = {}
    readers = [Reader(w, "skips", "skip", by_offset), Reader(w, "fails", "fail", by_offset)]

    async def publish(client: SignalClient, signal_id: str, type_: str = "price.tick") -> None:
        number = w.trace.note("publish", "publishers", signal_id)
        ack = await client.publish(type_, "x", None, id=signal_id)
        w.trace.note("acked", "publishers", f"#{number} {signal_id} at {ack.epoch}:{ack.offset}")
        known = by_offset.setdefault((ack.epoch, ack.offset), signal_id)
        assert known == signal_id, f"offset {ack.offset} of {ack.epoch} was {known} and was given to {signal_id} too"

    async def publisher() -> None:
        rng = w.rng("publisher")
        async with stream.client("publisher") as client:
            for number in w.times(30):
                await trio.sleep(rng.uniform(0, 0.7))
                await publish(client, f"p-{number}")

    async def bring_back(broadcaster: Any) -> None:
        storage = broadcaster.ctx.storage
        bookmark = await storage.get_bookmark_for_time(broadcaster.ctx.now() - 2.0)
        await storage.on_next_session_restore_bookmark(bookmark)
        broadcaster.ctx.abort("it is brought back")

    async def operator() -> None:
        rng = w.rng("operator")
        for _ in w.times(2):
            await trio.sleep(rng.uniform(3.0, 5.0))
            # Aborted, or the process ended before it was, or the clock was set: that time is not known.
            with suppress(Unknown, InvalidBookmark):
                await node.run_in("broadcasters", STREAM, bring_back)

    async with trio.open_nursery() as everybody:
        for reader in readers:
            everybody.start_soon(reader.read, stream.client(reader.name))
        async with trio.open_nursery() as busy:
            busy.start_soon(publisher)
            busy.start_soon(operator)
        await w.quiesce(5.0)
        with trio.fail_after(PATIENCE_S):
            async with stream.client("last") as client:
                for number in itertools.count():  # one that comes back now begins after what there is
                    if all(reader.done.is_set() for reader in readers):
                        break
                    await publish(client, f"last-{number}", LAST)
                    await trio.sleep(1.0)
