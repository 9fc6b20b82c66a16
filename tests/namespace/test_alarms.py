"""Alarms: never early, at least once, retried, cleared only with their effect."""

from __future__ import annotations

from itertools import pairwise

import attrs
import pytest
import trio

from runtime import Actor, AlarmInfo, App, Context, Namespace, StorageFailed
from runtime.storage.memory import MemoryStore
from runtime.testing import start_server


class Clock(Actor["Env"]):
    """Rings."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.latch = ctx.event()

    async def set_in(self, seconds: float) -> None:
        self.ctx.storage.set_alarm(self.ctx.now() + seconds)

    async def set_in_and_be_busy(self, *seconds: float) -> None:
        for one in seconds:
            await self.set_in(one)
            await self.ctx.block_concurrency_while(lambda: self.ctx.sleep(10))

    async def cancel(self) -> None:
        self.ctx.storage.delete_alarm()

    async def plan(self, **plan: object) -> None:
        self.ctx.storage.put("plan", plan)

    async def runs(self) -> list[list[float]]:
        return list(self.ctx.storage.list(list[float], prefix="run/").values())

    async def pending(self) -> float | None:
        return self.ctx.storage.get_alarm()

    async def alarm(self, info: AlarmInfo) -> None:
        plan = self.ctx.storage.get("plan", dict[str, object], default={})
        number = len(self.ctx.storage.list(prefix="run/"))
        self.ctx.storage.put(f"run/{number:03}", [self.ctx.now(), float(info.retry_count), float(info.scheduled_time)])
        self.ctx.storage.put("seen while running", self.ctx.storage.get_alarm())
        if plan.get("again"):
            self.ctx.storage.set_alarm(self.ctx.now() + float(str(plan["again"])))
        if plan.get("delete") == "alarm":
            self.ctx.storage.delete_alarm()
        if plan.get("delete") == "all":
            self.ctx.storage.delete_all()
        if number < int(str(plan.get("failures", 0))):
            raise RuntimeError("not yet")
        if plan.get("abort") and not info.is_retry:
            self.ctx.abort("alarm aborted")
        if plan.get("sleep"):
            await self.ctx.sleep(float(str(plan["sleep"])))

    async def seen(self) -> float | None:
        return self.ctx.storage.get("seen while running")


class Orphan(Actor["Env"]):
    """Its alarm leaves a row without the row that it refers to."""

    storage = "sql"

    async def set_in(self, seconds: float) -> None:
        self.ctx.storage.sql.exec("CREATE TABLE child (parent REFERENCES child (rowid) DEFERRABLE INITIALLY DEFERRED)")
        self.ctx.storage.set_alarm(self.ctx.now() + seconds)

    async def pending(self) -> float | None:
        return self.ctx.storage.get_alarm()

    async def alarm(self, info: AlarmInfo) -> None:
        self.ctx.storage.sql.exec("INSERT INTO child VALUES (7)")


@attrs.frozen
class Env:
    clocks: Namespace[Clock]
    orphans: Namespace[Orphan]


app = App(env=Env, routes={})


async def test_an_alarm_runs_once_and_not_early_and_is_null_while_it_runs(autojump_clock):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        await clock.set_in(5)
        due = await clock.pending()
        await trio.sleep(4.9)
        assert await clock.runs() == []
        await trio.sleep(20)
        ((ran, retries, scheduled),) = await clock.runs()
        assert due <= ran <= due + 0.01
        assert (retries, scheduled) == (0, due)
        assert await clock.pending() is None
        assert await clock.seen() is None


async def test_what_queued_behind_a_late_alarm_finds_it_out_of_sight_and_runs_before_its_handler(autojump_clock):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        busy = clock.set_in_and_be_busy(1)
        await trio.sleep(5)
        pending, runs = clock.pending(), clock.runs()
        assert (await pending, await runs) == (None, [])
        await busy
        assert len(await clock.runs()) == 1


async def test_an_alarm_that_was_moved_while_it_queued_runs_at_once_when_its_new_time_has_come_too(autojump_clock):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        busy = clock.set_in_and_be_busy(1, 2)
        await trio.sleep(15)
        assert await clock.pending() is None
        await busy
        await trio.sleep(60)
        assert len(await clock.runs()) == 1


async def test_an_alarm_that_was_moved_while_it_queued_waits_for_its_new_time(autojump_clock):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        busy = clock.set_in_and_be_busy(1, 50)
        await busy
        assert await clock.runs() == []
        await trio.sleep(60)
        assert len(await clock.runs()) == 1


async def test_setting_an_alarm_replaces_the_one_before(autojump_clock):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        await clock.set_in(5)
        await clock.set_in(50)
        await trio.sleep(40)
        assert await clock.runs() == []
        await clock.set_in(1)
        await trio.sleep(60)
        assert len(await clock.runs()) == 1


async def test_an_alarm_that_sets_itself_again_is_periodic(autojump_clock):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        await clock.plan(again=10)
        await clock.set_in(10)
        await trio.sleep(95)
        assert len(await clock.runs()) == 9


async def test_a_failing_alarm_runs_once_and_six_times_more_with_doubling_waits_then_is_dropped(autojump_clock):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        await clock.plan(failures=100)
        await clock.set_in(1)
        await trio.sleep(600)
        runs = await clock.runs()
        assert [retries for _, retries, _ in runs] == [0, 1, 2, 3, 4, 5, 6]
        waits = [later[0] - earlier[0] for earlier, later in pairwise(runs)]
        for wait, least in zip(waits, [2, 4, 8, 16, 32, 64], strict=True):
            assert least <= wait <= least * 1.25 + 0.01
        assert await clock.pending() is None


async def test_a_run_whose_writes_the_disk_does_not_take_is_none_of_the_six(autojump_clock):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        await clock.set_in(1)
        for _ in range(12):
            server.store.fail_next(StorageFailed("the disk is full"))
        await trio.sleep(6_000)
        ((rang, retries, due),) = await server.env.clocks.get_by_name("a").runs()
        assert retries == 12  # the writes of all before were lost
        least = sum(min(2 ** (run + 1), 1_024) for run in range(12))
        assert least <= rang - due <= 1.25 * least
        assert await server.env.clocks.get_by_name("a").pending() is None


async def test_what_the_disk_did_not_take_leaves_a_failing_handler_its_six_retries(autojump_clock):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        await clock.plan(failures=100)
        await clock.set_in(1)
        for _ in range(3):
            server.store.fail_next(StorageFailed("the disk is full"))
        await trio.sleep(6_000)
        assert len(await server.env.clocks.get_by_name("a").runs()) == 4
        assert await server.env.clocks.get_by_name("a").pending() is None


async def test_writes_that_violate_a_constraint_are_the_handlers_fault(autojump_clock):
    async with start_server(app) as server:
        await server.env.orphans.get_by_name("a").set_in(1)
        await trio.sleep(2 + 4 + 8 + 16 + 32 + 64)
        assert await server.env.orphans.get_by_name("a").pending() is not None
        await trio.sleep(1 + 0.25 * (2 + 4 + 8 + 16 + 32 + 64))
        assert await server.env.orphans.get_by_name("a").pending() is None


@pytest.mark.parametrize("what", ["alarm", "all"])
async def test_an_alarm_that_is_deleted_while_its_handler_fails_is_not_tried_again(autojump_clock, what):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        await clock.plan(delete=what, failures=100)
        await clock.set_in(1)
        await trio.sleep(300)
        assert await clock.pending() is None
        assert len(await clock.runs()) == (1 if what == "alarm" else 0)


async def test_an_alarm_set_by_a_failing_run_replaces_its_retry(autojump_clock):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        await clock.plan(failures=1, again=30)
        await clock.set_in(1)
        await trio.sleep(40)
        runs = await clock.runs()
        assert [retries for _, retries, _ in runs] == [0, 0]
        assert runs[1][0] - runs[0][0] == pytest.approx(30, abs=0.01)


async def test_deleting_the_alarm_between_retries_stops_them(autojump_clock):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        await clock.plan(failures=100)
        await clock.set_in(1)
        await trio.sleep(4)
        await clock.cancel()
        await trio.sleep(300)
        assert len(await clock.runs()) == 2


async def test_an_abort_in_the_handler_is_retried_on_a_new_instance(autojump_clock):
    async with start_server(app) as server:
        clock = server.env.clocks.get_by_name("a")
        await clock.plan(abort=True)
        await clock.set_in(1)
        await trio.sleep(60)
        runs = await server.env.clocks.get_by_name("a").runs()
        assert len(runs) == 1  # the aborted run's own writes were lost with it
        assert runs[0][1] == 1


async def test_alarms_survive_a_crash_and_overdue_ones_run_at_once_on_start(autojump_clock):
    async with start_server(app, store=MemoryStore()) as server:
        await server.env.clocks.get_by_name("a").set_in(5)
        await server.crash()
        await trio.sleep(100)
        await server.start()
        await trio.sleep(0.1)
        assert len(await server.env.clocks.get_by_name("a").runs()) == 1


async def test_an_alarm_whose_handler_was_cut_off_by_a_crash_runs_again(autojump_clock):
    async with start_server(app, store=MemoryStore()) as server:
        clock = server.env.clocks.get_by_name("a")
        await clock.plan(sleep=10)
        await clock.set_in(1)
        await trio.sleep(5)
        await server.crash()
        await server.start()
        await trio.sleep(30)
        assert len(await server.env.clocks.get_by_name("a").runs()) == 2
        assert await server.env.clocks.get_by_name("a").pending() is None


async def test_an_alarm_wakes_an_evicted_actor(autojump_clock):
    async with start_server(app) as server:
        await server.env.clocks.get_by_name("a").set_in(60)
        await trio.sleep(30)
        assert server.live_actors == 0
        await trio.sleep(31)
        assert server.live_actors == 1


class Stubborn(Actor["StubbornEnv"]):
    """Never gets done with its alarm."""

    async def start(self, how: str) -> None:
        self.ctx.storage.put("how", how)
        self.ctx.storage.set_alarm(self.ctx.now() + 1)

    async def alarm(self, info: AlarmInfo) -> None:
        runs = self.ctx.storage.get("runs", list[float], default=[])
        self.ctx.storage.put("runs", [*runs, self.ctx.now()])
        await self.ctx.storage.sync()
        if self.ctx.storage.get("how") == "hang":
            await self.ctx.sleep(3600)
        self.ctx.abort("enough", retry_alarm=False)

    async def look(self) -> tuple[int, float | None]:
        return len(self.ctx.storage.get("runs", list[float], default=[])), self.ctx.storage.get_alarm()


@attrs.frozen
class StubbornEnv:
    stubborn: Namespace[Stubborn]


async def test_an_abort_in_the_handler_may_drop_the_alarm(autojump_clock):
    async with start_server(App(env=StubbornEnv, routes={})) as server:
        await server.env.stubborn.get_by_name("s").start("abort")
        await trio.sleep(300)
        assert await server.env.stubborn.get_by_name("s").look() == (1, None)


async def test_a_handler_over_fifteen_minutes_is_cut_off_and_tried_again(autojump_clock):
    async with start_server(App(env=StubbornEnv, routes={})) as server:
        await server.env.stubborn.get_by_name("s").start("hang")
        await trio.sleep(15 * 60 + 60)
        runs, alarm = await server.env.stubborn.get_by_name("s").look()
        assert runs == 2
        assert alarm is None  # its handler runs


async def test_a_server_that_goes_down_begins_no_alarm_and_the_next_start_runs_them(autojump_clock):
    async with start_server(app) as server:
        clocks = server.env.clocks
        await clocks.get_by_name("busy").plan(sleep=10, again=2)
        await clocks.get_by_name("busy").set_in(1)
        await clocks.get_by_name("waiting").set_in(3)
        await trio.sleep(2)
        begun = trio.current_time()
        await server.stop()  # waits for the handler that runs; the other alarm's time comes meanwhile
        stopped = trio.current_time()
        assert stopped - begun >= 8
        await trio.sleep(60)
        again = trio.current_time()
        await server.start()
        await trio.sleep(1)
        (waiting,) = await clocks_of(server, "waiting")
        first, second = await clocks_of(server, "busy")
        assert waiting == pytest.approx(again, abs=0.1)
        assert (first, second) == (pytest.approx(begun - 1, abs=0.1), pytest.approx(again, abs=0.1))


async def clocks_of(server, name):
    """When its alarm ran, on the trio clock."""
    offset = server.platform.now() - trio.current_time()
    return [at - offset for at, *_ in await server.env.clocks.get_by_name(name).runs()]
