"""Runs one scenario in virtual time on a server in memory and gives its trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import trio
import trio.testing

from runtime.limits import StorageLimits
from runtime.testing.server import HOST, PORT, start_server
from tests.conformance.client import Client
from tests.conformance.scripted import APP
from tests.conformance.world import World

SETTLE_MS = 60
POLL_S = 0.02


def record(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Run a scenario and give its trace."""
    trace: dict[str, Any] = trio.run(_record, scenario, clock=trio.testing.MockClock(autojump_threshold=0))
    return trace


async def _record(scenario: Mapping[str, Any]) -> dict[str, Any]:
    world = World(scenario)
    async with start_server(APP, settings=world, storage_limits=StorageLimits.workerd()) as server:
        world.server = server
        async with trio.open_nursery() as nursery:
            steps = Steps(world, nursery)
            for name, *operands in scenario["steps"]:
                await steps.do(name, operands)
            await trio.sleep(scenario.get("settleMs", SETTLE_MS) / 1000)
            trace: dict[str, Any] = {"name": scenario["name"], "events": list(world.events)}
            if steps.clients:
                trace["clients"] = {name: list(client.received) for name, client in steps.clients.items()}
            for client in steps.clients.values():
                await client.drop()
            nursery.cancel_scope.cancel()
    return trace


class Steps:
    """What the outside world does in a scenario."""

    def __init__(self, world: World, nursery: trio.Nursery) -> None:
        self.clients: dict[str, Client] = {}
        self._world = world
        self._nursery = nursery
        self._background: dict[str, trio.Event] = {}
        self._seen: dict[str, int] = {}
        self._drives: set[trio.CancelScope] = set()
        assert world.server is not None
        self._server = world.server

    async def do(self, name: str, operands: list[Any]) -> None:
        """Do one step."""
        step: Callable[..., Any] | None = getattr(self, f"step_{name}", None)
        if step is None:
            raise ValueError(f"unknown step {name}")
        await step(*operands)

    # Calls.

    async def step_drive(self, program: Any) -> None:
        with trio.CancelScope() as scope:
            self._drives.add(scope)
            try:
                await self._server.env.driver.get_by_name("driver").drive(program)
            finally:
                self._drives.discard(scope)

    async def step_driveBg(self, name: str, program: Any, pause: float = 0) -> None:
        done = self._background[name] = trio.Event()

        async def drive() -> None:
            await self.step_drive(program)
            done.set()

        self._nursery.start_soon(drive)
        await trio.sleep(pause / 1000)

    async def step_joinBg(self, name: str) -> None:
        await self._background[name].wait()

    async def step_evict(self, actor: str, *options: Any) -> None:
        await self.step_drive([["show", f"evict {actor}", ["evict", actor, *options]]])

    # Time.

    async def step_sleep(self, ms: float) -> None:
        await trio.sleep(ms / 1000)

    async def step_mark(self, text: str) -> None:
        self._world.log("runner", text)

    async def step_waitLog(self, label: str, times: int = 1, ms: float = 5000) -> None:
        end = trio.current_time() + ms / 1000
        while self._world.count(label) < times:
            if trio.current_time() > end:
                self._world.log("runner", f"timed out waiting for {label}")
                return
            await trio.sleep(POLL_S)

    # The process.

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

    # Sockets.

    async def step_wsOpen(self, name: str, actor: str, options: Mapping[str, Any] | None = None) -> None:
        client = self.clients[name] = Client(await self._server.network.connect(HOST, PORT))
        arg = quote(json.dumps({"id": name, **(options or {})}))
        await client.open(f"/ws?actor={quote(actor)}&arg={arg}", f"{HOST}:{PORT}")
        self._nursery.start_soon(client.run)

    async def step_wsSend(self, name: str, message: Any) -> None:
        if isinstance(message, str):
            await self.clients[name].send(message)
        elif "repeat" in message:
            text, times = message["repeat"]
            await self.clients[name].send(text * times)
        else:
            await self.clients[name].send(bytes.fromhex(message["hex"]))

    async def step_wsRecv(self, name: str, count: int = 1, ms: float = 5000) -> None:
        self._seen[name] = self._seen.get(name, 0) + count
        if not await self.clients[name].until(self._seen[name], ms / 1000):
            self._world.log("runner", f"no message for {name}")

    async def step_wsClose(self, name: str, *code_and_reason: Any) -> None:
        await self.clients[name].close(*code_and_reason)

    async def step_wsDrop(self, name: str) -> None:
        await self.clients[name].drop()

    async def step_wsPing(self, name: str, text: str) -> None:
        await self.clients[name].ping(text)
