"""The world of one run: its nodes, its time, what goes wrong, and what a scenario may ask for."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import trio

from runtime.actor.http import Response
from runtime.app import App
from runtime.errors import ActorError
from runtime.ids import ActorId
from runtime.sim.claim import Audience, Claim
from runtime.sim.disk import SimulatedDisk
from runtime.sim.faults import Fault
from runtime.sim.history import History
from runtime.sim.node import HOST, PORT, Life, SimulatedNode, Unknown, WatchedStore
from runtime.sim.probes import Probes, Serves
from runtime.sim.scheduling import VirtualClock, call_before_step
from runtime.sim.trace import POINT, Trace
from runtime.storage.store import WriteBatch
from runtime.testing.http import read_head, read_response, write_request
from runtime.testing.streams import MemoryStream

T = TypeVar("T")

IDLE_S = 2.0  # to eviction, so that every run has some


class World:
    """What a scenario gets. Made by `simulate`.

    Attributes:
        seed: of the run. trace: what happened. claims: that are watched. nodes: by name. histories: by name.
        longest: the number of operations of the longest loop.
        sleep, call_after: of the clock, for what the world itself waits for all the time.
    """

    def __init__(
        self,
        seed: int,
        disk: SimulatedDisk,
        plan: Sequence[Fault],
        operations: int | None,
        clock: VirtualClock,
        claims: list[Claim],
    ) -> None:
        self.seed = seed
        self.plan = plan
        self.nursery: trio.Nursery
        self.longest = 0
        self._operations = operations
        self._down: list[tuple[SimulatedNode, Life, float]] = []
        self._died = trio.Event()
        self._clock = clock
        self.sleep, self.call_after = clock.sleep, clock.call_after
        self.trace = Trace(clock.current_time, str(disk.folder))
        self.disk = disk
        disk.step = self._disk_step
        self.nodes: dict[str, SimulatedNode] = {}
        self.histories: dict[str, History] = {}
        self._lives = 0
        self._io_countdown: tuple[int, Callable[[], None]] | None = None
        self._point_countdown: tuple[int, Callable[[], None]] | None = None
        self._lost_answers = 0
        self._repeated: list[float] = []
        self.quiet = False
        self._nemesis = trio.CancelScope()
        self.claims = claims
        self._audience = Audience(self.claims)
        self.probes = Probes(self.trace, self._audience, self._life_of)

    # For scenarios.

    def now(self) -> float:
        """Virtual seconds since the run began."""
        return self._clock.now

    def rng(self, name: str) -> random.Random:
        """Randomness of its own for everything that has a name: a draw here shifts none there."""
        return random.Random(f"{self.seed}/{name}")  # noqa: S311 -- reproducible on purpose

    async def start_node(
        self, app: App, *, name: str = "node", settings: Any = None, idle_s: float = IDLE_S
    ) -> SimulatedNode:
        """Serve an app; from now on it may crash, and is started again by itself."""
        node = self.nodes[name] = SimulatedNode(self, name, app, settings, idle_s)
        await self._start(node)
        return node

    async def restart(self, node: SimulatedNode, *, app: App | None = None) -> None:
        """Stop a node as on SIGTERM and start it again; when it dies before the end, wait until it is back.

        Args:
            app: another version, which it serves from then on.
        """
        if app is not None:
            node.app = app
        life = node.life
        if life is not None:
            self.trace.note("restart", node.name)
            await node.stop()
            if not life.dead and node.life is None:
                await self._start(node)
        await node.wait_up()

    def history(self, name: str) -> History:
        """A record of what clients asked one actor and what they were answered, for `linearizable`."""
        return self.histories.setdefault(name, History(self.trace, name))

    async def until_answered(self, fn: Callable[[], Awaitable[T]]) -> T:
        """Repeat something that may be repeated until it is answered, with pauses that grow to 2 s."""
        pause = 0.02
        while True:
            try:
                return await fn()
            except (ActorError, OSError, trio.BrokenResourceError) as error:
                if not (isinstance(error, Unknown | OSError | trio.BrokenResourceError) or _passes(error)):
                    raise
            await trio.sleep(pause)
            pause = min(pause * 2, 2.0)

    def times(self, count: int) -> range:
        """`range(count)`, or less while a failure is shrunk: use it for a scenario's loops over operations."""
        self.longest = max(self.longest, count)
        return range(count if self._operations is None else min(count, self._operations))

    async def connect(self, node: SimulatedNode, *, peer: str = "127.0.0.1") -> MemoryStream:
        """A stream to a node. Raises: OSError: it is down, or cut off."""
        await self.sleep(0.0005)
        if node.partitioned:
            await trio.sleep(3.0)
            raise OSError(110, f"{node.name} does not answer")
        return await node.network.connect(HOST, PORT, peer=peer)

    async def request(
        self,
        node: SimulatedNode,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
        repeats: bool = False,
    ) -> Response:
        """One HTTP request on a connection of its own.

        Args:
            repeats: it may arrive twice, because what it asks for is recognised by an id.

        Raises:
            OSError: no answer; the request may have been carried out.
        """
        number = self.trace.note("request", "http", f"{method} {target}")
        if repeats and self._repeated:
            self.trace.note("repeated request", "http", f"#{number}")
            again = partial(self._again, self._repeated.pop(0), node, method, target, body, headers)
            self.nursery.start_soon(again)
        with trio.move_on_after(timeout_s):
            async with await self.connect(node) as stream:
                try:
                    await write_request(stream, method, target, f"{HOST}:{PORT}", body, headers or {})
                    response = await read_response(stream, method)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise OSError(104, str(error)) from error
                if self._lost_answers:
                    self._lost_answers -= 1
                    self.trace.note("lost answer", "http", f"to #{number}: {response.status}")
                    raise OSError(104, f"the answer to {method} {target} is lost")
                self.trace.note("response", "http", f"to #{number}: {response.status}")
                return response
        raise OSError(110, f"no answer to {method} {target} in {timeout_s:g} s")

    @contextlib.asynccontextmanager
    async def stream(
        self,
        node: SimulatedNode,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> AsyncGenerator[Response, None]:
        """A request whose response is read as it comes: `async for chunk in response.stream`, which may never end.

        Args:
            timeout_s: until its head has come.

        Raises:
            OSError: no answer, or, while it is read, that the connection has ended within it.
        """
        number = self.trace.note("request", "http", f"{method} {target}")
        async with await self.connect(node) as stream:
            try:
                response = None
                with trio.move_on_after(timeout_s):
                    await write_request(stream, method, target, f"{HOST}:{PORT}", b"", headers or {})
                    response = await read_head(stream, method)
                if response is None:
                    raise OSError(110, f"no answer to {method} {target} in {timeout_s:g} s")
                self.trace.note("response", "http", f"to #{number}: {response.status}")
                async with contextlib.aclosing(cast("AsyncGenerator[bytes, None]", response.stream)):
                    yield response
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise OSError(104, str(error)) from error

    async def _again(
        self,
        seconds: float,
        node: SimulatedNode,
        method: str,
        target: str,
        body: bytes,
        headers: Mapping[str, str] | None,
    ) -> None:
        await trio.sleep(seconds)
        with contextlib.suppress(OSError):  # nobody waits for this answer
            await self.request(node, method, target, body=body, headers=headers)

    async def quiesce(self, seconds: float = 0.0) -> None:
        """Faults are over: undo those that last, start what is down, and let everybody have some time to finish.

        What the scenario does from here on must succeed.
        """
        if not self.quiet:
            self.quiet = True
            self.trace.note("quiesce", "world")
            self._nemesis.cancel()
            self._io_countdown = self._point_countdown = None
            self._lost_answers = 0
            self._repeated.clear()
            for node in self.nodes.values():
                self._heal(node)
                if node.life is not None and node.life.stopping.is_set():
                    await node.stop()
                if node.life is None:
                    await self._start(node)
                await node.wait_up()
        await trio.sleep(seconds)

    # What goes wrong.

    async def nemesis(self) -> None:
        """Carry out the plan."""
        with self._nemesis:
            async with trio.open_nursery() as nursery:
                for fault in self.plan:
                    nursery.start_soon(self._inflict, fault)

    async def _inflict(self, fault: Fault) -> None:
        await trio.sleep_until(fault.at)
        node = next(iter(self.nodes.values()), None)
        if node is None or (node.life is None and not fault.kind.startswith("clock")):
            return
        kind, amount = fault.kind, fault.amount
        if kind in ("crash", "power cut"):
            call_before_step(int(amount), lambda: self._kill(node, fault))
        elif kind in ("crash in io", "power cut in io"):
            self._io_countdown = int(amount), lambda: self._kill(node, fault)
        elif kind == "crash at a point":
            self._point_countdown = int(amount), lambda: self._kill(node, fault)
        elif kind == "sync fails":
            self._fault(node, kind)
            self._image(node).failing += int(amount)
        elif kind in ("reset", "half-open", "half-sent frame"):
            self._break_connection(node, kind, amount)
        elif kind == "lost answer":
            self._lost_answers += 1
            self._break_connection(node, kind, amount)
        elif kind == "repeated request":
            self._repeated.append(amount)
        elif kind == "clock jump":
            event = self.trace.note(kind, node.name, f"{amount:+.3f} s")
            self._audience.clock_set(node.now(), event)
            node.clock_offset_s += amount
        elif kind in ("evict", "abort"):
            self._end_instance(node, kind, amount)
        else:
            await self._inflict_for_a_while(node, fault)

    async def _inflict_for_a_while(self, node: SimulatedNode, fault: Fault) -> None:
        kind, amount = fault.kind, fault.amount
        if kind == "partition":
            await self._partition(node, fault.lasts)
        elif kind == "slow reader":
            await self._read_nothing(node, fault)
        elif kind == "disk full":
            self._fault(node, kind)
            self._image(node).full = True
            await trio.sleep(fault.lasts)
            self._image(node).full = False
            self._fault(node, "disk has room")
        elif kind == "clock drift":
            self._fault(node, kind, f"{amount:+.3f} s/s")
            node.drift(amount)
            await trio.sleep(fault.lasts)
            node.drift(0.0)
            self._fault(node, "clock runs well")
        elif kind == "slow":
            self._fault(node, kind)
            node.slow_s = amount
            await trio.sleep(fault.lasts)
            node.slow_s = 0.0
            self._fault(node, "fast again")
        elif kind == "bit flip":
            await self._flip(node, fault)

    async def _flip(self, node: SimulatedNode, fault: Fault) -> None:
        life = node.life
        if life is None:
            return
        await node.stop()
        if node.life is not None or self.quiet or life.dead:
            return  # it was killed meanwhile, or is to go on
        damage = self._image(node).flip(self.rng(f"bit flip at {fault.at}"))
        if damage is not None:
            self._fault(node, "bit flip", f"{damage.file} at {damage.at}")
        with trio.move_on_after(fault.lasts):
            await self._start(node)  # which does not end while something damaged is needed for it
            await trio.sleep_forever()
        self._image(node).repair()
        self._fault(node, "bits are right")

    def _fault(self, node: SimulatedNode, kind: str, detail: str = "") -> None:
        self.trace.note(kind, node.name, detail)

    def _image(self, node: SimulatedNode) -> Any:
        assert node.life is not None or node._image is not None
        return node._image if node.life is None else node.life.image

    def _kill(self, node: SimulatedNode, fault: Fault) -> None:
        life = node.life
        if not self.quiet and life is not None:
            node.kill(power=fault.kind.startswith("power"))
            self._down.append((node, life, fault.lasts))
            self._died.set()

    async def restart_dead(self) -> None:
        """Start nodes that were killed again, some time later."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._died.wait()
                self._died = trio.Event()
                down, self._down = self._down, []
                for node, life, seconds in down:
                    life.scope.cancel()
                    nursery.start_soon(self._restart, node, seconds)

    async def _restart(self, node: SimulatedNode, seconds: float) -> None:
        await trio.sleep(seconds)
        if node.life is None:
            await self._start(node)

    async def _start(self, node: SimulatedNode) -> None:
        self.trace.note("start", node.name)
        await node.start()

    def _connection(self, node: SimulatedNode, which: float) -> MemoryStream | None:
        streams = node.network.connections
        return streams[min(int(which * len(streams)), len(streams) - 1)] if streams else None

    def _break_connection(self, node: SimulatedNode, kind: str, which: float) -> None:
        stream = self._connection(node, which)
        if stream is None:
            return
        self._fault(node, kind)
        if kind == "half-sent frame":
            stream.tear_next(which * len(node.network.connections) % 1)  # what choosing the connection has left of it
        else:
            {"reset": stream.reset, "half-open": stream.hold, "lost answer": stream.lose_next}[kind]()

    async def _read_nothing(self, node: SimulatedNode, fault: Fault) -> None:
        stream = self._connection(node, fault.amount)
        if stream is None or not stream.hold_what_is_sent():
            return
        self._fault(node, fault.kind)
        await trio.sleep(fault.lasts)
        node.release([stream])
        self._fault(node, "it reads again")

    async def _partition(self, node: SimulatedNode, seconds: float) -> None:
        self._fault(node, "partition")
        node.partitioned = True
        streams = node.network.connections
        for stream in streams:
            stream.hold()
        await trio.sleep(seconds)
        node.partitioned = False
        node.release(streams)
        self._fault(node, "healed")

    def _end_instance(self, node: SimulatedNode, kind: str, which: float) -> None:
        assert node.life is not None
        ids = node.live_ids()
        if node.life.node is None or not ids:
            return
        router = node.life.node.router
        actor = ids[min(int(which * len(ids)), len(ids) - 1)]
        container = router.containers[actor]
        if kind == "abort":
            self._fault(node, kind, repr(actor))
            router.abort(actor, "aborted by the simulation")
        elif container.cell is not None and container.cell.idle:
            self._fault(node, kind, repr(actor))
            container.evict()

    def _heal(self, node: SimulatedNode) -> None:
        image = self._image(node)
        image.full, image.failing, node.slow_s, node.partitioned = False, 0, 0.0, False
        node.drift(0.0)
        image.repair()
        node.release(node.network.connections)

    # Told by nodes, disk and probes.

    def next_life(self) -> int:
        """A number for a process."""
        self._lives += 1
        return self._lives

    def _life_of(self, part: Serves) -> int | None:
        for node in self.nodes.values():
            life = node.life_of(part)
            if life is not None:
                return life
        return None

    def _disk_step(self, what: str, name: str) -> None:
        self.trace.note(what, "disk", name)
        if self._io_countdown is not None:
            left, act = self._io_countdown
            self._io_countdown = (left - 1, act) if left > 1 else None
            if left <= 1:
                act()

    def point_reached(self, node: SimulatedNode, name: str) -> None:
        """A rare branch begins; the process may end right there."""
        self.trace.note(f"{POINT}{name}", node.name)
        if self._point_countdown is not None:
            left, act = self._point_countdown
            self._point_countdown = (left - 1, act) if left > 1 else None
            if left <= 1:
                act()

    def node_died(self, node: SimulatedNode, life: Life, *, power: bool) -> None:
        """A process has ended."""
        event = self.trace.note("power cut" if power else "crash", node.name)
        self._io_countdown = self._point_countdown = None
        self.probes.died()
        self._audience.died(life.number, event)

    def damage_met(self, *, served: bool) -> None:
        """A page in which a bit has flipped was needed."""
        event = self.trace.note("damaged page", "disk", "served" if served else "refused")
        self._audience.damage_met(served, event)

    def cannot_start(self, node: SimulatedNode, life: Life) -> None:
        """A process gave up before it served; another one tries a little later."""
        self.trace.note("cannot start", node.name)
        node.kill(power=False)
        self._down.append((node, life, 0.5))
        self._died.set()

    def store_opened(self, store: WatchedStore) -> None:
        """A process has its store open, and nothing else yet."""
        event = self.trace.note("opened", "store")
        self._audience.opened(store.open, event)

    def batch_submitted(self, batch: WriteBatch) -> None:
        """A batch is on its way to the store."""
        event = self.trace.note("submit", _name(batch.actor), f"batch {batch.sequence}, {len(batch.writes)} keys")
        self._audience.submitted(batch, event)

    def batch_ended(self, batch: WriteBatch, error: Exception | None, unsynced: int) -> None:
        """The store says how it ended."""
        what = "commit" if error is None else "not stored"
        event = self.trace.note(what, _name(batch.actor), f"batch {batch.sequence}")
        if error is None:
            self._audience.acknowledged(batch, unsynced, event)
        else:
            self._audience.refused(batch, event)


def _name(actor: ActorId) -> str:
    return f"{actor.namespace}/{actor.name or str(actor)[:8]}"


def _passes(error: ActorError) -> bool:
    return bool(error.retryable or error.overloaded)
