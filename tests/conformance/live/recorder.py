"""Runs one scenario on the real runtime, in real time, and gives its trace: the counterpart of `runner.py`."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.conformance.client import Client
from tests.conformance.live.workerd import Workerd, workerd
from tests.conformance.steps import Steps

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
            steps = _LiveSteps(server, run, nursery)
            await steps.run(scenario)
            trace = await steps.trace(scenario["name"])
            nursery.cancel_scope.cancel()
    if run:
        await server.post(f"/end?run={run}")
    return trace


class _LiveSteps(Steps):
    def __init__(self, server: Workerd, run: str, nursery: trio.Nursery) -> None:
        super().__init__(nursery)
        self._server, self._run = server, run
        self._events: list[Any] = []

    async def events(self) -> list[Any]:
        self._events += json.loads(await self._server.post(f"/trace?take=1&run={self._run}"))
        return self._events

    async def note(self, text: str) -> None:
        (await self.events()).append(["runner", text])

    async def connect(self, actor: str, arg: str) -> tuple[Client, str, str]:
        client = Client(await self._server.connect())
        return client, f"/ws?run={self._run}&actor={actor}&arg={arg}", f"127.0.0.1:{self._server.port}"

    async def step_drive(self, program: Any) -> None:
        try:
            await self._server.post(f"/drive?run={self._run}", program)
        except httpx.TransportError:
            return  # the server was stopped meanwhile

    async def step_kill(self) -> None:
        await self._stop(signal.SIGKILL, "kill")

    async def step_restart(self) -> None:
        await self._stop(signal.SIGTERM, "restart")

    async def _stop(self, how: signal.Signals, name: str) -> None:
        events = await self.events()
        await self._server.stop(how)
        events.append(["runner", name])
        await self._server.start()
