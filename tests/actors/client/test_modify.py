"""The SDK changes subscriptions in place, and begins with snapshots."""

from __future__ import annotations

import anyio
import pytest
import trio
import trio.lowlevel

from actors.app import app
from actors.client import (
    Ago,
    InvalidFilter,
    Last,
    SignalClient,
    SnapSignal,
    Subscription,
)
from runtime.testing import start_server
from tests.actors.client.test_end_to_end import QUIET, client_of


async def publish(client: SignalClient, *types: str) -> None:
    for type_ in types:
        await client.publish(type_, "e", None)


async def take(sub: Subscription, count: int) -> list[tuple[int, bool]]:
    """The next items: offset, and whether it is one from before."""
    items = [await sub.__anext__() for _ in range(count)]
    return [(item.o, isinstance(item, SnapSignal)) for item in items]


async def test_a_subscription_is_changed_where_it_is_and_gets_what_it_asks_for_of_before(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client_of(server) as client:
        async with client.subscribe(types=["a"], since="earliest") as sub:
            await publish(client, "a", "b", "b")
            assert await take(sub, 1) == [(1, False)]
            changed = await sub.modify(filter={"types": ["b"]}, backfill=Last(1))
            assert changed.offset == 3
            assert sub.filter.canonical == '{"types":["b"]}'
            await publish(client, "a", "b")
            assert await take(sub, 2) == [(3, True), (5, False)]
            await sub.modify(filter={"types": ["a", "b"]}, backfill=Ago(60_000))
            assert await take(sub, 2) == [(1, True), (4, True)]
            await publish(client, "a")
            assert await take(sub, 1) == [(6, False)]


async def test_a_snapshot_comes_first_and_the_cursor_is_told_when_it_is_complete(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client_of(server) as client:
        await publish(client, "a", "b", "a", "c")
        async with client.subscribe(types=["a", "b"], since="snapshot") as sub:
            assert await take(sub, 1) == [(2, True)]
            assert await take(sub, 1) == [(3, True)]
            await publish(client, "b")
            assert await take(sub, 1) == [(5, False)]
            assert sub.cursor.offset == 4


async def test_a_change_while_there_is_no_connection_counts_from_the_cursor(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client_of(server) as client:
        async with client.subscribe(types=["a"], since="earliest") as sub:
            await publish(client, "a", "b")
            assert await take(sub, 1) == [(1, False)]
            await server.crash()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: sub.modify(filter={"types": ["b"]}))
                await trio.sleep(1)
                await server.start()
            await publish(client, "b")
            offset, early = (await take(sub, 1))[0]
            assert (offset in (2, 3), early) == (True, False)


async def test_who_is_to_take_something_first_does_not_wait_for_a_change(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client_of(server) as client:
        async with client.subscribe(types=["a"], since="earliest", buffer=1) as sub, client_of(server, 1) as other:
            await publish(other, *"aaaa")
            await trio.sleep(1)
            assert await sub.modify(filter={"types": ["b"]}) is None
            assert await take(sub, 4) == [(1, False), (2, False), (3, False), (4, False)]
            await trio.sleep(1)
            await publish(other, "a", "b")
            assert await take(sub, 1) == [(6, False)]


async def test_a_change_is_refused_where_it_makes_no_sense(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client_of(server) as client:
        sub = client.subscribe(types=["a"])
        with pytest.raises(anyio.ClosedResourceError):
            await sub.modify()
        async with sub:
            with pytest.raises(InvalidFilter):
                await sub.modify(filter={"types": []})
            with pytest.RaisesGroup(anyio.BusyResourceError):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sub.modify)
                    nursery.start_soon(sub.modify)
