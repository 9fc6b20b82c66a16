"""A scenario of readers of server-sent events, who come back with the id of the last one as browsers do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable
from contextlib import suppress
from urllib.parse import quote

import attrs
import trio

from actors.app import app
from actors.client import Cursor, Gap, Signal
from actors.scenarios_clients import QUIET, Seen, Stream
from actors.settings import StreamSettings
from actors.stream import shard_name
from runtime.sim import SimulatedNode, Unknown, World, scenario

_SILENT_S = 40.0  # a comment comes every 15 s
_PASSING = {429, 500, 502, 503, 504}


@attrs.define(eq=False)
class EventReader:
    """Reads events, and comes back with the last id until it has the last signal of all.

    Attributes:
        query: of the address. stays_s: how long it stays at most before it comes back by itself.
        last: the cursor that it comes back with. comes_back_s: after so many seconds, as the server has told.
    """

    world: World
    node: SimulatedNode
    seen: Seen
    query: str
    forgets: bool
    stays_s: float = 1e9
    last: Cursor | None = None
    comes_back_s: float = 1.0

    async def read(self) -> None:
        """Take everything. Raises: AssertionError: it must not come."""
        while not self.seen.done.is_set():
            headers = {"accept": "text/event-stream"} | ({} if self.last is None else {"last-event-id": str(self.last)})
            with trio.move_on_after(1e9 if self.world.quiet else self.stays_s):
                try:
                    async with self.world.stream(self.node, "GET", f"/v1/sse{self.query}", headers=headers) as response:
                        if response.status == 200:
                            assert response.stream is not None
                            await self._take_all(response.stream)
                        else:
                            assert response.status in _PASSING, f"{self.seen.name} was answered {response.status}"
                except OSError as error:
                    self.world.trace.note("cut off", self.seen.name, str(error))
            await trio.sleep(self.comes_back_s)

    async def _take_all(self, chunks: AsyncIterable[bytes]) -> None:
        text = ""
        iterator = aiter(chunks)
        while not self.seen.done.is_set():
            chunk = None
            with trio.move_on_after(_SILENT_S):
                chunk = await anext(iterator, None)
            if chunk is None:
                return
            *blocks, text = (text + chunk.decode()).split("\n\n")
            for block in blocks:
                pairs = [line.partition(": ") for line in block.split("\n")]
                self._take({name: value for name, _, value in pairs if name})

    def _take(self, fields: dict[str, str]) -> None:
        """One event. Its id counts with it, as if it was taken at once."""
        if "retry" in fields:
            self.comes_back_s = int(fields["retry"]) / 1000
        if "data" in fields:
            told = json.loads(fields["data"])
            if fields["event"] == "sig":
                for one in told["d"]:
                    self.seen.take(Signal.decode(json.dumps(one)))
            else:
                assert fields["event"] == "gap", f"{self.seen.name} was told {fields}"
                assert self.forgets, f"{self.seen.name} was told of a gap, and nothing is ever forgotten: {fields}"
                self.seen.take(Gap(told["a"], told["b"], told["reason"]))
        if "id" in fields:
            self._move(Cursor.parse(fields["id"]))

    def _move(self, cursor: Cursor) -> None:
        seen, last = self.seen, self.last
        if last is None and self.forgets:
            seen.begins = cursor.offset
        if last is not None:
            assert cursor.epoch == last.epoch, f"{seen.name} has the cursor {cursor} after {last}"
            assert cursor.offset >= last.offset, f"{seen.name} has the cursor {cursor} after {last}"
        newest = seen.offsets[-1] if seen.offsets else 0
        assert cursor.offset >= newest, f"{seen.name} has the cursor {cursor} when it was given {newest}"
        self.last = cursor


@scenario
async def reading_events(w: World) -> None:
    """Readers of server-sent events, one with a filter and one who comes and goes: each event once and in order.

    The server is told to stop and asks its clients to go elsewhere; sometimes it keeps few signals, and then who comes
    back too late is told what it has missed.
    """
    few = w.rng("options").choice((None, None, 10))
    keeps = StreamSettings() if few is None else StreamSettings(retention_signals=few, retention_s=0.0)
    node = await w.start_node(app, settings=attrs.evolve(QUIET, stream=keeps), idle_s=w.rng("idle").choice((0.5, 10.0)))
    stream = Stream(w, node, forgets=few is not None)

    def reader(seen: Seen, filter_: str = "{}", stays_s: float = 1e9) -> EventReader:
        query = f"?from=earliest&filter={quote(filter_)}"
        return EventReader(w, node, seen, query, forgets=stream.forgets, stays_s=stays_s)

    async def publisher(name: str) -> None:
        rng = w.rng(name)
        async with stream.client(name) as client:
            for number in w.times(20):
                await trio.sleep(rng.choice((0.01, 0.5, 1.5)))
                await stream.publish(client, f"{name}-{number}", "price.tick", rng.choice(("btc-usd", "eth-usd")), None)

    async def operator() -> None:
        rng = w.rng("operator")
        for _ in w.times(2):
            await trio.sleep(rng.uniform(0.5, 4.0))
            await w.restart(node)
            await trio.sleep(rng.uniform(0.5, 4.0))
            with suppress(Unknown):
                await node.stub("shards", shard_name(rng.randrange(2))).rebalance()

    everything = reader(stream.subscriber("all", lambda _, __: True))
    btc = reader(stream.subscriber("btc", lambda _, e: e == "btc-usd"), '{"entities":["btc-*","all"]}')
    visitor = reader(stream.subscriber("visits", lambda _, __: True), stays_s=w.rng("visits").uniform(0.5, 6.0))
    async with trio.open_nursery() as everybody:
        for one in (everything, btc, visitor):
            everybody.start_soon(one.read)
        async with trio.open_nursery() as busy:
            busy.start_soon(publisher, "anna")
            if not stream.forgets:  # the id of what is not stored any more is not known for ever
                busy.start_soon(publisher, "ben")
            busy.start_soon(operator)
        await stream.end()
        everybody.cancel_scope.cancel()  # who was told that the last signal is missing waits for more
