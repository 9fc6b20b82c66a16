"""Functions and objects pass between actors by reference; calling one is an event of where it came from."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from runtime import Actor, ActorError, App, Context, Namespace, Reference, RpcTarget, UnknownMethod
from runtime.testing import start_server


class Counter(RpcTarget):
    """Counts."""

    def __init__(self, start: int, log: list[str]) -> None:
        self.value = start
        self.log = log

    async def inc(self, by: int) -> int:
        self.value += by
        return self.value

    def fail(self) -> None:
        raise ValueError("counter failed")

    def dispose(self) -> None:
        self.log.append("disposed")


class Server(Actor["Env"]):
    """Hands things out."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.log: list[str] = []
        self.kept: Reference | None = None

    async def counter(self, start: int) -> Counter:
        return Counter(start, self.log)

    async def counters(self) -> dict[str, list[Counter]]:
        return {"all": [Counter(1, self.log), Counter(2, self.log)]}

    async def apply(self, function: Any, value: int) -> int:
        return await function(value)

    async def keep(self, function: Any, dup: bool) -> None:
        self.kept = function.dup() if dup else function

    async def use_kept(self, value: int) -> int:
        return await self.kept(value)

    async def drop_kept(self) -> None:
        self.kept.dispose()

    async def read(self) -> list[str]:
        return self.log

    async def die(self) -> None:
        self.ctx.abort("server died")

    @property
    def version(self) -> int:
        return 3


class Client(Actor["Env"]):
    """Uses them."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.server = env.servers.get_by_name("s")
        self.log: list[str] = []

    async def double(self, value: int) -> int:
        self.log.append(f"double {value}")
        return value * 2

    async def pipelined(self) -> list[int]:
        counter = self.server.counter(100)
        first, second = counter.inc(1), counter.inc(10)
        return [await first, await second]

    async def pipelined_on_a_value(self) -> None:
        await self.server.read().inc(1)

    async def held(self) -> list[int]:
        counter = await self.server.counter(1)
        values = [await counter.inc(1), await counter.inc(1)]
        counter.dispose()
        try:
            await counter.inc(1)
        except RuntimeError as error:
            self.log.append(str(error))
        return values

    async def nested(self) -> list[int]:
        found = await self.server.counters()
        return [await counter.inc(10) for counter in found["all"]]

    async def callback(self, value: int) -> int:
        return await self.server.apply(self.double, value)

    async def callback_in_section(self) -> int:
        async def body() -> int:
            return await self.server.apply(self.double, 4)

        return await self.ctx.block_concurrency_while(body)

    async def lend(self, dup: bool) -> None:
        await self.server.keep(self.double, dup)

    async def unknown(self) -> None:
        await (await self.server.counter(1)).reset()

    async def failing(self) -> None:
        await (await self.server.counter(1)).fail()

    async def orphan(self) -> None:
        counter = await self.server.counter(1)
        self.env.servers.get_by_name("s").die()
        await self.ctx.sleep(1)
        await counter.inc(1)

    async def one_way(self) -> None:
        self.ctx.notify(self.server.apply, self.double, 1)

    async def abandon(self) -> None:
        self.server.counter(1)

    async def store(self) -> None:
        self.ctx.storage.put("f", self.double)

    async def read(self) -> list[str]:
        return self.log


@attrs.frozen
class Env:
    servers: Namespace[Server]
    clients: Namespace[Client]


app = App(env=Env, routes={})


async def test_calls_on_a_result_that_has_not_come_yet_keep_their_order(autojump_clock):
    async with start_server(app) as server:
        assert await server.env.clients.get_by_name("c").pipelined() == [101, 111]
        with pytest.raises(TypeError, match="it cannot be called"):
            await server.env.clients.get_by_name("c").pipelined_on_a_value()


async def test_a_disposed_reference_is_over_and_its_target_hears_of_it(autojump_clock):
    async with start_server(app) as server:
        client = server.env.clients.get_by_name("c")
        assert await client.held() == [2, 3]
        assert await client.read() == ["RPC stub used after being disposed."]
        assert await server.env.servers.get_by_name("s").read() == ["disposed"]


@pytest.mark.parametrize("method", ["pipelined", "nested", "abandon"])
async def test_references_of_an_answer_end_with_the_event_that_made_the_call(autojump_clock, method):
    async with start_server(app) as server:
        await getattr(server.env.clients.get_by_name("c"), method)()
        await trio.sleep(0.1)
        assert set(await server.env.servers.get_by_name("s").read()) == {"disposed"}
        assert server.why_awake(server.env.servers.get_by_name("s")) == []


async def test_a_callback_runs_in_the_actor_it_came_from(autojump_clock):
    async with start_server(app) as server:
        client = server.env.clients.get_by_name("c")
        assert await client.callback(21) == 42
        assert await client.read() == ["double 21"]


async def test_a_callback_of_a_call_made_in_a_section_runs_inside_it(autojump_clock):
    async with start_server(app) as server:
        with trio.fail_after(1):
            assert await server.env.clients.get_by_name("c").callback_in_section() == 8


async def test_a_reference_in_arguments_ends_with_the_call_unless_it_is_duplicated(autojump_clock):
    async with start_server(app) as server:
        client, target = server.env.clients.get_by_name("c"), server.env.servers.get_by_name("s")
        await client.lend(False)
        with pytest.raises(RuntimeError, match="used after being disposed"):
            await target.use_kept(1)
        await client.lend(True)
        assert await target.use_kept(4) == 8
        await trio.sleep(9)
        assert server.why_awake(client) != []  # it is referred to
        await target.drop_kept()
        assert server.why_awake(client) == []


async def test_a_reference_that_is_kept_ends_with_the_instance_that_keeps_it(autojump_clock):
    async with start_server(app) as server:
        client, target = server.env.clients.get_by_name("c"), server.env.servers.get_by_name("s")
        await client.lend(True)
        await server.evict(target)
        assert server.why_awake(client) == []


async def test_only_public_methods_of_a_target_can_be_called(autojump_clock):
    async with start_server(app) as server:
        with pytest.raises(UnknownMethod, match='"reset"'):
            await server.env.clients.get_by_name("c").unknown()


async def test_an_error_of_a_target_arrives_as_it_is(autojump_clock):
    async with start_server(app) as server:
        with pytest.raises(ValueError, match="counter failed") as caught:
            await server.env.clients.get_by_name("c").failing()
        assert caught.value.remote


async def test_a_reference_dies_with_the_instance_it_came_from(autojump_clock):
    async with start_server(app) as server:
        with pytest.raises(ActorError, match="server died"):
            await server.env.clients.get_by_name("c").orphan()


async def test_what_cannot_carry_a_reference_says_so(autojump_clock):
    async with start_server(app) as server:
        client = server.env.clients.get_by_name("c")
        for method in ("one_way", "store"):
            with pytest.raises(TypeError, match="functions cannot be stored or sent"):
                await getattr(client, method)()
        with pytest.raises(TypeError, match="Counter"):  # a test is no actor
            await server.env.servers.get_by_name("s").counter(1)


async def test_a_property_can_be_read_through_a_stub(autojump_clock):
    async with start_server(app) as server:
        assert await server.env.servers.get_by_name("s").version == 3
        with pytest.raises(UnknownMethod, match='"log"'):
            await server.env.servers.get_by_name("s").log
