"""A server on a network in memory, and an actor that records what its sockets tell it."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import outcome
import pytest
import structlog
import trio
from structlog.testing import LogCapture
from trio_websocket import wrap_client_stream

from runtime.actor.http import Response
from runtime.actor.socket_table import SocketTable
from runtime.platform import Platform
from runtime.testing.streams import MemoryNetwork, writer
from runtime.timers import Timers
from runtime.transport.config import TransportConfig
from runtime.transport.listen import Transport


def _at_once(effect):
    effect()


class Room:
    """An actor without gates: takes every socket, keeps what arrived, and answers as told."""

    def __init__(self, nursery, **accept):
        self.events = []
        self.delivered = 0
        self.rests = []  # how much was delivered when nothing more had arrived
        self.answers = {}
        self.accept = {"message_bytes": 1 << 25, "backlog_bytes": 1 << 20, "slow_code": 4103, **accept}
        self.table = SocketTable(
            deliver=self._jobs_put,
            receive=self._jobs_put,
            rest=lambda: self.rests.append(self.delivered),
            emit=_at_once,
            emit_aside=_at_once,
            timers=Timers(),
        )
        self._jobs, self._next = trio.open_memory_channel(10_000)
        nursery.start_soon(self._run)

    @property
    def sockets(self):
        return self.table.list(None)

    async def fetch(self, request):
        self.table.accept(request.web_socket, (), **self.accept)
        protocol = request.headers.get("sec-websocket-protocol", "").partition(",")[0]
        return Response(101, headers={"sec-websocket-protocol": protocol} if protocol else {})

    async def web_socket_message(self, ws, message):
        self.events.append(message)
        if message in self.answers:
            self.answers[message](ws)
        else:
            ws.send(message)

    async def web_socket_close(self, ws, code, reason, was_clean):
        self.events.append((code, reason, was_clean))

    async def web_socket_error(self, ws, error):
        self.events.append(str(error))

    def _jobs_put(self, job):
        self.delivered += 1
        self._jobs.send_nowait(job)

    async def _run(self):
        async for job in self._next:
            job.take()
            job.done(await outcome.acapture(job.run, self))


class Server:
    """A transport on a network in memory."""

    def __init__(self, handler, *, certificate=None, **config):
        self.network = MemoryNetwork(window_bytes=config.pop("window_bytes", 65_536))
        self.log = LogCapture()
        self.config = TransportConfig(**config)
        self.platform = Platform(
            now=lambda: 1_700_000_000.0 + trio.current_time(),
            random=random.Random(0),
            token_bytes=lambda size: bytes(range(size)),
            run_blocking=None,
            sync_file=None,
            listen=self.network.listen,
            writer=writer,
        )
        log = structlog.wrap_logger(None, processors=[self.log], wrapper_class=structlog.BoundLogger)
        self.transport = Transport(
            handler, config=self.config, platform=self.platform, log=log, certificate=certificate
        )

    async def start(self, nursery):
        listeners = await self.network.listen("127.0.0.1", 80)
        await nursery.start(self.transport.serve, listeners)
        return self

    async def connect(self, **options):
        return await self.network.connect("127.0.0.1", 80, **options)

    async def exchange(self, data, *, chunk=None):
        """Send bytes, in pieces if told, and return everything that came back until the server closed."""
        stream = await self.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, stream, data, chunk or len(data) or 1)
            received = b""
            while more := await stream.receive_some():
                received += more
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)
        return received

    async def _send(self, stream, data, chunk):
        try:
            for start in range(0, len(data), chunk):
                await stream.send_all(data[start : start + chunk])
                await trio.testing.wait_all_tasks_blocked()
        except trio.BrokenResourceError:
            pass

    @asynccontextmanager
    async def client(self, path="/", **options):
        """A real WebSocket client on a memory stream; `.stream` is the stream below it."""
        stream = await self.connect()
        async with trio.open_nursery() as nursery:
            connection = await wrap_client_stream(nursery, stream, "localhost", path, **options)
            connection.stream = stream
            try:
                yield connection
            finally:
                nursery.cancel_scope.cancel()
                await trio.aclose_forcefully(stream)


@pytest.fixture
async def room(nursery):
    return Room(nursery)


@pytest.fixture
def make_room(nursery):
    return lambda **accept: Room(nursery, **accept)


@pytest.fixture
def start():
    """Start a server in a nursery of its own: `await start(handler, nursery, **config)`."""

    async def start(handler, nursery, **config):
        return await Server(handler, **config).start(nursery)

    return start


@pytest.fixture
def serve(nursery, start):
    """Start a server: `await serve(handler, **config)`."""
    return lambda handler, **config: start(handler, nursery, **config)
