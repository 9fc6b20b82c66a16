"""What a server measures of itself: turns, mailboxes, commits, and how late its timers are."""

from __future__ import annotations

import attrs
import pytest
import structlog
import trio
import trio.testing

from runtime import Actor, App, Meter, Namespace, Operator
from runtime.node import open_node
from runtime.storage.memory import MemoryStore
from runtime.storage.shared import SharedStore
from runtime.testing import start_server
from runtime.testing.platform import virtual_platform
from runtime.timers import Timers


class Worker(Actor["Env"]):
    """Keeps its turn for as long as it is told to."""

    async def hold(self, seconds: float) -> None:
        await trio.sleep(seconds)  # foreign: the turn stays

    async def wait(self, seconds: float) -> None:
        await self.ctx.sleep(seconds)

    async def note(self, n: int) -> None:
        self.ctx.storage.put("n", n)


class Ledger(Worker):
    """The same with a database of its own."""

    storage = "sql"


@attrs.frozen(kw_only=True)
class Env:
    workers: Namespace[Worker]
    ledgers: Namespace[Ledger]


@attrs.frozen(kw_only=True)
class OnlyWorkers:
    workers: Namespace[Worker]
    operator: Operator


APP = App(env=Env, routes={})


async def test_of_so_many_turns_one_is_measured_with_what_waits_at_its_end(autojump_clock):
    async with start_server(APP) as server:
        stub = server.env.workers.get_by_name("one")
        for _ in range(2 * Meter.TURNS):
            await stub.hold(0.3)
        measured = server.platform.meter
        turns = measured.turns["Worker"]
        assert sum(turns.counts) == 2
        assert turns.total == pytest.approx(0.6)
        assert turns.counts[turns.bounds.index(0.5)] == 2
        assert measured.mailboxes["Worker"].total == 0
        for call in [stub.hold(0.01) for _ in range(2 * Meter.TURNS)]:
            await call
        assert sum(measured.mailboxes["Worker"].counts) == 4
        assert measured.mailboxes["Worker"].total == Meter.TURNS  # half of them, and then none


async def test_a_wait_that_lets_the_turn_go_is_none_of_it(autojump_clock):
    async with start_server(APP) as server:
        stub = server.env.workers.get_by_name("one")
        for _ in range(Meter.TURNS):
            await stub.wait(10)
        assert sum(server.platform.meter.turns["Worker"].counts) == 2
        assert server.platform.meter.turns["Worker"].total < 0.001


async def test_actors_with_a_single_turn_are_not_measured_more_often_than_others(autojump_clock):
    async with start_server(APP) as server:
        for n in range(10 * Meter.TURNS):
            await server.env.workers.get_by_name(f"w{n}").hold(0.01)
        assert sum(server.platform.meter.turns["Worker"].counts) == 10


async def test_commits_of_both_kinds_of_storage_are_measured(autojump_clock, tmp_path):
    platform = virtual_platform()
    async with open_node(
        APP,
        settings=APP.settings(),
        store=SharedStore(tmp_path, platform=platform),
        platform=platform,
        log=structlog.stdlib.get_logger(),
        objects=tmp_path / "objects",
    ) as node:
        for _ in range(3):
            await node.env.workers.get_by_name("w").note(1)
        assert {kind: sum(one.counts) for kind, one in platform.meter.commits.items()} == {"shared": 3}
        await node.env.ledgers.get_by_name("l").note(1)
        assert sum(platform.meter.commits["sql"].counts) > 0


async def test_without_a_meter_nothing_is_measured_and_all_works(autojump_clock):
    platform = attrs.evolve(virtual_platform(), meter=None)
    log = structlog.stdlib.get_logger()
    unmeasured = App(env=OnlyWorkers, routes={})
    async with open_node(
        unmeasured, settings=unmeasured.settings(), store=MemoryStore(), platform=platform, log=log
    ) as node:
        for _ in range(2 * Meter.TURNS):
            await node.env.workers.get_by_name("w").note(1)
        assert node.env.operator.measured is None


async def test_how_late_timers_are_is_measured_when_they_fire(mock_clock, nursery):
    meter, fired = Meter(), []
    timers = Timers(meter)
    nursery.start_soon(timers.run)
    timers.call_after(1.0, lambda: fired.append("due"))
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(1.2)  # something kept the loop
    await trio.testing.wait_all_tasks_blocked()
    timers.call_after(-5.0, lambda: fired.append("in the past"))  # nobody was late for it
    await trio.testing.wait_all_tasks_blocked()
    assert fired == ["due", "in the past"]
    assert sum(meter.timers.counts) == 1
    assert meter.timers.total == pytest.approx(0.2)
