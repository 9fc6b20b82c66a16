"""A server of a simulated world: the real runtime on a simulated platform, which can die at any step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

import attrs
import structlog
import trio

from runtime.app import App
from runtime.errors import ActorError, ActorReset, Overloaded, StorageFailed
from runtime.frontend import serve_node
from runtime.ids import ActorId
from runtime.namespace.inside import run_in
from runtime.namespace.namespace import Namespace
from runtime.node import Node, open_node
from runtime.platform import Begun, Later, OpenFile, Platform
from runtime.sim.image import FileModel, Image
from runtime.sim.probes import Serves
from runtime.storage.database_file import DATABASE
from runtime.storage.rebuild import IN_PLACE_BYTES
from runtime.storage.shared import SharedStore
from runtime.storage.store import Done, WriteBatch
from runtime.testing.platform import EPOCH_S
from runtime.testing.streams import MemoryListener, MemoryNetwork, MemoryStream, Weather, writer
from runtime.transport.config import TransportConfig

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.sim.world import World

_ANSWER_S = 0.05  # until a caller hears that the disk refused
HOST, PORT = "127.0.0.1", 8787


class Unknown(ActorError):
    """A call ended without an answer: what it asked for may have happened, or not, or may happen still."""


@attrs.define(eq=False)
class Life:
    """One run of a node's process.

    Attributes:
        number: counted over all nodes. dead: it has ended without a word. image: its files.
        scope: cancelled to end the tasks of a process that is dead, or has to be.
    """

    number: int
    image: Image
    scope: trio.CancelScope
    dead: bool = False
    node: Node | None = None
    platform: Platform | None = None
    store: WatchedStore | None = None
    stopping: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)
    callers: set[trio.CancelScope] = attrs.field(factory=set)


class WatchedStore(SharedStore):
    """The real store; what is submitted and how it ends is told to the world."""

    def __init__(self, life: Life, world: World, **arguments: Any) -> None:
        super().__init__(life.image.folder, **arguments)
        self._life = life
        self._world = world
        self._log = life.image.folder / f"{DATABASE}-wal"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open, and tell the world what is there before anybody changes it."""
        await super().run(task_status=_Opened(self._opened_first, task_status))

    def _opened_first(self) -> None:
        if not self._life.dead:
            with self._life.image.whole():
                self._world.store_opened(self)
            if self._life.image.damages:
                self._opened.reader.execute("PRAGMA shrink_memory")  # what it read is read again, as it is

    def read(self, statement: str, bindings: tuple[Any, ...]) -> list[Any]:
        """The rows of a SELECT, and whether something damaged was among what had to be read."""
        image, met = self._life.image, self._life.image.met
        try:
            rows = super().read(statement, bindings)
        except StorageFailed:
            if image.met > met and not self._life.dead:
                self._world.damage_met(served=False)
            raise
        if image.met > met and not self._life.dead:
            self._world.damage_met(served=True)
        return rows

    def submit(self, batch: WriteBatch, done: Done) -> None:
        """Take a batch."""
        if not self._life.dead:
            self._world.batch_submitted(batch)
        super().submit(batch, lambda error: self._ended(batch, done, error))

    def _ended(self, batch: WriteBatch, done: Done, error: Exception | None) -> None:
        if not self._life.dead:
            self._world.batch_ended(batch, error, self._life.image.unsynced(self._log))
        done(error)


@attrs.frozen
class _Opened(trio.TaskStatus[None]):
    """Does something before the one who waits for a start is told of it."""

    _first: Callable[[], None]
    _then: trio.TaskStatus[None]

    def started(self, value: None = None) -> None:
        self._first()
        self._then.started()


