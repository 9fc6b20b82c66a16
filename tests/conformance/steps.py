"""What the outside world does in a scenario, the same to the runtime here and to the real one."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import trio

from tests.conformance.client import Client

SETTLE_MS = 60
POLL_S = 0.02


class Steps(ABC):
    """The steps of a scenario, by their names in it.

    Attributes:
        clients: the WebSocket clients it has opened.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.clients: dict[str, Client] = {}
        self._nursery = nursery
        self._background: dict[str, trio.Event] = {}
        self._seen: dict[str, int] = {}

    async def run(self, scenario: Mapping[str, Any]) -> None:
        """Do all of them, and wait until what they caused has happened."""
        for name, *operands in scenario["steps"]:
            step: Callable[..., Any] | None = getattr(self, f"step_{name}", None)
            if step is None:
                raise ValueError(f"unknown step {name}")
            await step(*operands)
        await trio.sleep(scenario.get("settleMs", SETTLE_MS) / 1000)

    async def trace(self, name: str) -> dict[str, Any]:
        """What has happened; drops the clients."""
        trace: dict[str, Any] = {"name": name, "events": await self.events()}
        if self.clients:
            trace["clients"] = {one: list(client.received) for one, client in self.clients.items()}
        for client in self.clients.values():
            await client.drop()
        return trace

    # What the two differ in.

    @abstractmethod
    async def events(self) -> list[Any]:
        """The events so far."""

    @abstractmethod
    async def note(self, text: str) -> None:
        """Add an event of the runner itself."""

    @abstractmethod
    async def connect(self, actor: str, arg: str) -> tuple[Client, str, str]:
        """A connection for a WebSocket to an actor, with the target and the host that it asks for."""

    @abstractmethod
    async def step_drive(self, program: Any) -> None:
        """Let the driver run a program."""

    @abstractmethod
    async def step_kill(self) -> None:
        """End the server without a word, and start it again."""

    @abstractmethod
    async def step_restart(self) -> None:
        """End the server in order, and start it again."""

    # Calls.

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
        await self.note(text)

    async def step_waitLog(self, label: str, times: int = 1, ms: float = 5000) -> None:
        end = trio.current_time() + ms / 1000
        while sum(event[1] == label for event in await self.events()) < times:
            if trio.current_time() > end:
                await self.note(f"timed out waiting for {label}")
                return
            await trio.sleep(POLL_S)

    # Sockets.

    async def step_wsOpen(self, name: str, actor: str, options: Mapping[str, Any] | None = None) -> None:
        arg = quote(json.dumps({"id": name, **(options or {})}))
        client, target, host = await self.connect(quote(actor), arg)
        self.clients[name] = client
        await client.open(target, host)
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
            await self.note(f"no message for {name}")

    async def step_wsClose(self, name: str, *code_and_reason: Any) -> None:
        await self.clients[name].close(*code_and_reason)

    async def step_wsDrop(self, name: str) -> None:
        await self.clients[name].drop()

    async def step_wsPing(self, name: str, text: str) -> None:
        await self.clients[name].ping(text)
