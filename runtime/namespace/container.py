"""What a server keeps of one actor, live or hibernating: its sockets and, while it is in memory, its cell."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from runtime import limits
from runtime.actor.actor import Actor
from runtime.actor.cell import Cell
from runtime.actor.facets import Facets
from runtime.actor.input_gate import Work
from runtime.actor.result import Error
from runtime.actor.services import Services
from runtime.actor.socket_table import SocketTable
from runtime.errors import Overloaded
from runtime.ids import ActorId

FACET_KEYS = b"f"
"""What the runtime's own keys begin with under which an actor keeps where its facets are: then comes the name."""


class Keeper(Protocol):
    """What keeps containers: the router."""

    services: Services

    def facets_of(self, container: Container, /) -> Below:
        """Nobody yet: the facets of a container that had none."""
        ...

    def construct(self, cell: Cell, /) -> Actor[Any]:
        """Make the instance of a cell."""
        ...

    def now_live(self, container: Container) -> None:
        """A container has a cell; may evict others, or refuse.

        Raises:
            Overloaded: too many actors are busy in memory.
        """
        ...

    def now_idle(self, container: Container) -> None:
        """Its cell has nothing to do."""
        ...

    def now_ended(self, container: Container) -> None:
        """Its cell was evicted or destroyed."""
        ...

    def now_failed(self, container: Container, error: Exception) -> None:
        """Its cell is being destroyed."""
        ...

    def now_gone(self, container: Container) -> None:
        """It may have nothing left to keep."""
        ...


class Below(Protocol):
    """The facets of an actor, which are part of it."""

    @property
    def empty(self) -> bool:
        """Nothing is left to keep."""
        ...

    @property
    def files(self) -> int:
        """How many of those in memory have a database file open."""
        ...

    def running(self) -> Iterator[Container]:
        """Those in memory, and those below them."""
        ...

    def of(self, cell: Cell, /) -> Facets:
        """What an instance of the actor has as `ctx.facets`."""
        ...

    def clearing(self, cell: Cell, /) -> None:
        """An instance deletes everything that it has stored."""
        ...

    def evict(self) -> None:
        """Forget the idle instances: that of their parent is evicted."""
        ...

    def break_(self, error: Exception, /) -> None:
        """Destroy the instances: that of their parent was destroyed."""
        ...

    def let_go(self) -> None:
        """The server goes down: sockets keep nobody in memory any more."""
        ...

    def end(self) -> None:
        """End the instances without an error."""
        ...

    def close_sockets(self, code: int, reason: str, /) -> None:
        """Send every socket a close frame."""
        ...


