"""Runs one scenario on the real runtime, in real time, and gives its trace: the counterpart of `runner.py`."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import trio

from tests.conformance.client import Client
from tests.conformance.live.workerd import Workerd, workerd

SETTLE_MS = 60
POLL_S = 0.02
LONGEST_S = 200
_NUMBERS = itertools.count(1)


class ServerEnded(Exception):
    """The server ended in the middle of a run: some programs are too much for it."""


async def record_alone(program: Path, scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Run a scenario on a server of its own: it may kill it."""
    async with workerd(program, scenario) as server:
        return await _record(server, scenario, "")


async def record_run(server: Workerd, scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Run a scenario as one of many on a server that goes on running.

    Raises:
        ServerEnded: it did not go on.
    """
    run = str(next(_NUMBERS))
    try:
        await server.post(f"/begin?run={run}", scenario)
        return await _record(server, scenario, run)
    except (httpx.TransportError, OSError) as error:
        raise ServerEnded from error
    except BaseExceptionGroup as errors:
        if errors.split((httpx.TransportError, OSError))[1] is not None:
            raise
        raise ServerEnded from errors


async def _record(server: Workerd, scenario: Mapping[str, Any], run: str) -> dict[str, Any]:
    with trio.fail_after(LONGEST_S):
        async with trio.open_nursery() as nursery:
            steps = LiveSteps(server, run, nursery)
            for name, *operands in scenario["steps"]:
                await steps.do(name, operands)
            await trio.sleep(scenario.get("settleMs", SETTLE_MS) / 1000)
            await steps.collect()
            trace: dict[str, Any] = {"name": scenario["name"], "events": steps.events}
            if steps.clients:
                trace["clients"] = {name: list(client.received) for name, client in steps.clients.items()}
            for client in steps.clients.values():
                await client.drop()
            nursery.cancel_scope.cancel()
    if run:
        await server.post(f"/end?run={run}")
    return trace


class LiveSteps:
    """What the outside world does in a scenario, to a real server.

    Attributes:
        events: the trace so far, but for what the server still has.
    """

    def __init__(self, server: Workerd, run: str, nursery: trio.Nursery) -> None:
        self.events: list[Any] = []
        self.clients: dict[str, Client] = {}
        self._server = server
        self._run = run
        self._nursery = nursery
        self._background: dict[str, trio.Event] = {}
        self._seen: dict[str, int] = {}

    async def do(self, name: str, operands: list[Any]) -> None:
        """Do one step."""
        step = getattr(self, f"step_{name}", None)
        if step is None:
            raise ValueError(f"unknown step {name}")
        await step(*operands)

    async def collect(self) -> None:
        """Take over the events the server has."""
        self.events += json.loads(await self._server.post(f"/trace?take=1&run={self._run}"))

    # Calls.

    async def step_drive(self, program: Any) -> None:
        try:
            await self._server.post(f"/drive?run={self._run}", program)
        except httpx.TransportError:
            return  # the server was stopped meanwhile

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
        await self.collect()
        self.events.append(["runner", text])

    async def step_waitLog(self, label: str, times: int = 1, ms: float = 5000) -> None:
        end = trio.current_time() + ms / 1000
        while True:
            await self.collect()
            if sum(event[1] == label for event in self.events) >= times:
                return
            if trio.current_time() > end:
                self.events.append(["runner", f"timed out waiting for {label}"])
                return
            await trio.sleep(POLL_S)

    # The process.

    async def step_kill(self) -> None:
        await self._stop(signal.SIGKILL, "kill")

    async def step_restart(self) -> None:
        await self._stop(signal.SIGTERM, "restart")

    async def _stop(self, how: signal.Signals, name: str) -> None:
        await self.collect()
        await self._server.stop(how)
        self.events.append(["runner", name])
        await self._server.start()

    # Sockets.

    async def step_wsOpen(self, name: str, actor: str, options: Mapping[str, Any] | None = None) -> None:
        client = self.clients[name] = Client(await self._server.connect())
        arg = quote(json.dumps({"id": name, **(options or {})}))
        await client.open(f"/ws?run={self._run}&actor={quote(actor)}&arg={arg}", f"127.0.0.1:{self._server.port}")
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
            self.events.append(["runner", f"no message for {name}"])

    async def step_wsClose(self, name: str, *code_and_reason: Any) -> None:
        await self.clients[name].close(*code_and_reason)

    async def step_wsDrop(self, name: str) -> None:
        await self.clients[name].drop()

    async def step_wsPing(self, name: str, text: str) -> None:
        await self.clients[name].ping(text)
