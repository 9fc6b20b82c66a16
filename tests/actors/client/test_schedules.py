"""The SDK over the whole service through random schedules of faults: what matches is delivered once and in order, or a
gap says what is missing. A thousand of them with `HYPOTHESIS_PROFILE=long`."""

from __future__ import annotations

import os
import random

import attrs
import pytest
import trio

from actors.app import app
from actors.client import Gap, SignalClient
from actors.client.websocket import websocket_connect
from actors.protocol.limits import Limits
from actors.settings import ConnectionSettings, StreamSettings
from actors.stream import shard_name
from runtime.testing import start_server
from tests.actors.test_restore import bring_back, now
from tests.actors.test_restore import stream as stream_actor
from tests.actors.test_tokens import LOCKED, now_of, token

SCHEDULES = 1_000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 20
FAULTS = 12
END = "n.odd.end"
ALL, ODD = ["n.>"], ["n.odd"]
SETTINGS = attrs.evolve(
    LOCKED,
    shards=2,
    streams=("other",),
    limits=Limits(rate_burst=1_000, rate_messages=1_000, handshakes_burst=1_000, handshakes_per_s=1_000),
    connections=ConnectionSettings(handover_s=2.0),
)
FEW = StreamSettings(retention_signals=20, retention_s=1.0, retention_max_s=30.0)


class Wire(trio.abc.Stream):
    """A client's end; `half_open`: nothing goes through any more, and nobody says so."""

    def __init__(self, inner):
        self.inner, self.half_open = inner, False

    async def send_all(self, data):
        if not self.half_open:
            await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self):
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None):
        data = b"" if self.half_open else await self.inner.receive_some(max_bytes)
        if self.half_open:
            await trio.sleep_forever()
        return data

    async def aclose(self):
        await self.inner.aclose()


@attrs.define(eq=False)
class Epoch:
    """What was stored under one name of the stream: types by offset.

    Attributes:
        before: the one that it was brought back from, of which it has everything up to `head`.
        acked: the publisher was told. unsettled: it was not, because a restore took that away; it may have been stored.
    """

    before: Epoch | None = None
    head: int = 0
    acked: dict[int, str] = attrs.Factory(dict)
    unsettled: dict[int, str] = attrs.Factory(dict)

    def stored(self):
        earlier = {} if self.before is None else self.before.stored()
        return {o: t for o, t in earlier.items() if o <= self.head} | self.unsettled | self.acked


class World:
    """The service, its network, what was stored in each epoch, and what each subscription was given."""

    def __init__(self, server, rng, stream):
        self.server, self.rng, self.stream = server, rng, stream
        self.wires = []
        self.cut_off = False
        self.epochs = {}
        self.marks = []
        self.given = []
        self.over = trio.Event()

    async def open(self, _):
        if self.cut_off:
            raise OSError("no network")
        self.wires.append(Wire(await self.server.network.connect("127.0.0.1", 8787)))
        return self.wires[-1]

    def client(self, encoding):
        async def fresh():
            if self.rng.random() < 0.05:
                raise OSError("no token")
            return token(now_of(self.server), ttl=self.rng.choice([15, 60, 300]))

        return SignalClient(
            "http://127.0.0.1:8787",
            random=random.Random(self.rng.random()),
            token=fresh,
            connect=websocket_connect(self.open),
            new_id=lambda: self.rng.randbytes(8).hex(),
            encoding=encoding,
            stream=self.stream,
        )

    async def publish(self):
        async with self.client("json") as client:
            number = 0
            while not self.over.is_set():
                number += 1
                await self.store(client, "n.odd" if number % 2 else "n.even")
                await trio.sleep(self.rng.choice([0.01, 0.1, 1]))
            await trio.sleep(100)
            for _ in range(3):  # what the last restore took away
                await self.store(client, END)

    async def store(self, client, type_):
        known = len(self.epochs)
        ack = await client.publish(type_, "e", None)
        self.epoch(ack.epoch).acked[ack.offset] = type_
        for name, epoch in list(self.epochs.items())[max(0, known - 1) :]:
            if name != ack.epoch:
                epoch.unsettled[max(epoch.stored(), default=0) + 1] = type_

    def epoch(self, name):
        return self.epochs.setdefault(name, Epoch())

    async def follow(self, types, encoding, on_gap, on_slow, pause):
        segments = [[]]
        self.given.append((types, segments))
        async with (
            self.client(encoding) as client,
            client.subscribe(types=[*types, END], since="earliest", on_gap=on_gap, on_slow=on_slow, buffer=20) as sub,
        ):
            async for item in sub:
                if isinstance(item, Gap) and item.reason == "epoch":
                    segments.append([])
                elif isinstance(item, Gap):
                    segments[-1].append((item.after, item.upto))
                else:
                    segments[-1].append((item.o, item.type))
                    if item.type == END:
                        return
                if pause and not self.over.is_set():
                    await trio.sleep(self.rng.uniform(0, pause))

    # Faults.

    async def drop(self):
        self.server.cut_connections()

    async def half_open(self):
        for wire in self.wires:
            wire.half_open = wire.half_open or self.rng.random() < 0.5

    async def lose_the_network(self):
        self.cut_off = True
        self.server.cut_connections()
        await trio.sleep(self.rng.choice([1, 40]))
        self.cut_off = False

    async def crash(self):
        await self.server.crash()
        await trio.sleep(self.rng.choice([0.1, 10]))
        await self.server.start()

    async def restart(self):
        await self.server.restart()

    async def abort(self):
        env = self.server.env
        name = self.stream or "main"
        self.server.abort(
            self.rng.choice([env.broadcasters.get_by_name(name), env.shards.get_by_name(shard_name(0, name))])
        )

    async def send_away(self):
        for number in range(2):
            await self.server.env.shards.get_by_name(shard_name(number, self.stream or "main")).rebalance()

    async def mark(self):
        at = None
        while at != (at := await self.place()):  # nothing was stored while it was taken
            bookmark = await now(self.server)
        self.marks.append((bookmark, *at))

    async def place(self):
        bounds = await stream_actor(self.server).bounds()
        return self.epoch(bounds.epoch), bounds.head

    async def restore(self):
        if self.marks and self.stream is None:
            bookmark, before, head = self.rng.choice(self.marks)
            await bring_back(self.server, bookmark)
            epoch, _ = await self.place()
            epoch.before, epoch.head = before, head

    async def run(self):
        faults = [
            self.drop,
            self.half_open,
            self.lose_the_network,
            self.crash,
            self.restart,
            self.abort,
            self.send_away,
            self.mark,
            self.restore,
        ]
        for _ in range(FAULTS):
            await trio.sleep(self.rng.uniform(0, 8))
            await self.rng.choice(faults)()
        self.over.set()


