"""From ids to live actors: activation, idle eviction, and the bound on how many are in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

import structlog
import trio

from runtime import limits
from runtime.actor.actor import Actor, Names
from runtime.actor.cell import Cell
from runtime.actor.context import Context
from runtime.actor.input_gate import Work
from runtime.actor.services import Services
from runtime.actor.workers import Workers
from runtime.errors import ActorError, ActorReset, Overloaded, UnknownNamespace
from runtime.ids import ActorId
from runtime.namespace.alarms import AlarmScheduler
from runtime.namespace.container import Below, Container
from runtime.namespace.facets import FacetTable
from runtime.namespace.failures import Failures
from runtime.namespace.residents import IdleOrder
from runtime.namespace.turn_watch import TurnWatch
from runtime.platform import Platform
from runtime.storage.backend import Backend
from runtime.storage.store import Store
from runtime.timers import Timer, Timers

EVICTIONS_PER_TURN = 256  # of the loop
EVICTIONS_S = 0.0005
PAUSE_S = 0.001
Eviction = Literal["idle", "room", "asked"]
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
        begin_commits = tuple(backend.begin_commit for backend in backends.values())

        def rest() -> None:
            for begin_commit in begin_commits:
                begin_commit()

        workers = Workers(start_soon, lambda: turn_watch.busy(), rest)
        turn_watch = TurnWatch(timers, workers.frames, log)
        self.services = Services(
            platform=platform,
            store=store,
            timers=timers,
            workers=workers,
            alarm_changed=self.alarms.changed,
            backends=backends,
            log=log,
        )
        self.containers: dict[ActorId, Container] = {}
        self.failures = Failures()
        self.evictions: Counter[Eviction] = Counter()
        self.construct: Callable[[Cell], Actor[Any]] = self._construct  # bound once, because every cell keeps it
        self._classes = dict(classes)
        self.names: Mapping[type[Actor[Any]], Names] = {cls: Names.of(cls) for cls in self._classes.values()}
        self._live_actors = live_actors
        self._idle_s = idle_s
        self._open_objects = open_objects
        self._live = 0
        self._stopped = False
        self._objects = 0  # of those: of SQL classes
        self._idle = IdleOrder(1)
        self._idle_objects = IdleOrder(2)  # those of SQL classes
        self._sweep: Timer | None = None
        self._idle_events: dict[Container, trio.Event] = {}
        self._time = trio.lowlevel.current_clock().current_time

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

    def deliver(self, actor_id: ActorId, job: Work) -> None:
        """Put an event into an actor's mailbox."""
        self.container(actor_id).deliver(job)

    @property
    def live(self) -> int:
        """Instances in memory."""
        return self._live

    def idle_s(self, container: Container) -> float | None:
        """For how long its instance has had nothing to do; None when it has."""
        cell = container.cell
        return self._time() - container.idle_since if cell is not None and cell.idle else None

    # Containers (`Keeper`).

    def facets_of(self, container: Container) -> Below:
        """The facets of an actor that had none in memory."""
        return FacetTable(container, self)

    def _construct(self, cell: Cell) -> Actor[Any]:
        return cell.actor_class(Context(cell), self.env)

    def now_live(self, container: Container) -> None:
        """Make room for one more instance.

        Raises:
            Overloaded: the bound is reached and none is idle, or the server has stopped.
        """
        if self._stopped:
            raise Overloaded("the server has stopped; no actor begins any more")
        if self._live >= self._live_actors:
            longest = self._idle.longest()
            if longest is None:
                raise Overloaded(f"{self._live:,} actors are busy in memory; at most {self._live_actors:,}")
            self._evict(longest, "room")
        if container.has_file:
            if self._objects >= self._open_objects:
                longest = self._idle_objects.longest()
                if longest is None:
                    raise Overloaded(
                        f"{self._objects:,} actors with databases of their own are busy; at most "
                        f"{self._open_objects:,} (limits.OPEN_OBJECTS)"
                    )
                self._evict(longest, "room")
            self._objects += 1
        self._live += 1

    def now_idle(self, container: Container) -> None:
        """Start its time to eviction."""
        container.idle_since = self._time()
        self._idle.note(container)
        if container.files:
            self._idle_objects.note(container)
        if self._sweep is None:
            self._sweep = self.services.timers.call_after(self._idle_s, self._evict_idle)
        if self._idle_events:
            self._tell(container)

    def now_ended(self, container: Container) -> None:
        """Its cell was evicted or destroyed."""
        self._live -= 1
        self._objects -= container.has_file
        self.now_gone(container)
        if self._idle_events:
            self._tell(container)

    def now_failed(self, container: Container, error: Exception) -> None:
        """Its instance is being destroyed."""
        self.failures.note(container.id, self.services.platform.now(), error)

    def _tell(self, container: Container) -> None:
        event = self._idle_events.pop(container, None)
        if event is not None:
            event.set()

    def now_gone(self, container: Container) -> None:
        """Forget it when it has nothing left."""
        if container.empty:
            self.containers.pop(container.id, None)
            container.forgotten = True

    # Eviction.

    def _evict_idle(self) -> None:
        # Bounded in time and number: where many are due at once, the rest of the server runs in between.
        begun = self._time()
        wait = PAUSE_S
        for _ in range(EVICTIONS_PER_TURN):
            container = self._idle.longest()
            if container is None:
                self._sweep = None
                return
            due = container.idle_since + self._idle_s
            if due > begun:
                wait = max(due - begun, PAUSE_S)
                break
            self._evict(container, "idle")
            if self._time() - begun >= EVICTIONS_S:
                break
        self._sweep = self.services.timers.call_after(wait, self._evict_idle)

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
                container.cut_sockets()
            self._evict(container, "asked")

    def _evict(self, container: Container, why: Eviction) -> None:
        self.evictions[why] += 1
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
            container.close_sockets(code, reason)

    async def drain(self) -> None:
        """Begin no more alarms, and wait until every actor in memory is idle (bound it with a cancel scope)."""
        self.alarms.stop()
        for container in list(self.containers.values()):
            container.let_go()
        while busy := [held for held in self.containers.values() if held.cell is not None and not held.cell.idle]:
            for container in busy:
                while container.cell is not None and not container.cell.idle:
                    await self._idle_events.setdefault(container, trio.Event()).wait()

    def stop(self) -> None:
        """End every instance without an error, and begin no more alarms; what is sealed still commits."""
        self._stopped = True
        self.alarms.stop()
        for container in list(self.containers.values()):
            container.end()
