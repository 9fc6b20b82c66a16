"""A scenario of several streams of one server: nothing of one is in another, and the end of one ends none."""

from __future__ import annotations

from contextlib import suppress

import attrs
import trio

from actors.app import app
from actors.client import SignalClient
from actors.scenarios_clients import QUIET, Stream
from actors.stream import STREAM, shard_name
from runtime.sim import SimulatedNode, Unknown, World, scenario

_CALM_S = 70.0  # a client waits for up to a minute before it tries again
_AT_ONCE_S = 2.0


async def _destroy_orders(node: SimulatedNode) -> None:
    """End every instance that the stream of orders has."""
    shards = [("shards", shard_name(number, "orders")) for number in range(QUIET.shards)]
    for namespace, name in (("broadcasters", "orders"), *shards):
        with suppress(Unknown):
            await node.run_in(namespace, name, lambda actor: actor.ctx.abort("its stream has bad luck"))


async def _arrives_at_once(stream: Stream, client: SignalClient, signal_id: str) -> None:
    """Publish; the answer and the signal come soon. Raises: AssertionError: they do not."""
    own = stream.name or STREAM
    with trio.move_on_after(_AT_ONCE_S) as scope:
        await stream.publish(client, signal_id, "price.tick", own, None)
        for seen in stream.subscribers:
            await seen.until_given(signal_id)
    assert not scope.cancelled_caught, f"{signal_id} of {own} took longer than {_AT_ONCE_S:g} s"


@scenario
async def separating(w: World) -> None:
    """Three streams with the same ids in each, of which one has its instances destroyed again and again.

    Everybody gets what is published in the own stream, once and in order. When nothing else is wrong the others do not
    notice: nobody has to connect again, and what they publish arrives at once.
    """
    names = ("orders", "prices")
    idle_s = w.rng("options").choice((0.5, 10.0))
    node = await w.start_node(app, settings=attrs.evolve(QUIET, streams=names), idle_s=idle_s)
    main, orders, prices = streams = [Stream(w, node, name) for name in (None, *names)]

    async def publisher(stream: Stream) -> None:
        own = stream.name or STREAM
        rng = w.rng(f"{own}/publisher")
        async with stream.client(f"{own}/publisher") as client:
            for number in w.times(8):
                await trio.sleep(rng.choice((0.01, 0.5, 1.5)))
                await stream.publish(client, f"p-{number}", "price.tick", own, None)

    async def follow(stream: Stream) -> None:
        own = stream.name or STREAM
        await stream.follow(f"{own}/reader", lambda _, entity: entity == own)

    async def operator() -> None:
        rng = w.rng("operator")
        for _ in w.times(3):
            await trio.sleep(rng.uniform(0.5, 3.0))
            await _destroy_orders(node)

    def opened(stream: Stream) -> list[int]:
        return [stream.clients[seen.name].stats.sockets for seen in stream.subscribers]

    async with trio.open_nursery() as everybody:
        for stream in streams:
            everybody.start_soon(follow, stream)
        async with trio.open_nursery() as busy:
            for stream in streams:
                busy.start_soon(publisher, stream)
            busy.start_soon(operator)
        await w.quiesce(_CALM_S)
        before = {stream: opened(stream) for stream in streams}
        async with main.client("main/late") as to_main, prices.client("prices/late") as to_prices:
            await trio.sleep(5.0)
            for number in w.times(2):
                await _destroy_orders(node)
                await _arrives_at_once(main, to_main, f"late-{number}")
                await _arrives_at_once(prices, to_prices, f"late-{number}")
                await trio.sleep(3.0)
        assert opened(main) == before[main], "an end of the stream of orders has closed connections of the main one"
        assert opened(prices) == before[prices], "an end of the stream of orders has closed connections of prices"
        assert min(opened(orders)) > min(before[orders]), "the stream of orders was not disturbed"
        for stream in streams:
            await stream.end()
