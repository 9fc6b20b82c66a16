"""The clients of the service's scenarios, and what each of them must and must not be given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import trio

from actors.client import Gap, Signal, SignalClient
from actors.client.links import Token
from actors.client.websocket import websocket_connect
from actors.protocol.encoding import ENCODINGS
from actors.settings import Settings
from runtime.sim import SimulatedNode, World

LAST = "last.of.all"
PATIENCE_S = 600.0  # after the faults: reconnects back off to a minute


@attrs.define(eq=False)
class Seen:
    """What one subscriber was given, and whether it may be.

    Attributes:
        wants: whether a signal matches. by_id: what any client knows: offset to id. begins: what came before was gone.
    """

    world: World
    name: str
    wants: Callable[[str, str], bool]
    by_id: dict[int, str]
    offsets: list[int] = attrs.field(factory=list[int])
    ids: set[str] = attrs.field(factory=set[str])
    gaps: list[Gap] = attrs.field(factory=list[Gap])
    done: trio.Event = attrs.field(factory=trio.Event)
    begins: int = 0
    _end: int | None = None
    _news: trio.Event = attrs.field(factory=trio.Event)

    def ends_at(self, offset: int) -> None:
        """The offset of the last signal of all: it is done as well when it is told that it misses that one."""
        self._end = offset
        if not self.missed(offset):
            self.done.set()

    def take(self, item: Signal | Gap) -> None:
        """One more. Raises: AssertionError: it must not come."""
        if isinstance(item, Gap):
            self.world.trace.note("gap", self.name, f"{item.after}..{item.upto} {item.reason}")
            self.gaps.append(item)
            if self._end is not None:
                self.ends_at(self._end)
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
        self._news.set()
        if item.type == LAST:
            self.done.set()

    async def until_given(self, signal_id: str) -> None:
        """Wait for a signal."""
        while signal_id not in self.ids:
            self._news = trio.Event()
            await self._news.wait()

    def missed(self, offset: int) -> bool:
        """Neither given nor in a gap."""
        if offset in self.offsets or offset <= self.begins:
            return False
        return not any((gap.after or 0) < offset <= (gap.upto or offset) for gap in self.gaps)


@attrs.define(eq=False)
class Stream:
    """The clients of one stream, and what the service has promised them.

    Attributes:
        name: of the stream; None for the one without a name.
        token: what each client shows, by its name.
        acked: id to offset. kinds: id to type and entity. forgets: the earliest that is stored may not be the first.
        clients: by name, the last one of each.
    """

    world: World
    node: SimulatedNode
    name: str | None = None
    token: Callable[[str], Token | None] = lambda _: None
    by_id: dict[int, str] = attrs.field(factory=dict[int, str])
    acked: dict[str, int] = attrs.field(factory=dict[str, int])
    kinds: dict[str, tuple[str, str]] = attrs.field(factory=dict[str, tuple[str, str]])
    subscribers: list[Seen] = attrs.field(factory=list[Seen])
    forgets: bool = False
    clients: dict[str, SignalClient] = attrs.field(factory=dict[str, SignalClient])

    def client(self, name: str) -> SignalClient:
        """A client of its own; its encoding is drawn."""
        world, node = self.world, self.node
        client = self.clients[name] = SignalClient(
            "http://127.0.0.1:8787",
            token=self.token(name),
            stream=self.name,
            random=world.rng(f"{name}/jitter"),
            connect=websocket_connect(lambda _: world.connect(node)),
            name=name,
            encoding=world.rng(f"{name}/encoding").choice(tuple(ENCODINGS)),
        )
        return client

    async def publish(self, client: SignalClient, signal_id: str, type_: str, entity: str, data: object) -> None:
        """Publish, and remember what was promised."""
        self.kinds[signal_id] = type_, entity
        number = self.world.trace.note("publish", "publishers", signal_id)
        ack = await client.publish(type_, entity, data, id=signal_id)
        self.world.trace.note("acked", "publishers", f"#{number} {signal_id} at {ack.offset}")
        known = self.by_id.setdefault(ack.offset, signal_id)
        assert known == signal_id, f"offset {ack.offset} was {known} and was given to {signal_id} too"
        self.acked[signal_id] = ack.offset

    def subscriber(self, name: str, wants: Callable[[str, str], bool]) -> Seen:
        """One more, who wants the last signal of all, too."""
        seen = Seen(self.world, name, lambda t, e: (t, e) == (LAST, self.name or "all") or wants(t, e), self.by_id)
        self.subscribers.append(seen)
        return seen

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
        seen = self.subscriber(name, wants)
        async with self.client(name) as client:
            async with client.subscribe(since="earliest", buffer=buffer, **filter_) as subscription:
                async for item in subscription:
                    if self.forgets and subscription.cursor is not None and not (seen.offsets or seen.gaps):
                        seen.begins = subscription.cursor.offset
                    seen.take(item)
                    if seen.done.is_set():
                        return
                    if pause_s and not self.world.quiet:
                        await trio.sleep(pause_s)

    async def end(self) -> None:
        """Faults are over: a last signal must reach everybody, and nobody may have missed anything before it."""
        await self.world.quiesce()
        with trio.fail_after(PATIENCE_S):
            async with self.client("last") as client:
                await self.publish(client, "last", LAST, self.name or "all", None)
            for seen in self.subscribers:
                seen.ends_at(self.acked["last"])
                await seen.done.wait()
        for seen in self.subscribers:
            for signal_id, offset in self.acked.items():
                if seen.wants(*self.kinds[signal_id]):
                    assert not seen.missed(offset), f"{seen.name} never got {signal_id} at {offset}, which was acked"


QUIET = Settings(sources_enabled=False, shards=2)
