"""Clients for tests of the service: one that speaks raw messages, and one that follows with the client machine."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio_websocket

from actors.protocol.client import ClientMachine
from actors.protocol.events import (
    ClientState,
    Close,
    Event,
    Gap,
    GapDetected,
    Modified,
    Open,
    Published,
    Signals,
    Snap,
    SubState,
)
from actors.protocol.requests import Change
from actors.signals import Draft

if TYPE_CHECKING:
    from runtime.testing import RunningServer

STREAM = "/v1/stream"
CONNECT_S = 5
LOST = (
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    trio.BrokenResourceError,
    OSError,
)


class Peer:
    """A client that sends and receives messages as they are on the wire."""

    def __init__(self, ws: trio_websocket.WebSocketConnection) -> None:
        self.ws = ws
        self._lines: list[str] = []
        self._requests = 0

    async def send(self, **fields: Any) -> None:
        await self.ws.send_message(json.dumps(fields, separators=(",", ":")))

    async def receive(self) -> dict[str, Any]:
        while not self._lines:
            self._lines = str(await self.ws.get_message()).split("\n")
        message: dict[str, Any] = json.loads(self._lines.pop(0))
        return message

    async def ask(self, t: str, **fields: Any) -> dict[str, Any]:
        """Send a request and return what comes next."""
        self._requests += 1
        await self.send(t=t, id=self._requests, **fields)
        return await self.receive()

    async def closed(self) -> tuple[int, str]:
        """Wait for the end and return code and reason."""
        try:
            while True:
                await self.ws.get_message()
        except trio_websocket.ConnectionClosed as ended:
            reason: Any = ended.reason
            return reason.code, reason.reason or ""

    async def nothing_for(self, seconds: float) -> None:
        """Fail when anything arrives."""
        with trio.move_on_after(seconds) as scope:
            raise AssertionError(f"received {await self.receive()}")
        assert scope.cancelled_caught


class Follower:
    """An application on the client machine: what its subscriptions were given, over any number of sockets."""

    def __init__(self, server: RunningServer, seed: int = 0) -> None:
        self.machine = ClientMachine(random=random.Random(seed).random)
        self.offsets: dict[str, list[int]] = defaultdict(list)
        self.states: dict[str, str] = {}
        self.client_states: list[str] = []
        self.snaps: dict[str, list[int]] = defaultdict(list)
        self.frames: dict[str, list[Signals]] = defaultdict(list)
        self.modified: dict[str, list[int]] = defaultdict(list)
        self.gaps: list[Gap] = []
        self.detected: list[GapDetected] = []
        self.published: list[Published] = []
        self.sockets = 0
        self.codes: list[int] = []
        self.reading = trio.Event()
        self.reading.set()
        self.gave = trio.Event()
        self._server = server
        self._changed = trio.Event()
        self._cut: dict[int, trio.CancelScope] = {}
        self._opening: list[int] = []

    def subscribe(self, name: str, filter_: Any, since: Any = "now", on_gap: Any = "fail", **how: Any) -> None:
        self.machine.subscribe(name, filter_, since, on_gap, **how)
        self._wake()

    def unsubscribe(self, name: str) -> None:
        self.machine.unsubscribe(name)
        self._wake()

    def modify(self, name: str, **change: Any) -> None:
        """Change a subscription; `modified` has where that was in force."""
        self.machine.modify(name, Change(**change))
        self._wake()

    def publish(self, draft: Draft) -> None:
        _, events = self.machine.publish(draft)
        self._apply(events)
        self._wake()

    async def until(self, name: str, count: int) -> None:
        """Wait until a subscription was given so many signals."""
        while len(self.offsets[name]) < count:
            await self.gave.wait()

    def drop(self) -> None:
        """Lose every socket, with everything in flight."""
        for scope in self._cut.values():
            scope.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        self._apply(self.machine.start(_now()))
        async with trio.open_nursery() as nursery:
            while self.machine.state.state != "closed":
                for number in self._opening:
                    nursery.start_soon(self._session, number)
                self._opening.clear()
                await self._wait()
            nursery.cancel_scope.cancel()

    async def _session(self, number: int) -> None:
        code: int | None = None
        with trio.CancelScope(deadline=trio.current_time() + CONNECT_S) as self._cut[number]:
            scope = self._cut[number]
            try:
                async with self._server.connect(STREAM, subprotocols=["signals.v1.json"]) as ws:
                    scope.deadline = float("inf")
                    self.sockets += 1
                    self.machine.opened(_now(), socket=number)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._read, ws, number, nursery.cancel_scope)
                        while True:
                            for text in self.machine.texts_to_send(number):
                                await ws.send_message(text)
                            await self._changed.wait()
                    code = None if ws.closed is None else ws.closed.code
            except* LOST:
                pass
        del self._cut[number]
        if code is not None:
            self.codes.append(code)
        self._apply(self.machine.closed(code, _now(), socket=number))

    async def _read(self, ws: trio_websocket.WebSocketConnection, number: int, scope: trio.CancelScope) -> None:
        try:
            while True:
                await self.reading.wait()
                frame = await ws.get_message()
                await self.reading.wait()
                self._apply(self.machine.receive(str(frame), _now(), number))
        except trio_websocket.ConnectionClosed:
            scope.cancel()

    async def _wait(self) -> None:
        deadline = self.machine.next_deadline_ms
        with trio.move_on_at(float("inf") if deadline is None else deadline / 1000 + 1e-6):
            await self._changed.wait()
        self._apply(self.machine.tick(_now(), reading=self.reading.is_set()))

    def _apply(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Open(socket=number):
                    self._opening.append(number)
                case Close(socket=number):
                    if number in self._cut:
                        self._cut[number].cancel()
                case Signals():
                    self.frames[event.s].append(event)
                    self.offsets[event.s] += [signal.o for signal in event.signals]
                    self.gave.set()
                    self.gave = trio.Event()
                case Snap():
                    self.snaps[event.s] += [signal.o for signal in event.signals]
                case Modified():
                    self.modified[event.s].append(event.c)
                case Gap():
                    self.gaps.append(event)
                case GapDetected():
                    self.detected.append(event)
                case Published():
                    self.published.append(event)
                case SubState():
                    self.states[event.s] = event.state
                case ClientState():
                    self.client_states.append(event.state)
                case _:
                    pass
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


def _now() -> float:
    return trio.current_time() * 1000


@asynccontextmanager
async def open_peer(server: RunningServer, hello: dict[str, Any] | None = None, **how: Any) -> AsyncGenerator[Peer]:
    """A connected peer; with `hello` its first message is sent and the welcome is checked and taken."""
    async with server.connect(STREAM, **how) as ws:
        peer = Peer(ws)
        if hello is not None:
            welcome = await peer.ask("hello", **hello)
            assert welcome["t"] == "welcome", welcome
        yield peer


@pytest.fixture(scope="session")
def peer() -> Callable[..., Any]:
    """`async with peer(server, hello={…}) as p`."""
    return open_peer


@pytest.fixture(scope="session")
def follower() -> type[Follower]:
    """An application on the client machine."""
    return Follower
