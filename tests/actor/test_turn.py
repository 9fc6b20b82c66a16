"""One handler of an actor runs at a time; the turn goes round first come, first served."""

from __future__ import annotations

import attrs
import pytest
import structlog
import trio

from runtime import Actor, ActorError, App, Context, Namespace
from runtime.testing import start_server


class Worker(Actor["Env"]):
    """Records what runs when."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.log: list[str] = []
        self.latch = ctx.event()

    async def read(self) -> list[str]:
        return self.log

    async def add(self) -> int:
        value = self.ctx.storage.get("n", int, default=0) + 1
        self.ctx.storage.put("n", value)
        return value

    async def napping(self, name: str, seconds: float) -> None:
        self.log.append(f"{name} sleeps")
        await self.ctx.sleep(seconds)
        self.log.append(f"{name} woke")

    async def holding(self, name: str, seconds: float) -> None:
        self.log.append(f"{name} holds")
        await trio.sleep(seconds)
        self.log.append(f"{name} ends")

    async def note(self, text: str) -> None:
        self.log.append(text)

    async def section(self, seconds: float) -> int:
        async def body() -> int:
            self.log.append("section begins")
            await self.ctx.sleep(seconds)
            self.log.append("section ends")
            return 9

        value = await self.ctx.block_concurrency_while(body)
        self.log.append(f"after section {value}")
        return value

    async def failing_section(self) -> None:
        async def body() -> None:
            raise ValueError("no luck")

        try:
            await self.ctx.block_concurrency_while(body)
        except ValueError:
            self.log.append("caught")

    async def endless_section(self) -> None:
        async def body() -> None:
            await self.ctx.sleep(3600)

        await self.ctx.block_concurrency_while(body)

    async def self_call_in_section(self) -> None:
        async def body() -> None:
            await self.env.workers.get(self.ctx.id).note("inside")

        await self.ctx.block_concurrency_while(body)

    async def bounce(self, to: str) -> str:
        return await self.env.workers.get_by_name(to).back(self.ctx.id.name or "")

    async def back(self, to: str) -> str:
        await self.env.workers.get_by_name(to).note("called back")
        return "bounced"

    async def fan_out(self, names: list[str]) -> list[int]:
        calls = [self.env.workers.get_by_name(name).add() for name in names]
        return [await call for call in calls]

    async def nursery_inside(self, to: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._call, to)

    async def _call(self, to: str) -> None:
        await self.env.workers.get_by_name(to).note("from a nursery")

    async def concurrently(self) -> list[str]:
        async def part(name: str) -> str:
            await self.ctx.sleep(1)
            self.log.append(name)
            return name

        parts = [self.ctx.start_soon(part, name) for name in "abc"]
        return [await each for each in parts]

    async def wait_for_latch(self) -> str:
        await self.latch.wait()
        return "released"

    async def release(self) -> None:
        self.latch.set()

    async def timeouts(self) -> None:
        self.ctx.set_timeout(2, self.note, "second")
        self.ctx.set_timeout(1, self.note, "first")
        self.ctx.set_timeout(1, self.note, "never").cancel()

    async def cancelled_sleep(self) -> str:
        with trio.move_on_after(1):
            await self.ctx.sleep(100)
        self.log.append("went on")
        return "cancelled"

    async def abort(self) -> None:
        self.ctx.storage.put("lost", 1)
        self.ctx.abort("enough")

    async def boom(self) -> None:
        self.ctx.storage.put("kept", 1)
        raise KeyError("boom")

    async def stored(self) -> dict[str, int]:
        return self.ctx.storage.list(int)

    async def outside(self) -> str:
        return await self.ctx.outside(self._foreign)

    async def _foreign(self) -> str:
        await trio.sleep(5)
        return "abroad"


@attrs.frozen
class Env:
    workers: Namespace[Worker]


app = App(env=Env, routes={})


async def test_ten_concurrent_read_modify_writes_give_one_to_ten(autojump_clock):
    async with start_server(app) as server:
        worker = server.env.workers.get_by_name("a")
        calls = [worker.add() for _ in range(10)]
        assert [await call for call in calls] == list(range(1, 11))


async def test_a_sleeping_handler_lets_others_in_and_a_bare_trio_sleep_does_not(autojump_clock):
    async with start_server(app) as server:
        worker = server.env.workers.get_by_name("a")
        calls = [worker.napping("x", 1), worker.holding("y", 5), worker.note("z")]
        for call in calls:
            await call
        assert await worker.read() == ["x sleeps", "y holds", "y ends", "z", "x woke"]


async def test_a_critical_section_keeps_everything_out_and_its_waiter_goes_on_first(autojump_clock):
    async with start_server(app) as server:
        worker = server.env.workers.get_by_name("a")
        section = worker.section(5)
        await trio.testing.wait_all_tasks_blocked()
        note = worker.note("queued")
        assert await section == 9
        await note
        assert await worker.read() == ["section begins", "section ends", "after section 9", "queued"]


async def test_a_failing_critical_section_resets_the_actor_and_cannot_be_caught(autojump_clock):
    async with start_server(app) as server:
        worker = server.env.workers.get_by_name("a")
        with pytest.raises(ValueError, match="no luck") as caught:
            await worker.failing_section()
        assert caught.value.durable_object_reset
        assert not getattr(caught.value, "remote", False)
        with pytest.raises(ValueError, match="no luck"):  # the used stub is broken for ever
            await worker.read()
        assert await server.env.workers.get_by_name("a").read() == []


@pytest.mark.parametrize("method", ["endless_section", "self_call_in_section"])
async def test_a_critical_section_that_takes_over_thirty_seconds_resets_the_actor(autojump_clock, method):
    async with start_server(app) as server:
        start = trio.current_time()
        with pytest.raises(ActorError, match="waited for too long") as caught:
            await getattr(server.env.workers.get_by_name("a"), method)()
        assert caught.value.overloaded
        assert caught.value.durable_object_reset
        assert trio.current_time() - start == pytest.approx(30)


async def test_a_call_that_comes_back_to_its_caller_is_served(autojump_clock):
    async with start_server(app) as server:
        assert await server.env.workers.get_by_name("a").bounce("b") == "bounced"
        assert await server.env.workers.get_by_name("a").read() == ["called back"]


async def test_calls_are_sent_when_made_and_awaited_later(autojump_clock):
    async with start_server(app) as server:
        assert await server.env.workers.get_by_name("a").fan_out(["b", "c", "b"]) == [1, 1, 2]


async def test_a_call_from_a_bare_nursery_is_refused_with_the_way_out(autojump_clock):
    async with start_server(app) as server:
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="ctx.start_soon")):
            await server.env.workers.get_by_name("a").nursery_inside("b")


async def test_concurrent_work_of_one_actor_is_joined_in_order(autojump_clock):
    async with start_server(app) as server:
        worker = server.env.workers.get_by_name("a")
        assert await worker.concurrently() == ["a", "b", "c"]
        assert await worker.read() == ["a", "b", "c"]


async def test_a_latch_set_by_another_event_releases_the_waiter(autojump_clock):
    async with start_server(app) as server:
        worker = server.env.workers.get_by_name("a")
        waiting = worker.wait_for_latch()
        await worker.release()
        assert await waiting == "released"


async def test_timeouts_fire_in_order_of_their_deadlines_and_can_be_cancelled(autojump_clock):
    async with start_server(app) as server:
        worker = server.env.workers.get_by_name("a")
        await worker.timeouts()
        await trio.sleep(3)
        assert await worker.read() == ["first", "second"]


async def test_a_cancelled_wait_takes_the_turn_again_before_it_goes_on(autojump_clock):
    async with start_server(app) as server:
        worker = server.env.workers.get_by_name("a")
        cancelled = worker.cancelled_sleep()
        await trio.testing.wait_all_tasks_blocked()
        holding = worker.holding("x", 5)
        assert await cancelled == "cancelled"
        await holding
        assert await worker.read() == ["x holds", "x ends", "went on"]


async def test_abort_loses_the_open_batch_and_fails_the_call(autojump_clock):
    async with start_server(app) as server:
        worker = server.env.workers.get_by_name("a")
        with pytest.raises(ActorError, match="enough") as caught:
            await worker.abort()
        assert caught.value.durable_object_reset
        assert await server.env.workers.get_by_name("a").stored() == {}


async def test_an_exception_keeps_earlier_writes_and_reaches_the_caller_as_itself(autojump_clock):
    async with start_server(app) as server:
        worker = server.env.workers.get_by_name("a")
        with pytest.raises(KeyError, match="boom") as caught:
            await worker.boom()
        assert caught.value.remote
        assert caught.value.__notes__ == ["in workers('a').boom"]
        assert await worker.stored() == {"kept": 1}


async def test_foreign_code_runs_without_the_turn(autojump_clock):
    async with start_server(app) as server:
        worker = server.env.workers.get_by_name("a")
        abroad = worker.outside()
        await worker.note("meanwhile")
        assert await abroad == "abroad"
        assert await worker.read() == ["meanwhile"]


async def test_an_unknown_method_is_refused_by_name(autojump_clock):
    async with start_server(app) as server:
        with pytest.raises(ActorError, match='does not implement the method "dance"'):
            await server.env.workers.get_by_name("a").dance()


@pytest.mark.parametrize("name", ["alarm", "web_socket_message", "web_socket_close", "web_socket_error"])
async def test_handlers_that_only_the_runtime_calls_are_reserved(autojump_clock, name):
    async with start_server(app) as server:
        with pytest.raises(ActorError, match=f"'{name}' is a reserved method and cannot be called over RPC") as caught:
            await getattr(server.env.workers.get_by_name("a"), name)()
        assert caught.value.remote


async def test_an_idle_actor_is_evicted_after_ten_seconds_and_costs_no_task(autojump_clock):
    async with start_server(app) as server:
        worker = server.env.workers.get_by_name("a")
        await worker.note("remembered")
        tasks = trio.lowlevel.current_statistics().tasks_living
        await trio.sleep(9)
        assert await worker.read() == ["remembered"]
        await trio.sleep(10.5)
        assert server.live_actors == 0
        assert await worker.read() == []
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living <= tasks


async def test_a_cycle_through_a_section_is_logged_at_once_with_its_chain(autojump_clock):
    with structlog.testing.capture_logs() as logs:
        async with start_server(app) as server:
            with trio.move_on_after(1):
                await server.env.workers.get_by_name("w").self_call_in_section()
    (cycle,) = [entry for entry in logs if entry["event"] == "a critical section waits for a call of its own actor"]
    assert cycle["chain"] == ["workers('w').block_concurrency_while", "workers('w').note"]


async def test_a_handler_that_keeps_the_turn_is_named_with_what_it_awaits(autojump_clock):
    with structlog.testing.capture_logs() as logs:
        async with start_server(app) as server:
            await server.env.workers.get_by_name("w").holding("h", 60)
            await server.env.workers.get_by_name("w").napping("n", 60)
            await server.env.workers.get_by_name("w").section(20)
    (kept,) = [entry for entry in logs if "keeps its actor's turn" in entry["event"]]
    assert kept["handler"] == "holding"
    assert "in Worker.holding" in kept["awaits"]