class Container:
    """One actor of this server.

    At most one instance is alive: after a broken one, events wait until its sealed batches have ended.
    """

    __slots__ = (
        "_settling",
        "_sockets",
        "_waiting",
        "actor_class",
        "below",
        "calls",
        "cell",
        "forgotten",
        "has_file",
        "id",
        "idle_since",
        "keeper",
        "last_event",
        "listed",
        "restarts",
    )

    def __init__(self, actor_id: ActorId, actor_class: type[Actor[Any]], keeper: Keeper) -> None:
        self.id = actor_id
        self.actor_class = actor_class
        self.cell: Cell | None = None
        self.calls = 0
        self.idle_since = 0.0  # on the trio clock, while `cell` is idle
        self.listed = 0  # the idle orders that have an entry of it, as bits
        self.restarts = 0
        self.last_event: str | None = None  # that came
        self.forgotten = False  # by its keeper, which would make another one
        self.has_file = actor_class.storage == "sql"  # its storage is a database file of its own
        self.keeper = keeper
        self.below: Below | None = None
        self._settling: Cell | None = None
        self._sockets: SocketTable | None = None
        self._waiting: deque[Work] | None = None

    @property
    def sockets(self) -> SocketTable:
        """Its sockets; most actors never have any."""
        if self._sockets is None:
            self._sockets = SocketTable(
                deliver=self.deliver,
                receive=self._receive,
                rest=self.keeper.services.workers.rest,
                emit=self._emit,
                emit_aside=self._emit_aside,
                timers=self.keeper.services.timers,
                attachment_bytes=self.actor_class.attachment_bytes,
                auto_close_reply=self.actor_class.auto_close_reply,
            )
        return self._sockets

    @property
    def socket_count(self) -> int:
        """How many sockets it has."""
        return 0 if self._sockets is None else len(self._sockets.sockets)

    @property
    def empty(self) -> bool:
        """Nothing is left to keep."""
        return (
            self.cell is None
            and self._settling is None
            and not self._waiting
            and not self.calls
            and (self._sockets is None or not self._sockets.sockets)
            and (self.below is None or self.below.empty)
        )

    @property
    def shown_id(self) -> ActorId:
        """Its `ctx.id`."""
        return self.id

    @property
    def files(self) -> int:
        """How many database files its instance and its facets' have open."""
        return self.has_file + (0 if self.below is None else self.below.files)

    def deliver(self, job: Work) -> None:
        """Put an event into the mailbox, constructing the actor when it is not in memory.

        When too many actors are busy in memory the event ends with `Overloaded`.
        """
        self.last_event = job.label
        cell = self.cell
        if cell is not None:
            cell.deliver(job)
        elif self._settling is not None:
            if self._waiting is None:
                self._waiting = deque()
            self.keeper.services.platform.point("an event waits for the batches of an instance that ended")
            self._waiting.append(job)
        else:
            if self._sockets is not None and self._sockets.sockets:
                self.keeper.services.platform.point("an actor with sockets comes back into memory")
            try:
                self.keeper.now_live(self)
            except Overloaded as error:
                job.take()
                job.done(Error(error))
                return
            self.cell = Cell(self.id, self.actor_class, self.keeper.construct, self, self.keeper.services)
            self.cell.deliver(job)

    def reserve_call(self) -> None:
        """Take a place in the mailbox for a call, until it begins or is dropped (`calls` is how many are taken).

        Raises:
            Overloaded: there is none.
        """
        if self.calls >= limits.MAILBOX_EVENTS:
            self.keeper.services.platform.point("a mailbox is full")
            raise Overloaded(
                f"Durable Object is overloaded. Too many requests queued. ({self.calls:,} calls wait for {self.id!r}; "
                f"at most {limits.MAILBOX_EVENTS:,})"
            )
        self.calls += 1

    def evict(self) -> None:
        """Forget the idle instance."""
        cell, self.cell = self.cell, None
        assert cell is not None
        assert cell.idle
        if self.below is not None:
            self.below.evict()
        cell.end()
        if self._sockets is not None:
            self._sockets.cut_unanswered()
        self.keeper.now_ended(self)

    def let_go(self) -> None:
        """The server goes down: sockets of its facets do not keep it in memory any more."""
        if self.below is not None:
            self.below.let_go()

    def end(self) -> None:
        """The server stops: end the instance without an error."""
        if self.below is not None:
            self.below.end()
        if self.cell is not None:
            self.cell.end()

    # The cell's side (`Owner`).

    def cell_idle(self) -> None:
        """Nothing runs and nothing is pending."""
        self.keeper.now_idle(self)

    def cell_broken(self) -> None:
        """The instance was destroyed."""
        self._settling, self.cell = self.cell, None
        self.restarts += 1
        assert self._settling is not None
        error = self._settling.broken
        assert error is not None
        self.keeper.now_failed(self, error)
        if self.below is not None:
            self.below.break_(error)
        self.keeper.now_ended(self)

    def cell_settled(self) -> None:
        """The destroyed instance's sealed batches have ended: the next one may be constructed."""
        self._settling = None
        waiting, self._waiting = self._waiting, None
        for job in waiting or ():
            self.deliver(job)
        self.keeper.now_gone(self)

    def facets(self, cell: Cell) -> Facets:
        """What `ctx.facets` is for an instance."""
        if self.below is None:
            self.below = self.keeper.facets_of(self)
        return self.below.of(cell)

    def clearing(self, cell: Cell) -> None:
        """An instance deletes everything that it has stored, its facets too."""
        if self.below is None and cell.storage.list_private(FACET_KEYS):
            self.below = self.keeper.facets_of(self)
        if self.below is not None:
            self.below.clearing(cell)

    def cut_sockets(self) -> None:
        """Drop every connection."""
        if self._sockets is not None:
            self._sockets.cut_all()

    def close_sockets(self, code: int, reason: str) -> None:
        """Send every socket a close frame."""
        if self._sockets is not None:
            self._sockets.close_all(code, reason)
        if self.below is not None:
            self.below.close_sockets(code, reason)

    def _receive(self, job: Work) -> None:
        self.keeper.services.workers.attend(self.deliver, job)

    def _emit(self, effect: Callable[[], None]) -> None:
        if self.cell is None:
            effect()
        else:
            self.cell.emit(effect)

    def _emit_aside(self, effect: Callable[[], None]) -> None:
        if self.cell is None:
            effect()
        else:
            self.cell.output.emit_aside(effect)