class SimulatedNode:
    """A node of a world.

    Args:
        world: it is in. name: in the trace. app: it serves. settings: of the app. idle_s: time to eviction.

    Attributes:
        app: what it serves the next time that it starts.
        network: where it listens; connect to it as ("127.0.0.1", 8787).
        clock_offset_s: by how much its wall clock is wrong.
        slow_s: how long blocking calls take at most, beside their usual time.
    """

    def __init__(self, world: World, name: str, app: App, settings: Any, idle_s: float) -> None:
        self.world = world
        self.name = name
        self.clock_offset_s = 0.0
        self._drift, self._drifts_since = 0.0, 0.0
        self.slow_s = 0.0
        self.partitioned = False
        self.app = app
        self._settings = app.settings() if settings is None else settings
        self._idle_s = idle_s
        self._rng = world.rng(f"{name}/platform")
        self._ids = world.rng(f"{name}/ids")
        self._restores = world.rng(f"{name}/restores")
        self.network = MemoryNetwork(weather=_weather(world.rng(f"{name}/network"), world.call_after))
        self.life: Life | None = None
        self._image = world.disk.image()
        self._silent: list[Any] = []
        self._up = trio.Event()

    # Life.

    async def start(self) -> None:
        """Start on what the disk has. Raises what the server raises."""
        assert self.life is None
        life = Life(self.world.next_life(), self._image, trio.CancelScope())
        for stream in self._silent:
            stream.release()
            stream.reset()
        self._silent.clear()
        self.life = life
        self.world.nursery.start_soon(self._live, life)
        await self._up.wait()

    async def _live(self, life: Life) -> None:
        log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            None, processors=[self._log], wrapper_class=structlog.stdlib.BoundLogger
        )
        platform = life.platform = self._platform(life)
        least = self._restores.choice((0, IN_PLACE_BYTES))
        store = life.store = WatchedStore(life, self.world, platform=platform, in_place_bytes=least)
        met = life.image.met
        try:
            with life.scope:
                listeners = await platform.listen(HOST, PORT)
                async with open_node(
                    self.app,
                    settings=self._settings,
                    store=store,
                    platform=platform,
                    log=log,
                    idle_s=self._idle_s,
                    objects=life.image.folder / "objects",
                ) as node:
                    life.node = node
                    await serve_node(
                        node,
                        listeners,
                        config=TransportConfig(),
                        ready=lambda: self._ready(life),
                        stop=life.stopping.wait,
                    )
        except BaseException as error:
            excused = life.image.refuses or life.image.damages or life.image.met > met  # perhaps put right meanwhile
            if self.life is life and not self._up.is_set() and excused:
                self.world.cannot_start(self, life)  # as it must while the disk takes nothing
            if not life.dead or isinstance(error, KeyboardInterrupt):
                raise
            # Whatever a process that has ended does in its last blocks, it does to nobody.
        finally:
            life.ended.set()

    def _ready(self, life: Life) -> None:
        if not life.dead and not life.stopping.is_set():
            self.world.trace.note("serves", self.name)
            self._up.set()

    def _log(self, _: Any, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        if self.life is not None:
            told = ", ".join(f"{key} {event[key]}" for key in ("error", "reason") if key in event)
            self.world.trace.note("log", self.name, f"{method}: {event.get('event')} {told}".rstrip())
        raise structlog.DropEvent

    @property
    def up(self) -> bool:
        """It serves."""
        return self.life is not None and self._up.is_set()

    async def wait_up(self) -> None:
        """Wait until it serves."""
        while not self.up:
            await self._up.wait()

    def kill(self, *, power: bool) -> None:
        """End the process without a word, at once; with `power`, the machine too. Harmless when it is down."""
        life = self.life
        if life is None:
            return
        self.life = None
        life.dead = True
        if self._up.is_set():
            self._up = trio.Event()
        self.world.node_died(self, life, power=power)
        for listener in self.network.listeners:
            listener.stop()
        for stream in self.network.connections:
            if power:
                stream.hold()
                self._silent.append(stream)
            else:
                stream.reset()
        self._image = self.world.disk.crash(life.image, power=power)
        for scope in list(life.callers):
            scope.cancel()

    def release(self, streams: Iterable[MemoryStream]) -> None:
        """Let connections carry again what was held; those of a machine without power stay silent until it is back."""
        for stream in streams:
            if stream not in self._silent:
                stream.release()

    async def stop(self) -> None:
        """Stop as on SIGTERM. Harmless when it is down."""
        life = self.life
        if life is None:
            return
        life.stopping.set()
        if self._up.is_set():
            self._up = trio.Event()
        await life.ended.wait()
        for scope in list(life.callers):
            scope.cancel()
        if not life.dead and self.life is life:
            self.life = None
            self.world.trace.note("stop", self.name)

    def life_of(self, part: Serves) -> int | None:
        """The number of the living process that an instance, or what keeps containers, belongs to."""
        life = self.life
        return life.number if life is not None and part.services.platform is life.platform else None

    # Calls.

    def stub(self, namespace: str, name: str) -> Any:
        """A stub whose calls come from outside: `await node.stub("counters", "tea").add(1)`.

        A call raises what the method raised, or `Unknown` when the actor or its process ended before the answer.

        Args:
            namespace: a field of the app's env.
        """
        return _OutsideStub(self, namespace, name)

    async def call(self, namespace: str, name: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call from outside."""
        await self.wait_up()
        life = self.life
        assert life is not None
        assert life.node is not None
        who = f"{namespace}/{name}"
        number = self.world.trace.note("call", who, f"{method}{args!r}")
        actors: Namespace[Any] = getattr(life.node.env, namespace)
        scope = trio.CancelScope()
        life.callers.add(scope)
        try:
            with scope:
                value = await getattr(actors.get_by_name(name), method)(*args, **kwargs)
                if not life.dead:
                    self.world.trace.note("answer", who, f"to #{number}: {value!r}")
                    return value
        except (ActorReset, Overloaded, StorageFailed) as error:
            if isinstance(error, Overloaded) and not life.stopping.is_set():
                raise
            if not life.dead:
                self.world.trace.note("no answer", who, f"to #{number}: {type(error).__name__}")
            if isinstance(error, StorageFailed):
                await trio.sleep(_ANSWER_S)  # who asks again at once would do so for ever at the same moment
            raise Unknown(f"no answer from {who}.{method}: {error}") from error
        finally:
            life.callers.discard(scope)
        raise Unknown(f"no answer from {who}.{method}: the process has ended")

    async def run_in(self, namespace: str, name: str, fn: Callable[[Any], Any]) -> Any:
        """Run a function, plain or async, with an instance as its argument, in a turn of its own.

        Raises: what the function raised, or `Unknown` when the process or the actor ended before it did.
        """
        await self.wait_up()
        life = self.life
        assert life is not None
        assert life.node is not None
        actors: Namespace[Any] = getattr(life.node.env, namespace)
        scope = trio.CancelScope()
        life.callers.add(scope)
        try:
            with scope:
                return await run_in(life.node.router, actors.id_from_name(name), fn)
        except (ActorReset, StorageFailed) as error:
            raise Unknown(f"no end of what ran in {namespace}/{name}: {error}") from error
        finally:
            life.callers.discard(scope)
        raise Unknown(f"no end of what ran in {namespace}/{name}: the process has ended")

    # Platform.

    def now(self) -> float:
        """Its wall clock."""
        now = self.world.now()
        return EPOCH_S + now + self.clock_offset_s + (now - self._drifts_since) * self._drift

    def drift(self, rate: float) -> None:
        """Let its wall clock gain so many seconds in each second from now on; 0: it runs as it should."""
        now = self.world.now()
        self.clock_offset_s += (now - self._drifts_since) * self._drift
        self._drift, self._drifts_since = rate, now

    def _platform(self, life: Life) -> Platform:
        return Platform(
            now=self.now,
            random=random.Random(self._rng.random()),  # noqa: S311 -- reproducible on purpose
            token_bytes=self._ids.randbytes,
            run_blocking=partial(self._run_blocking, life),
            sync_file=partial(self._sync_file, life),
            begin_sync=partial(self._begin_sync, life),
            listen=partial(self._listen, life),
            writer=writer,
            point=partial(self._point, life),
        )

    def _point(self, life: Life, name: str) -> None:
        if not life.dead:
            self.world.point_reached(self, name)

    async def _run_blocking(self, life: Life, fn: Callable[..., Any], /, *args: Any) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        # Nothing stops a thread.
        if not life.dead:
            seconds = self._rng.uniform(0.0, 0.001) + self._rng.uniform(0.0, self.slow_s)
            await self.world.sleep(seconds, shielded=True)
        try:
            return fn(*args)
        finally:
            if not life.dead:
                await self.world.sleep(self._rng.uniform(0.0, 0.001), shielded=True)

    async def _sync_file(self, life: Life, *paths: Path) -> None:
        await self._sync(life, paths, _written(life, paths))

    def _begin_sync(self, life: Life, *files: OpenFile) -> Begun:
        paths = [file.path for file in files]
        return Later(partial(self._sync, life, paths, _written(life, paths)))

    async def _sync(self, life: Life, paths: Sequence[Path], begun: Sequence[tuple[FileModel, int]]) -> None:
        for path in paths:
            life.image.before("sync", path)
        seconds = self._rng.uniform(0.0, 0.001) + self._rng.uniform(0.0, self.slow_s)
        await self.world.sleep(seconds, shielded=True)
        if life.dead:
            raise OSError(5, "the process is dead")
        for model, count in begun:
            life.image.sync(model, count)

    async def _listen(self, life: Life, host: str, port: int, /) -> Sequence[MemoryListener]:
        if life.dead:
            raise OSError(9, "the process is dead")
        listeners = await self.network.listen(host, port)
        if self.life is not life:  # it died meanwhile
            for listener in listeners:
                listener.stop()
        return listeners

    def live_ids(self) -> list[ActorId]:
        """The actors in memory, in the order in which they were first used."""
        if self.life is None or self.life.node is None:
            return []
        return [held.id for held in self.life.node.router.containers.values() if held.cell is not None]


class _OutsideStub:
    def __init__(self, node: SimulatedNode, namespace: str, name: str) -> None:
        self._node = node
        self._to = namespace, name

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._node.call(*self._to, method, args, kwargs)

        return cast("Any", call)


def _written(life: Life, paths: Sequence[Path]) -> list[tuple[FileModel, int]]:
    """What a sync that begins now makes last."""
    models = (life.image.model(path) for path in paths)
    return [(model, len(model.unsynced)) for model in models if model is not None]


def _weather(rng: random.Random, call_after: Callable[[float, Callable[[], object]], None]) -> Weather:
    return Weather(
        later=lambda fn: call_after(rng.expovariate(500.0), fn),
        bite=lambda size: size if size < 2 or rng.random() < 0.8 else rng.randint(1, size),
    )
