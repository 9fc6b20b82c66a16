"""What a test can do to a live actor: run its alarm, run code inside it, list it, ask why it is awake."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from runtime import Actor, ActorReset, AlarmInfo, App, Namespace, durable
from runtime.testing import start_server


@attrs.frozen
class Count:
    alarms: int = 0


class Bell(Actor["Env"]):
    count = durable(Count)
    heard = 0

    async def set(self, seconds: float) -> None:
        self.heard += 1
        self.ctx.storage.set_alarm(self.ctx.now() + seconds)

    async def break_next(self) -> None:
        self.ctx.storage.put("broken", True)

    async def wait(self, seconds: float) -> None:
        await self.ctx.sleep(seconds)

    async def alarm(self, info: AlarmInfo) -> None:
        if self.ctx.storage.delete("broken"):
            raise ValueError(f"run {info.retry_count} broke")
        await self.ctx.sleep(3)
        self.count = Count(self.count.alarms + 1)


class SqlBell(Bell):
    storage = "sql"


@attrs.frozen
class Env:
    bells: Namespace[Bell]
    sql_bells: Namespace[SqlBell]


app = App(env=Env, routes={})


async def test_run_alarm_waits_until_the_alarm_ran_and_leaves_none(autojump_clock: Any) -> None:
    async with start_server(app) as server:
        bell = server.env.bells.get_by_name("a")
        await bell.set(3600)
        began = trio.current_time()
        assert await server.run_alarm(bell)
        assert trio.current_time() - began == pytest.approx(3)
        assert await server.run_in(bell, lambda actor: (actor.count, actor.ctx.storage.get_alarm())) == (Count(1), None)
        assert not await server.run_alarm(bell)
        await trio.sleep(4000)
        assert await server.run_in(bell, lambda actor: actor.count) == Count(1)


async def test_run_alarm_wakes_an_actor_that_has_an_alarm_and_no_other(autojump_clock: Any) -> None:
    async with start_server(app) as server:
        bell = server.env.bells.get_by_name("a")
        assert not await server.run_alarm(bell)
        assert server.live_actors == 0
        await bell.set(3600)
        await server.evict(bell)
        assert await server.run_alarm(bell)


async def test_run_alarm_raises_what_the_handler_raised_and_the_alarm_stays_set(autojump_clock: Any) -> None:
    async with start_server(app) as server:
        bell = server.env.bells.get_by_name("a")
        await bell.set(100)
        await bell.break_next()
        with pytest.raises(ValueError, match="run 0 broke"):
            await server.run_alarm(bell)
        assert await server.run_in(bell, lambda actor: actor.count) == Count(0)
        await trio.sleep(110)
        assert await server.run_in(bell, lambda actor: actor.count) == Count(1)


async def test_an_alarm_that_runs_is_not_run_again(autojump_clock: Any) -> None:
    async with start_server(app) as server:
        bell = server.env.bells.get_by_name("a")
        await bell.set(1)
        await trio.sleep(2)  # it sleeps for 3 s
        assert not await server.run_alarm(bell)
        await trio.sleep(10)
        assert await server.run_in(bell, lambda actor: actor.count) == Count(1)


async def test_run_in_has_the_turn_and_what_it_writes_is_durable(autojump_clock: Any) -> None:
    async with start_server(app) as server:
        bell = server.env.bells.get_by_name("a")

        async def change(actor: Bell) -> str:
            actor.count = Count(7)
            await actor.ctx.sleep(1)
            await actor.set(50)
            return str(actor.ctx.id)

        assert await server.run_in(bell, change) == str(bell.id)
        await server.crash()
        await server.start()
        bell = server.env.bells.get_by_name("a")
        assert await server.run_in(bell, lambda actor: (actor.count, actor.heard)) == (Count(7), 0)
        assert server.node.router.alarms.due(bell.id) is not None


async def test_run_in_raises_the_functions_error_or_what_ended_the_instance(autojump_clock: Any) -> None:
    async with start_server(app) as server:
        bell = server.env.bells.get_by_name("a")
        with pytest.raises(ZeroDivisionError):
            await server.run_in(bell, lambda actor: 1 / actor.heard)
        with pytest.raises(ActorReset, match="enough"):
            await server.run_in(bell, lambda actor: actor.ctx.abort("enough"))


@pytest.mark.parametrize("field", ["bells", "sql_bells"])
async def test_list_ids_knows_what_is_stored_and_what_is_in_memory(autojump_clock: Any, field: str) -> None:
    async with start_server(app) as server:
        bells = getattr(server.env, field)
        assert server.list_ids(bells) == []
        stored, live = bells.get_by_name("stored"), bells.get_by_name("live")
        await stored.set(3600)
        await server.evict(stored)
        await live.wait(0)
        assert server.list_ids(bells) == sorted([stored.id, live.id], key=lambda actor_id: actor_id.raw)
        assert server.live_ids(bells) == [live.id]
        await server.evict(live)
        assert server.list_ids(bells) == [stored.id]


async def test_why_awake_names_what_runs_and_an_idle_actor_leaves_by_itself(autojump_clock: Any) -> None:
    async with start_server(app) as server:
        bell = server.env.bells.get_by_name("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run_in, bell, lambda actor: actor.wait(20))
            await trio.sleep(15)
            assert server.why_awake(bell) == ["<lambda> runs"]
        assert server.why_awake(bell) == []
        await trio.sleep(11)
        assert server.live_actors == 0
