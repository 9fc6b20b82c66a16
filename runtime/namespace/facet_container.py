"""One facet of an actor: its start by code of the parent, its instance, and what it was ended with."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from runtime.actor.actor import Actor
from runtime.actor.breaking import Incarnation, copy_error
from runtime.actor.cell import Cell
from runtime.actor.facets import FacetStartupOptions
from runtime.actor.input_gate import InputGate, Job, Work
from runtime.actor.result import Error, Result
from runtime.errors import ActorError
from runtime.ids import ActorId, TextId
from runtime.namespace.container import Container, Keeper


class FacetKeeper(Keeper, Protocol):
    """What keeps facets: the table of their parent."""

    def address(self, name: str, /) -> ActorId:
        """Where a facet is stored; decided on, with the parent's turn, when it never was."""
        ...

    def know(self, actor_class: type[Actor[Any]], /) -> None:
        """A facet of this class is about to be constructed."""
        ...


class FacetContainer(Container):
    """One facet while it runs, is being started, or could not be.

    It keeps its parent in memory while it has anything to do, and while it has sockets: it takes code of the parent to
    start it, so nothing else may have to.

    Args:
        parent: whose it is.
        unstarted: its id until it is known where it is stored.
    """

    __slots__ = (
        "_failure",
        "_goes_down",
        "_holds",
        "_incarnation",
        "_parent",
        "_shown_id",
        "_startup",
        "_table",
        "name",
    )

    def __init__(self, name: str, parent: Container, unstarted: ActorId, table: FacetKeeper) -> None:
        super().__init__(unstarted, Actor, table)
        self.name = name
        self._parent = parent
        self._table = table
        self._shown_id = unstarted
        self._incarnation = Incarnation()
        self._startup: Job | None = None  # the event of the parent that says what to start
        self._failure: Exception | None = None  # of that event, until it is aborted or deleted
        self._goes_down = False
        self._holds: Cell | None = None  # the parent's instance, kept in memory

    @property
    def shown_id(self) -> ActorId:
        """Its `ctx.id`."""
        return self._shown_id

    @property
    def empty(self) -> bool:
        """Nothing is left to keep."""
        return self._startup is None and self._failure is None and super().empty

    # Its start.

    def begin(self, parent: Cell, gate: InputGate, start: Callable[[], Any]) -> Incarnation:
        """Start it unless it runs or is being started; says which of its lives this is.

        Args:
            gate: of the parent, where the start takes its turn.

        Raises:
            Exception: it could not be started, and nobody aborted or deleted it since.
        """
        if self._failure is not None:
            raise copy_error(self._failure)
        if self.cell is None and self._startup is None:
            self._incarnation = Incarnation()
            self._hold(parent)

            async def ask(_: Actor[Any]) -> FacetStartupOptions[Any] | None:
                options = start()
                options = self._checked(await options if inspect.isawaitable(options) else options)
                if self._startup is not job:
                    return None
                self.id = self._table.address(self.name)  # its write lets the answer wait until that is durable
                return options

            def asked(result: Result) -> None:
                self._started(job, result)

            self._startup = job = Job(f"start of facet {self.name!r}", ask, asked, logs=False)
            gate.enter(job)
        return self._incarnation

    def _checked(self, found: Any) -> FacetStartupOptions[Any]:
        options: FacetStartupOptions[Any] = (
            found if isinstance(found, FacetStartupOptions) else FacetStartupOptions(found)
        )
        actor_class: Any = options.actor_class
        if not isinstance(actor_class, type) or not issubclass(actor_class, Actor):
            raise TypeError(
                f"facet {self.name!r} is to start as {actor_class!r}; "
                "its start function returns an Actor class, or FacetStartupOptions of one"
            )
        if not isinstance(cast("object", options.id), ActorId | str | None):
            raise TypeError(f"facet {self.name!r} is to have the id {options.id!r}; it can be an ActorId or a text")
        if actor_class.storage not in self._table.services.backends:
            raise RuntimeError(
                f"facet {self.name!r} is to start as {actor_class.__name__}, a class with a database of its own; "
                "open_node was given no folder for these (objects=…)"
            )
        return options

    def _started(self, job: Job, result: Result) -> None:
        if self._startup is not job:
            return  # aborted or deleted meanwhile
        self._startup = None
        if isinstance(result, Error):
            self._failure = copy_error(result.error)
            self._refuse_waiting(self._failure)
            return
        options: FacetStartupOptions[Any] = result.value
        self.actor_class = options.actor_class
        self.has_file = self.actor_class.storage == "sql"
        if isinstance(options.id, ActorId):
            self._shown_id = options.id
        else:
            inherited = self._parent.shown_id
            self._shown_id = inherited if options.id is None else TextId.of(inherited.namespace, options.id)
        self._table.know(self.actor_class)
        waiting, self._waiting = self._waiting, None
        for event in waiting or ():
            self.deliver(event)
        self._release_if_idle()

    def _refuse_waiting(self, error: Exception) -> None:
        self._incarnation.error = self._incarnation.error or error
        waiting, self._waiting = self._waiting, None
        for job in waiting or ():
            job.take()
            job.done(Error(error))
        self._release_if_idle()

    # Its life.

    def deliver(self, job: Work) -> None:
        """Put an event into the mailbox, or behind its start."""
        if self._startup is not None:
            if self._waiting is None:
                self._waiting = deque()
            self._waiting.append(job)
            return
        if self._parent.cell is not None:
            self._hold(self._parent.cell)
        elif self.cell is None:
            job.take()
            job.done(Error(ActorError(f"{self.id!r} is gone with the instance of its parent")))
            return
        fresh = self.cell is None
        super().deliver(job)
        if fresh and self.cell is not None:
            self.cell.incarnation = self._incarnation

    def stop(self, error: Exception) -> None:
        """Destroy what runs, waits or failed of it; its storage stays."""
        self._startup = self._failure = None
        self._refuse_waiting(error)
        if self.cell is not None:
            self.cell.break_(error)
        self.keeper.now_gone(self)

    def evict(self) -> None:
        """Forget the idle instance, and that it could not be started: its parent is evicted."""
        self._failure = None
        if self.cell is not None:
            super().evict()
        self.keeper.now_gone(self)

    def let_go(self) -> None:
        """The server goes down: sockets keep nobody in memory any more."""
        super().let_go()
        self._goes_down = True
        self._release_if_idle()

    def cell_idle(self) -> None:
        """Nothing runs and nothing is pending."""
        self._release_if_idle()

    def cell_broken(self) -> None:
        """The instance was destroyed."""
        super().cell_broken()
        self._release_if_idle()

    def _hold(self, parent: Cell) -> None:
        if self._holds is None:
            self._holds = parent
            parent.busy(1)

    def _release_if_idle(self) -> None:
        busy = self._startup or self._waiting or (self.cell is not None and not self.cell.idle)
        has_sockets = self._sockets is not None and self._sockets.sockets and not self._goes_down
        if self._holds is not None and not busy and not has_sockets:
            parent, self._holds = self._holds, None
            parent.busy(-1)
