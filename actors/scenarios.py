"""The signal service's own scenarios: `heliograph sim run` without a file.

Clients are the Python SDK, sockets are real WebSockets, and the actors are those that `heliograph serve` serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import trio

from actors.app import app
from actors.client import Gap, Signal, SignalClient
from actors.client.websocket import websocket_connect
from actors.ingest.source import Batch, InvalidCursor, SourceFailed
from actors.ingest.source import World as SourceWorld
from actors.protocol.limits import Limits
from actors.settings import Settings, SourceSettings
from actors.signals import Draft
from runtime.sim import SimulatedNode, World, scenario

LAST = "last.of.all"
_PATIENCE_S = 600.0  # after the faults: reconnects back off to a minute


@attrs.define(eq=False)
class Seen:
    """What one subscriber was given, and whether it may be.

    Attributes:
        wants: whether a signal matches its filter. by_id: what any client knows of the stream: offset to id.
    """

    world: World
    name: str
    wants: Callable[[str, str], bool]
    by_id: dict[int, str]
    offsets: list[int] = attrs.field(factory=list[int])
    ids: set[str] = attrs.field(factory=set[str])
    gaps: list[Gap] = attrs.field(factory=list[Gap])
    done: trio.Event = attrs.field(factory=trio.Event)

    def take(self, item: Signal | Gap) -> None:
        """One more. Raises: AssertionError: it must not come."""
        if isinstance(item, Gap):
            self.world.trace.note("gap", self.name, f"{item.after}..{item.upto} {item.reason}")
            self.gaps.append(item)
            return
        self.world.trace.note("delivered", self.name, f"{item.o} {item.id}")
        newest = self.offsets[-1] if self.offsets else 0
        assert item.o > newest, f"{self.name} was given {item.o} after {newest}"
        assert self.wants(item.type, item.entity), f"{self.name} was given {item.type} {item.entity}"
        known = self.by_id.setdefault(item.o, item.id)
        assert known == item.id, f"offset {item.o} was {known} and is {item.id} for {self.name}"
        assert item.id not in self.ids, f"{self.name} was given {item.id} again, at {item.o}"
        self.ids.add(item.id)
        self.offsets.append(item.o)
        if item.type == LAST:
            self.done.set()

    def missed(self, offset: int) -> bool:
        """Neither given nor in a gap."""
        if offset in self.offsets:
            return False
        return not any((gap.after or 0) < offset <= (gap.upto or offset) for gap in self.gaps)


@attrs.define(eq=False)
class Stream:
    """The clients of one run, and what the service has promised them.

    Attributes:
        acked: id to offset. kinds: id to type and entity.
    """

    world: World
    node: SimulatedNode
    by_id: dict[int, str] = attrs.field(factory=dict[int, str])
    acked: dict[str, int] = attrs.field(factory=dict[str, int])
    kinds: dict[str, tuple[str, str]] = attrs.field(factory=dict[str, tuple[str, str]])
    subscribers: list[Seen] = attrs.field(factory=list[Seen])

    def client(self, name: str) -> SignalClient:
        """A client of its own."""
        world, node = self.world, self.node
        return SignalClient(
            "http://127.0.0.1:8787",
            random=world.rng(f"{name}/jitter"),
            connect=websocket_connect(lambda _: world.connect(node)),
            name=name,
        )

    async def publish(self, client: SignalClient, signal_id: str, type_: str, entity: str, data: object) -> None:
        """Publish, and remember what was promised."""
        self.kinds[signal_id] = type_, entity
        number = self.world.trace.note("publish", "publishers", signal_id)
        ack = await client.publish(type_, entity, data, id=signal_id)
        self.world.trace.note("acked", "publishers", f"#{number} {signal_id} at {ack.offset}")
        known = self.by_id.setdefault(ack.offset, signal_id)
        assert known == signal_id, f"offset {ack.offset} was {known} and was given to {signal_id} too"
        self.acked[signal_id] = ack.offset

    async def follow(
        self,
        name: str,
        wants: Callable[[str, str], bool],
        *,
        pause_s: float = 0.0,
        buffer: int = 1_000,
        **filter_: Any,
    ) -> None:
        """Subscribe from the beginning and take everything until the last signal of all."""
        seen = Seen(self.world, name, lambda t, e: t == LAST or wants(t, e), self.by_id)
        self.subscribers.append(seen)
        async with self.client(name) as client:
            async with client.subscribe(since="earliest", buffer=buffer, **filter_) as subscription:
                async for item in subscription:
                    seen.take(item)
                    if seen.done.is_set():
                        return
                    if pause_s and not self.world.quiet:
                        await trio.sleep(pause_s)

    async def end(self) -> None:
        """Faults are over: a last signal must reach everybody, and nobody may have missed anything before it."""
        await self.world.quiesce()
        with trio.fail_after(_PATIENCE_S):
            async with self.client("last") as client:
                await self.publish(client, "last", LAST, "all", None)
            for seen in self.subscribers:
                await seen.done.wait()
        for seen in self.subscribers:
            for signal_id, offset in self.acked.items():
                if seen.wants(*self.kinds[signal_id]):
                    assert not seen.missed(offset), f"{seen.name} never got {signal_id} at {offset}, which was acked"


_QUIET = Settings(sources_enabled=False, shards=2)


@scenario
async def following(w: World) -> None:
    """Two publishers and three subscribers with filters: each gets every matching signal once and in order."""
    node = await w.start_node(app, settings=_QUIET)
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
    node = await w.start_node(app, settings=attrs.evolve(_QUIET, shards=1, limits=Limits(msg_bytes=100_000)))
    stream = Stream(w, node)

    async def publisher() -> None:
        rng = w.rng("publisher")
        async with stream.client("publisher") as client:
            for number in w.times(60):
                await trio.sleep(rng.uniform(0, 0.3))
                await stream.publish(client, f"p-{number}", "big.one", "x", "x" * 50_000)

    async with trio.open_nursery() as everybody:
        start = everybody.start_soon
        start(lambda: stream.follow("fast", lambda _, __: True))
        start(lambda: stream.follow("slow", lambda _, __: True, pause_s=1.5, buffer=1))
        await publisher()
        await stream.end()


class Numbers:
    """A source of the numbers from 1 on, two for each second of the wall clock, which fails often."""

    EPOCH_S = 1_767_225_600.0

    def __init__(self, world: SourceWorld, options: Mapping[str, Any]) -> None:
        self._world = world
        self._last = int(options.get("last", 30))

    async def fetch(self, cursor: str | None) -> Batch:
        """What follows. Raises: SourceFailed, InvalidCursor."""
        if cursor is not None and not cursor.isdecimal():
            raise InvalidCursor(cursor)
        now = self._world.now()
        await trio.sleep(now * 7 % 0.4)
        if int(now * 13) % 3 == 0 and now < self.EPOCH_S + 20.0:
            raise SourceFailed("it does not answer")
        after = int(cursor or 0)
        known = max(0, min(int((self._world.now() - self.EPOCH_S) * 2), self._last))
        upto = max(after, min(known, after + 4))
        numbers = range(after + 1, upto + 1)
        signals = tuple(Draft.of("number", str(n), n, id=self._world.id(str(n))) for n in numbers)
        return Batch(str(upto), signals, more=upto < known)


@scenario
async def ingesting(w: World) -> None:
    """A source that fails often: each of its signals is in the stream exactly once and in order."""
    source = SourceSettings(kind="actors.scenarios:Numbers", name="numbers", schedule="@every 1s")
    node = await w.start_node(app, settings=Settings(sources=(source,), shards=1))
    stream = Stream(w, node)
    found: list[str] = []

    def wants(type_: str, entity: str) -> bool:
        if type_ == "number":
            found.append(entity)
        return True

    async with trio.open_nursery() as everybody:
        everybody.start_soon(lambda: stream.follow("reader", wants))
        await trio.sleep(12.0)
        await w.quiesce(700.0)  # the pauses of a source that fails grow
        await stream.end()
    numbers = [int(number) for number in found]
    assert numbers == list(range(1, 31)), f"the numbers in the stream are {numbers}"
