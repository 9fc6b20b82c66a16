"""A throw-away server inside a test: the real runtime on virtual time, a store and a network in memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import structlog
import trio
import trio_websocket

from runtime import limits
from runtime.actor.http import Response
from runtime.app import App
from runtime.faults import Faults, with_faults
from runtime.frontend import serve_node
from runtime.ids import ActorId
from runtime.limits import StorageLimits
from runtime.namespace.inside import run_alarm, run_in
from runtime.namespace.namespace import Namespace
from runtime.namespace.stub import Stub
from runtime.node import PRODUCTION, Node, open_node
from runtime.storage.memory import MemoryStore
from runtime.storage.store import Store
from runtime.testing.disk import VirtualDisk
from runtime.testing.http import read_head, read_response, write_request
from runtime.testing.platform import virtual_platform
from runtime.testing.streams import MemoryNetwork
from runtime.transport.config import TransportConfig

A = TypeVar("A")
T = TypeVar("T")

HOST, PORT = "127.0.0.1", 8787


class RunningServer:
    """A server under test.

    Attributes:
        env: the app's env; stubs made from it can be called from the test.
        network: connect to it as `("127.0.0.1", 8787)`.
        disk: where the databases of SQL classes are.
        faults: what makes things fail on purpose, if the server was started for that. kills: how often an operator
            wanted the process to end at once.
    """

    def __init__(
        self,
        app: App,
        settings: Any,
        seed: int,
        store: Store | None,
        config: TransportConfig,
        idle_s: float,
        storage_limits: StorageLimits,
        objects: Path,
        *,
        faults: bool,
    ) -> None:
        self.network = MemoryNetwork()
        self.disk = VirtualDisk(objects)
        self.platform = virtual_platform(seed, self.network, self.disk)
        self.kills = 0
        self.faults: Faults | None = None
        if faults:
            self.platform, self.faults = with_faults(self.platform, self._kill)
        self.store: Store = store if store is not None else MemoryStore(now=self.platform.now)
        self._app = app
        self._settings = settings
        self._config = config
        self._idle_s = idle_s
        self._storage_limits = storage_limits
        self._node: Node | None = None
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()
        self._stopping = trio.Event()
        self._hurrying = trio.Event()
        self._nursery: trio.Nursery | None = None

    def _kill(self) -> None:
        self.kills += 1

    @property
    def node(self) -> Node:
        """The running app.

        Raises:
            RuntimeError: it is stopped.
        """
        if self._node is None:
            raise RuntimeError("the server is stopped; start it again first")
        return self._node

    @property
    def env(self) -> Any:
        """The app's env."""
        return self.node.env

    @property
    def live_actors(self) -> int:
        """Instances in memory."""
        return sum(container.cell is not None for container in self.node.router.containers.values())

    # Actors.

    def live_ids(self, namespace: Namespace[Any]) -> list[ActorId]:
        """The actors of a namespace that are in memory."""
        containers = self.node.router.containers.values()
        return [held.id for held in containers if held.cell is not None and held.id.namespace == namespace.key]

    async def evict(self, stub: Any, *, web_sockets: Literal["hibernate", "close"] = "hibernate") -> None:
        """Evict an actor as if it had been idle (Durable Objects: `evictDurableObject`).

        Args:
            web_sockets: its sockets stay open, or are cut without a close frame.

        Raises:
            ActorError: it is not in memory, or still busy after 30 s.
        """
        await self.node.router.evict(cast("Stub", stub).id, cut_sockets=web_sockets == "close")

    def abort(self, stub: Any, reason: str = "aborted by the test") -> None:
        """Destroy an actor's instance; harmless when it is not in memory."""
        self.node.router.abort(cast("Stub", stub).id, reason)

    async def run_alarm(self, stub: Any) -> bool:
        """Run an actor's pending alarm now and wait until it ran (Durable Objects: `runDurableObjectAlarm`).

        Returns:
            False when none is pending, or when it runs already.

        Raises:
            Exception: what the handler raised. The alarm then stays set for its own time, and this run counts as none
                of its retries; to see those let the time come.
        """
        return await run_alarm(self.node.router, cast("Stub", stub).id)

    async def run_in(self, stub: A, fn: Callable[[A], Awaitable[T] | T]) -> T:
        """Run a function inside an actor as an event with its turn (Durable Objects: `runInDurableObject`).

        It constructs the actor when it is not in memory. What the function writes is durable when this returns.

        Args:
            fn: plain or async; gets the instance itself, with its `ctx`, and may see and change everything.

        Returns:
            What the function returned, not copied.

        Raises:
            Exception: what the function raised, or what destroyed the instance.
        """
        value: T = await run_in(self.node.router, cast("Stub", stub).id, fn)
        return value

    def list_ids(self, namespace: Namespace[Any]) -> list[ActorId]:
        """Every actor of a namespace that has stored something or is in memory, in the order of the ids' bytes."""
        found = dict.fromkeys([*self.live_ids(namespace), *namespace.list_ids()])
        return sorted(found, key=lambda actor_id: actor_id.raw)

    def why_awake(self, stub: Any) -> list[str]:
        """What keeps an actor in memory; empty when nothing does."""
        container = self.node.router.containers.get(cast("Stub", stub).id)
        return [] if container is None or container.cell is None else container.cell.why_awake()

    # Network.

    async def request(
        self,
        method: str,
        target: str,
        *,
        json_body: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send one HTTP request through the whole transport on a connection of its own."""
        content = body if body is not None else b"" if json_body is None else json.dumps(json_body).encode()
        stream = await self.network.connect(HOST, PORT)
        async with stream:
            await write_request(stream, method, target, f"{HOST}:{PORT}", content, headers or {})
            return await read_response(stream, method)

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Response, None]:
        """The same for a response that is read as it comes: iterate over its `stream`. Leaving ends the connection."""
        stream = await self.network.connect(HOST, PORT)
        async with stream:
            await write_request(stream, method, target, f"{HOST}:{PORT}", body, headers or {})
            response = await read_head(stream, method)
            async with aclosing(cast("AsyncGenerator[bytes, None]", response.stream)):
                yield response

    @asynccontextmanager
    async def connect(
        self,
        target: str,
        *,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[trio_websocket.WebSocketConnection, None]:
        """A WebSocket through the whole transport, as a `trio_websocket` connection.

        Raises:
            trio_websocket.ConnectionRejected: the upgrade was refused.
        """
        stream = await self.network.connect(HOST, PORT)
        async with trio.open_nursery() as nursery:
            ws = await trio_websocket.wrap_client_stream(
                nursery,
                cast("Any", stream),  # it wants a SocketStream, and uses only what every Stream has
                f"{HOST}:{PORT}",
                target,
                subprotocols=list(subprotocols),
                extra_headers=[(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            )
            try:
                yield ws
            finally:
                with trio.move_on_after(1):
                    await ws.aclose()
            nursery.cancel_scope.cancel()

    def cut_connections(self) -> None:
        """Break every connection made through this server, without a close frame."""
        self.network.cut()

    # Life.

    async def start(self, nursery: trio.Nursery | None = None) -> None:
        """Start, or start again on what the store holds."""
        self._nursery = nursery or self._nursery
        assert self._nursery is not None
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()
        self._stopping = trio.Event()
        self._hurrying = trio.Event()
        await self._nursery.start(self._live)

    async def stop(self, *, hurry: bool = False) -> None:
        """Stop as on SIGTERM: the app drains, running events finish, what was written is committed, connections end.

        Args:
            hurry: as on a second SIGTERM: what the app's drain waits for is not waited for.
        """
        self._stopping.set()
        if hurry:
            self._hurrying.set()
        await self._stopped.wait()

    async def crash(self) -> None:
        """Stop as on SIGKILL: what is not durable is gone, and nothing more is sent."""
        crash = getattr(self.store, "crash", None)
        if crash is None:
            raise RuntimeError(f"{type(self.store).__name__} cannot crash; use a MemoryStore")
        self.cut_connections()
        self.node.router.stop()
        crash()
        if self.node.objects is not None:
            self.node.objects.abandon()
            self.disk.crash()
        self._scope.cancel()
        await self._stopped.wait()

    async def restart(self) -> None:
        """Stop, and start again."""
        await self.stop()
        await self.start()

    async def _told(self) -> None:
        """Returns when the server is told to stop; asked again, when it is told to hurry."""
        if not self._stopping.is_set():
            await self._stopping.wait()
        else:
            await self._hurrying.wait()

    async def _live(self, *, task_status: trio.TaskStatus[None]) -> None:
        log = structlog.stdlib.get_logger("heliograph")
        try:
            with self._scope:
                async with open_node(
                    self._app,
                    settings=self._settings,
                    store=self.store,
                    platform=self.platform,
                    log=log,
                    idle_s=self._idle_s,
                    storage_limits=self._storage_limits,
                    objects=self.disk.folder,
                    faults=self.faults,
                ) as node:
                    self._node = node
                    await serve_node(
                        node,
                        await self.platform.listen(HOST, PORT),
                        config=self._config,
                        ready=task_status.started,
                        stop=self._told,
                    )
        finally:
            self._node = None
            self._stopped.set()


@asynccontextmanager
async def start_server(
    app: App,
    *,
    settings: Any = None,
    seed: int = 0,
    store: Store | None = None,
    config: TransportConfig | None = None,
    idle_s: float = limits.IDLE_S,
    storage_limits: StorageLimits = PRODUCTION,
    faults: bool = False,
) -> AsyncGenerator[RunningServer, None]:
    """Serve an app while the block runs.

    Args:
        settings: an instance of the app's settings class; its defaults when None.
        seed: of ids, tokens and jitter.
        store: what to run on; an empty `MemoryStore` when None.
        config: of the transport.
        idle_s: time to eviction.
        storage_limits: of keys and values; `StorageLimits.workerd()` for what Cloudflare's local runtime allows.
        faults: what an operator may do with `heliograph serve --faults`; to kill the process only counts.
    """
    with tempfile.TemporaryDirectory(prefix="heliograph-") as folder:
        server = RunningServer(
            app,
            app.settings() if settings is None else settings,
            seed,
            store,
            config if config is not None else TransportConfig(),
            idle_s,
            storage_limits,
            Path(folder),
            faults=faults,
        )
        async with trio.open_nursery() as nursery:
            await server.start(nursery)
            try:
                yield server
            finally:
                if server._node is not None:
                    with trio.CancelScope(shield=True):
                        await server.stop()
            nursery.cancel_scope.cancel()
