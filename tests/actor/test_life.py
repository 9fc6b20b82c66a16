"""What belongs to a turn, and what goes with an instance that is destroyed."""

from __future__ import annotations

from contextlib import suppress

import attrs
import pytest
import trio

from runtime import Actor, ActorError, App, Context, Namespace
from runtime.testing import start_server


class Slow(Actor["Env"]):
    """Loads in its constructor."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.log = ["built"]
        ctx.storage.put("built", True)
        ctx.block_concurrency_while(self._load)

    async def _load(self) -> None:
        await self.ctx.sleep(1)
        self.log.append("loaded")

    async def note(self, text: str) -> list[str]:
        self.log.append(text)
        return self.log


class Worker(Actor["Env"]):
    """Calls, writes, and gives up."""

    async def write_and_fail_in_section(self) -> None:
        async def body() -> None:
            self.ctx.storage.put("early", 1)
            await self.ctx.sleep(1)
            self.ctx.storage.put("late", 1)
            raise ValueError("no luck")

        await self.ctx.block_concurrency_while(body)

    async def cleans_up_later(self) -> None:
        try:
            await self.ctx.outside(trio.sleep_forever)
        finally:
            self.ctx.set_timeout(0, self.stored)

    async def stored(self) -> list[str]:
        return list(self.ctx.storage.list())

    async def call_and_abort(self, to: str) -> None:
        self.env.workers.get_by_name(to).remember("called")
        self.ctx.abort("gave up")

    async def notify_and_abort_later(self, to: str) -> None:
        self.env.workers.get_by_name(to).remember("called")
        await self.ctx.sleep(0.01)  # it has begun meanwhile
        self.ctx.abort("gave up")

    async def hold(self) -> None:
        async def body() -> None:
            await self.ctx.sleep(2)

        await self.ctx.block_concurrency_while(body)

    async def ask(self, to: str, how: str) -> None:
        remember = self.env.workers.get_by_name(to).remember
        if how == "one way":
            remember.notify(how)
        elif how == "not awaited":
            remember(how)
        else:
            await remember(how)

    async def have_written(self, to: str) -> None:
        await self.env.workers.get_by_name(to).write_late()

    async def write_late(self) -> None:
        await self.ctx.sleep(1)
        self.ctx.storage.put("late", 1)

    async def give_up(self) -> None:
        self.ctx.abort("gave up")

    async def remember(self, text: str) -> str:
        self.ctx.storage.put(text, 1)
        return text

    async def gather(self, to: str, count: int) -> list[str]:
        seen: list[str] = []

        async def take(call: object) -> None:
            seen.append(await call)

        calls = [self.env.workers.get_by_name(to).remember(str(number)) for number in range(count)]
        tasks = [self.ctx.start_soon(take, call) for call in calls]
        for task in tasks:
            await task
        return seen

    async def await_late(self, to: str) -> str:
        call = self.env.workers.get_by_name(to).remember("late")
        await self.ctx.sleep(1)
        return await call

    async def await_in_section(self, to: str) -> str:
        call = self.env.workers.get_by_name(to).remember("late")

        async def body() -> str:
            return await call

        return await self.ctx.block_concurrency_while(body)

    async def send_many(self, to: str, count: int) -> int:
        stub = self.env.workers.get_by_name(to)
        calls = [stub.remember(str(number % 50)) for number in range(count)]
        return len([await call for call in calls])


@attrs.frozen
class Env:
    slow: Namespace[Slow]
    workers: Namespace[Worker] = attrs.field(metadata={"key": "oracle-sql"})


app = App(env=Env, routes={})


async def test_every_event_waits_for_the_constructors_section_the_first_one_too(autojump_clock):
    async with start_server(app) as server:
        stub = server.env.slow.get_by_name("s")
        first, second = stub.note("first"), stub.note("second")
        assert await first == ["built", "loaded", "first"]
        assert await second == ["built", "loaded", "first", "second"]


async def test_a_failed_section_takes_its_open_batch_along_and_leaves_the_sealed_ones(autojump_clock):
    async with start_server(app) as server:
        with pytest.raises(ValueError, match="no luck"):
            await server.env.workers.get_by_name("w").write_and_fail_in_section()
        assert await server.env.workers.get_by_name("w").stored() == ["early"]


async def test_a_call_made_in_the_turn_of_an_abort_is_not_sent(autojump_clock):
    async with start_server(app) as server:
        with pytest.raises(ActorError, match="gave up"):
            await server.env.workers.get_by_name("w").call_and_abort("other")
        assert await server.env.workers.get_by_name("other").stored() == []


async def test_a_call_that_has_begun_when_its_caller_aborts_runs(autojump_clock):
    async with start_server(app) as server:
        with pytest.raises(ActorError, match="gave up"):
            await server.env.workers.get_by_name("w").notify_and_abort_later("other")
        await trio.sleep(1)
        assert await server.env.workers.get_by_name("other").stored() == ["called"]


@pytest.mark.parametrize(("how", "runs"), [("awaited", False), ("not awaited", False), ("one way", True)])
async def test_a_call_that_has_not_begun_goes_with_its_callers_instance_the_next_one_runs(autojump_clock, how, runs):
    async with start_server(app) as server:
        workers = server.env.workers
        held = workers.get_by_name("other").hold()
        await trio.sleep(0.5)
        lost = workers.get_by_name("w").ask("other", how)
        lives = workers.get_by_name("v").ask("other", "of one that lives")
        await trio.sleep(0.5)
        with pytest.raises(ActorError, match="gave up"):
            await workers.get_by_name("w").give_up()
        await held
        await lives
        with suppress(ActorError):
            await lost
        assert await workers.get_by_name("other").stored() == sorted(["of one that lives"] + [how] * runs)


async def test_a_call_that_has_begun_goes_on_when_its_callers_instance_is_destroyed(autojump_clock):
    async with start_server(app) as server:
        workers = server.env.workers
        lost = workers.get_by_name("w").have_written("other")
        await trio.sleep(0.5)
        with pytest.raises(ActorError, match="gave up"):
            await workers.get_by_name("w").give_up()
        with pytest.raises(ActorError, match="gave up"):
            await lost
        await trio.sleep(1)
        assert await workers.get_by_name("other").stored() == ["late"]


async def test_replies_are_seen_in_the_order_they_came_however_late_they_are_awaited(autojump_clock):
    async with start_server(app) as server:
        for _ in range(5):
            seen = await server.env.workers.get_by_name("w").gather("other", 20)
            assert seen == [str(number) for number in range(20)]


@pytest.mark.parametrize("method", ["await_late", "await_in_section"])
async def test_a_reply_that_came_early_is_there_when_it_is_awaited(autojump_clock, method):
    async with start_server(app) as server:
        assert await getattr(server.env.workers.get_by_name("w"), method)("other") == "late"


async def test_a_timeout_that_is_set_when_its_instance_ends_is_none(autojump_clock):
    async with start_server(app) as server:
        server.env.workers.get_by_name("one").cleans_up_later()
        await trio.sleep(1)
        await server.stop()  # without an error


async def test_a_turn_may_send_more_than_is_held_for_its_end(autojump_clock):
    async with start_server(app) as server:
        with pytest.raises(ActorError, match="Too many requests queued"):
            await server.env.workers.get_by_name("w").send_many("other", 2_500)  # the mailbox, not the turn
        assert await server.env.workers.get_by_name("w").send_many("third", 900) == 900


async def test_a_namespace_with_a_unique_key_has_the_ids_of_durable_objects(autojump_clock):
    async with start_server(app) as server:
        found = str(server.env.workers.id_from_name("room"))
        assert found == "60445df3f7c676d31659c69123b0f26e78057717bf4b7ba48d37759f1a7131d4"


def test_two_namespaces_with_one_key_are_refused():
    @attrs.frozen
    class Twice:
        workers: Namespace[Worker]
        others: Namespace[Slow] = attrs.field(metadata={"key": "workers"})

    with pytest.raises(ValueError, match="'workers', which another field has too"):
        App(env=Twice, routes={}).classes()
