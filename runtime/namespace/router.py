"""From ids to live actors: activation, idle eviction, and the bound on how many are in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import structlog
import trio

from runtime import limits
from runtime.actor.actor import Actor, rpc_methods, rpc_properties
from runtime.actor.cell import Cell
from runtime.actor.context import Context
from runtime.actor.input_gate import Job
from runtime.actor.services import Services
from runtime.errors import ActorError, ActorReset, Overloaded, UnknownNamespace
from runtime.ids import ActorId
from runtime.namespace.alarms import AlarmScheduler
from runtime.namespace.container import Container
from runtime.namespace.turn_watch import TurnWatch
from runtime.platform import Platform
from runtime.storage.backend import Backend
from runtime.storage.store import Store
from runtime.timers import Timer, Timers

EVICTIONS_PER_TURN = 256
EVICT_WAIT_S = 30.0  # Durable Objects: how long the eviction hook waits for running events


class Router:
    """The only code that starts an actor.

    Args:
        classes: namespace key to actor class.
        start_soon: starts a task in the server's nursery of actors.
        backends: where the storage of each kind of class lives.
        live_actors: how many instances may be in memory; the longest idle leaves first.
        open_objects: how many of those may be of SQL classes.
        idle_s: how long an instance without events stays in memory.
    """

    def __init__(
        self,
        classes: Mapping[str, type[Actor[Any]]],
        *,
        platform: Platform,
        store: Store,
        backends: Mapping[str, Backend],
        timers: Timers,
        start_soon: Callable[..., None],
        log: structlog.stdlib.BoundLogger,
        live_actors: int = limits.LIVE_ACTORS,
        open_objects: int = limits.OPEN_OBJECTS,
        idle_s: float = limits.IDLE_S,
    ) -> None:
        self.log = log
        self.env: Any = None
        self.alarms = AlarmScheduler(platform, timers, self.deliver, log)
        self.services = Services(
            platform=platform,
            store=store,
            timers=timers,
            start_soon=start_soon,
            alarm_changed=self.alarms.changed,
            backends=backends,
            log=log,
        )
        self.containers: dict[ActorId, Container] = {}
        self._classes = dict(classes)
        self._methods = {cls: rpc_methods(cls) for cls in self._classes.values()}
        self._properties = {cls: rpc_properties(cls) for cls in self._classes.values()}
        self._live_actors = live_actors
        self._idle_s = idle_s
        self._open_objects = open_objects
        self._live = 0
        self._objects = 0  # of those: of SQL classes
        self._idle: OrderedDict[Container, float] = OrderedDict()
        self._idle_objects: OrderedDict[Container, None] = OrderedDict()
        self._sweep: Timer | None = None
        self._idle_events: dict[Container, trio.Event] = {}
        self._turn_watch = TurnWatch(timers, lambda: [held.cell for held in self.containers.values()], log)

    # Calls.

    def container(self, actor_id: ActorId) -> Container:
        """The container of an actor, made when there is none.

        Raises:
            UnknownNamespace: the app has no such namespace.
        """
        container = self.containers.get(actor_id)
        if container is None:
            actor_class = self._classes.get(actor_id.namespace)
            if actor_class is None:
                raise UnknownNamespace(
                    f"no namespace {actor_id.namespace!r}; this app has {', '.join(sorted(self._classes))}"
                )
            container = self.containers[actor_id] = Container(actor_id, actor_class, self)
        return container

    def callable_methods(self, container: Container) -> frozenset[str]:
        """Names that a stub of it may call."""
        return self._methods[container.actor_class]

    def readable_properties(self, container: Container) -> frozenset[str]:
        """Names that a stub of it may read."""
        return self._properties[container.actor_class]

    def deliver(self, actor_id: ActorId, job: Job) -> None:
        """Put an event into an actor's mailbox."""
        self.container(actor_id).deliver(job)

    # Containers (`Keeper`).

    def construct(self, cell: Cell) -> Actor[Any]:
        """Make the instance of a cell."""
        return cell.actor_class(Context(cell), self.env)

    def now_live(self, container: Container) -> None:
        """Make room for one more instance.

        Raises:
            Overloaded: the bound is reached and none is idle.
        """
        if self._live >= self._live_actors:
            if not self._idle:
                raise Overloaded(f"{self._live:,} actors are busy in memory; at most {self._live_actors:,}")
            next(iter(self._idle)).evict()
        if container.has_file:
            if self._objects >= self._open_objects:
                if not self._idle_objects:
                    raise Overloaded(
                        f"{self._objects:,} actors with databases of their own are busy; at most "
                        f"{self._open_objects:,} (limits.OPEN_OBJECTS)"
                    )
                next(iter(self._idle_objects)).evict()
            self._objects += 1
        self._live += 1

    def now_idle(self, container: Container) -> None:
        """Start its time to eviction."""
        self._idle[container] = trio.current_time()
        if container.has_file:
            self._idle_objects[container] = None
        if self._sweep is None:
            self._sweep = self.services.timers.call_after(self._idle_s, self._evict_idle)
        event = self._idle_events.pop(container, None)
        if event is not None:
            event.set()

    def now_busy(self, container: Container) -> None:
        """It is not idle any more."""
        self._turn_watch.busy()
        self._forget_idle(container)

    def now_ended(self, container: Container) -> None:
        """Its cell was evicted or destroyed."""
        self._live -= 1
        self._objects -= container.has_file
        self._forget_idle(container)
        self.now_gone(container)
        event = self._idle_events.pop(container, None)
        if event is not None:
            event.set()

    def _forget_idle(self, container: Container) -> None:
        self._idle.pop(container, None)
        if container.has_file:
            self._idle_objects.pop(container, None)

    def now_gone(self, container: Container) -> None:
        """Forget it when it has nothing left."""
        if container.empty:
            self.containers.pop(container.id, None)

    # Eviction.

    def _evict_idle(self) -> None:
        self._sweep = None
        now = trio.current_time()
        for _ in range(EVICTIONS_PER_TURN):
            if not self._idle:
                return
            container, since = next(iter(self._idle.items()))
            wait = since + self._idle_s - now
            if wait > 0:
                self._sweep = self.services.timers.call_after(wait, self._evict_idle)
                return
            container.evict()
        # Many are due at once: let the rest of the server run in between.
        self._sweep = self.services.timers.call_after(0.001, self._evict_idle)

    async def evict(self, actor_id: ActorId, *, cut_sockets: bool = False) -> None:
        """Evict an actor as if it had been idle, after its running events (Durable Objects: the eviction test hook).

        Raises:
            ActorError: it is not in memory, or still busy after 30 s.
        """
        container = self.containers.get(actor_id)
        cell = None if container is None else container.cell
        if container is None or cell is None:
            raise ActorError("Cannot evict Durable Object: it is not currently running.")
        with trio.move_on_after(EVICT_WAIT_S):
            while container.cell is cell and not cell.idle:
                await self._idle_events.setdefault(container, trio.Event()).wait()
        if container.cell is cell:
            if not cell.idle:
                raise ActorError(
                    "Timed out waiting to evict Durable Object: it still has active references. "
                    f"({'; '.join(cell.why_awake())})"
                )
            if cut_sockets:
                container.sockets.cut_all()
            container.evict()

    def abort(self, actor_id: ActorId, reason: str) -> None:
        """Destroy an actor's instance from outside; harmless when it is not in memory."""
        container = self.containers.get(actor_id)
        if container is not None and container.cell is not None:
            container.cell.break_(ActorReset(reason))

    # The end.

    def close_sockets(self, code: int, reason: str) -> None:
        """Send every socket of every actor a close frame."""
        for container in list(self.containers.values()):
            container.sockets.close_all(code, reason)

    async def drain(self) -> None:
        """Begin no more alarms, and wait until every actor in memory is idle (bound it with a cancel scope)."""
        self.alarms.stop()
        while busy := [c for c in self.containers.values() if c.cell is not None and not c.cell.idle]:
            await self._idle_events.setdefault(busy[0], trio.Event()).wait()

    def stop(self) -> None:
        """End every instance without an error, and begin no more alarms; what is sealed still commits."""
        self.alarms.stop()
        for container in list(self.containers.values()):
            if container.cell is not None:
                container.cell.end()
