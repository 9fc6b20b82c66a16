"""The SDK over the whole service in virtual time: crashes, evictions and aborts are not noticed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio

from actors.app import app
from actors.client import Gap, Last, SignalClient
from actors.client.links import Token
from actors.client.websocket import websocket_connect
from actors.settings import Settings
from runtime.testing import RunningServer, start_server
from tests.actors.test_tokens import LOCKED, now_of, token

QUIET = Settings(sources_enabled=False)


def client_of(server: RunningServer, seed: int = 0, *, shown: Token | None = None) -> SignalClient:
    async def open_stream(_: object) -> trio.abc.Stream:
        return await server.network.connect("127.0.0.1", 8787)

    ids = random.Random(f"{seed}/ids")
    return SignalClient(
        "http://127.0.0.1:8787",
        random=random.Random(seed),
        token=shown,
        connect=websocket_connect(open_stream),
        new_id=lambda: ids.randbytes(8).hex(),
    )


async def test_a_subscriber_gets_what_matches_its_filters_and_a_publisher_its_offset(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client_of(server) as client:
        async with client.subscribe(types=["alert.>"], where={"f": "/data/p", "op": "gt", "v": 1}) as alerts:
            await trio.sleep(1)  # it is live: only what comes from now on
            await client.publish("alert.high", "btc-usd", {"p": 1})
            await client.publish("price.tick", "btc-usd", {"p": 5})
            ack = await client.publish("alert.high", "btc-usd", {"p": 2}, id="mine")
            async for signal in alerts:
                assert (signal.o, signal.id, signal.data) == (ack.offset, "mine", {"p": 2})
                break
            assert (await client.publish("alert.high", "btc-usd", {"p": 2}, id="mine")).dup


async def test_rewinding_gives_the_newest_matching_ones_first_and_then_what_comes(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client_of(server) as client:
        for number in range(10):
            await client.publish("n.odd" if number % 2 else "n.even", "e", number)
        async with client.subscribe(types=["n.odd"], since=Last(2)) as sub:
            seen = []
            async for signal in sub:
                seen.append(signal.data)
                if len(seen) == 2:
                    await client.publish("n.odd", "e", 11)
                if len(seen) == 3:
                    break
            assert seen == [7, 9, 11]


Nuisance = Callable[[RunningServer, random.Random], object]


async def _crash(server: RunningServer, _: random.Random) -> None:
    await server.crash()
    await trio.sleep(1)
    await server.start()


async def _restart(server: RunningServer, _: random.Random) -> None:
    await server.restart()


async def _cut(server: RunningServer, _: random.Random) -> None:
    server.cut_connections()


async def _abort(server: RunningServer, rng: random.Random) -> None:
    server.abort(rng.choice([server.env.broadcasters.get_by_name("main"), server.env.shards.get_by_name("shard-0")]))


async def _evict(server: RunningServer, rng: random.Random) -> None:
    await trio.sleep(12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("nuisance", [_crash, _restart, _cut, _abort, _evict])
async def test_every_subscriber_sees_the_log_once_and_in_order_whatever_ends(autojump_clock, nuisance, seed):
    rng = random.Random(f"{nuisance.__name__}/{seed}")
    seen: dict[str, list[int]] = {"all": [], "some": []}
    acked: list[int] = []
    published = trio.Event()

    async def follow(name: str, **filters: object) -> None:
        async with client_of(server, rng.randrange(1000)) as client:
            async with client.subscribe(since="earliest", **filters) as subscription:
                async for item in subscription:
                    assert not isinstance(item, Gap), item
                    seen[name].append(item.o)

    async def publish() -> None:
        async with client_of(server, rng.randrange(1000)) as client:
            for number in range(40):
                ack = await client.publish("n.odd" if number % 2 else "n.even", "e", {"n": number}, id=f"p{number}")
                acked.append(ack.offset)
                await trio.sleep(rng.uniform(0, 1))
        published.set()

    async with start_server(app, settings=QUIET, seed=seed) as server, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: follow("all"))
        nursery.start_soon(lambda: follow("some", types=["n.odd"]))
        nursery.start_soon(publish)
        while not published.is_set():
            await trio.sleep(rng.uniform(0.5, 4))
            await nuisance(server, rng)
        await trio.sleep(120)
        nursery.cancel_scope.cancel()
    assert acked == list(range(1, 41))
    assert seen["all"] == acked
    assert seen["some"] == [offset for number, offset in enumerate(acked) if number % 2]


async def test_a_client_stays_connected_beyond_the_end_of_many_tokens(autojump_clock):
    async with start_server(app, settings=LOCKED) as server:

        async def newest() -> str:
            return token(now_of(server), ttl=120)

        async with client_of(server, shown=newest) as client, client.subscribe() as sub:
            for number in range(10):
                await trio.sleep(100)
                await client.publish("n", "e", number)
                assert (await anext(sub)).data == number
            assert client.stats.sockets == 1


async def test_a_client_whose_token_source_fails_comes_back_after_the_end_of_its_token(autojump_clock):
    async with start_server(app, settings=LOCKED) as server:
        asked: list[float] = []

        async def sometimes() -> str:
            asked.append(now_of(server))
            if len(asked) == 2:
                raise OSError("no network")
            return token(now_of(server), ttl=120)

        async with client_of(server, shown=sometimes) as client, client.subscribe() as sub:
            await trio.sleep(130)
            await client.publish("n", "e", 1)
            assert (await anext(sub)).data == 1
            assert (client.stats.sockets, len(asked)) == (2, 3)