def explained(segment, types, stored):
    """Whether a segment is of this epoch: what matches is there once and in order, or in a gap."""
    last = None
    for at, what in segment:
        if isinstance(what, str):
            if stored.get(at) != what or (last is not None and at <= last):
                return False
            missing, last = () if last is None else range(last + 1, at), at
        else:
            if (
                last is not None
                and at > last
                and any(o in stored and matches(stored[o], types) for o in range(last + 1, at + 1))
            ):
                return False
            missing, last = (), max(what, last or 0)
        if any(o in stored and matches(stored[o], types) for o in missing):
            return False
    return True


def matches(type_, types):
    return types == ALL or type_.startswith("n.odd")


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_what_matches_is_delivered_once_and_in_order_or_a_gap_says_so(seed, autojump_clock):
    rng = random.Random(seed)
    stream = rng.choice([None, None, "other"])
    settings = attrs.evolve(SETTINGS, stream=rng.choice([StreamSettings(), FEW]))
    async with start_server(app, settings=settings, seed=seed) as server:
        world = World(server, rng, stream)
        with trio.fail_after(10_000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.publish)
                for types in (ALL, ODD):
                    for encoding in ("json", "msgpack"):
                        nursery.start_soon(
                            world.follow,
                            types,
                            encoding,
                            rng.choice(["fail", "skip"]),
                            rng.choice(["close", "skip"]),
                            rng.choice([0, 0, 0.5]),
                        )
                await world.run()
    known = [epoch.stored() for epoch in world.epochs.values()]
    assert len(world.given) == 4
    for types, segments in world.given:
        assert segments[-1][-1][1] == END
        for segment in segments:
            assert any(explained(segment, types, stored) for stored in known), (types, segment)


def test_what_is_not_explained_is_found():
    stored = {o: "n.odd" if o % 2 else "n.even" for o in range(1, 9)}
    whole = [(o, stored[o]) for o in range(2, 9)]
    odd = [(o, "n.odd") for o in (1, 3, 5, 7)]
    assert explained(whole, ALL, stored)
    assert explained(odd, ODD, stored)
    assert explained([*odd[:1], (1, 5), *odd[3:]], ODD, stored)
    for wrong in ([*whole[:2], *whole[3:]], [*whole, whole[-1]], [*whole[:2], whole[3], whole[2]], [(9, "n.odd")]):
        assert not explained(wrong, ALL, stored)
    assert not explained([*odd[:1], (3, 5), *odd[3:]], ODD, stored), "the gap begins too late"
    assert not explained([*odd[:1], (1, 4), *odd[3:]], ODD, stored), "or ends too early"
    assert not explained([(1, "n.even")], ALL, stored), "of another epoch"
