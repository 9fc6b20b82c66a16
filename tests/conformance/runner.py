"""Runs one scenario in virtual time on a server in memory and gives its trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import trio
import trio.testing

from runtime.limits import StorageLimits
from runtime.testing.server import HOST, PORT, start_server
from runtime.transport.config import TransportConfig
from tests.conformance.client import Client
from tests.conformance.habits import Noted, habits
from tests.conformance.latency import latency
from tests.conformance.scripted import APP
from tests.conformance.steps import Steps
from tests.conformance.unconfirmed_alarms import unconfirmed_alarms
from tests.conformance.world import World

_NO_BOUND_S = 3600  # of a close frame without an answer: there is none there


def record(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Run a scenario and give its trace.

    Its `habits`, `unconfirmedAlarms` and what `latency` knows say what is as on the real runtime meanwhile.
    """
    there = habits() if scenario.get("habits") else nullcontext(Noted())
    alarms = unconfirmed_alarms() if scenario.get("unconfirmedAlarms") else nullcontext()
    with latency(scenario), there as noted, alarms:
        trace: dict[str, Any] = trio.run(_record, scenario, clock=trio.testing.MockClock(autojump_threshold=0))
    return {**trace, "lost": True} if noted.lost else trace


async def _record(scenario: Mapping[str, Any]) -> dict[str, Any]:
    world = World(scenario)
    config = TransportConfig(close_s=_NO_BOUND_S)
    async with start_server(APP, settings=world, config=config, storage_limits=StorageLimits.workerd()) as server:
        world.server = server
        async with trio.open_nursery() as nursery:
            steps = _Steps(world, nursery)
            await steps.run(scenario)
            trace = await steps.trace(scenario["name"])
            nursery.cancel_scope.cancel()
    return trace


class _Steps(Steps):
    def __init__(self, world: World, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        assert world.server is not None
        self._world, self._server = world, world.server
        self._drives: set[trio.CancelScope] = set()

    async def events(self) -> list[Any]:
        return list(self._world.events)

    async def note(self, text: str) -> None:
        self._world.log("runner", text)

    async def connect(self, actor: str, arg: str) -> tuple[Client, str, str]:
        client = Client(await self._server.network.connect(HOST, PORT))
        return client, f"/ws?actor={actor}&arg={arg}", f"{HOST}:{PORT}"

    async def step_drive(self, program: Any) -> None:
        with trio.CancelScope() as scope:
            self._drives.add(scope)
            try:
                await self._server.env.driver.get_by_name("driver").drive(program)
            finally:
                self._drives.discard(scope)

    async def step_kill(self) -> None:
        await self._stop(self._server.crash, "kill")

    async def step_restart(self) -> None:
        await self._stop(self._server.stop, "restart")

    async def _stop(self, stop: Callable[[], Any], name: str) -> None:
        for scope in list(self._drives):
            scope.cancel()
        await stop()
        self._world.log("runner", name)
        await self._server.start()
