"""The facets of one actor: which there are, where each is stored, and what an instance does with them.

Where a facet is stored is decided at its first start, by a random token that the parent keeps under the facet's name.
So a facet is there, or deleted, exactly when the parent's batch that says so is durable; what is left of a deleted one
is unreachable from then on and removed afterwards. What a crash leaves in between is found when the actor's next
instance first asks for its facets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, ClassVar, Protocol, cast

import structlog

from runtime import ids, limits
from runtime.actor.actor import Actor, Names
from runtime.actor.breaking import copy_error
from runtime.actor.cell import Cell
from runtime.actor.context import Context
from runtime.actor.facets import Facets
from runtime.actor.input_gate import InputGate
from runtime.actor.services import Services
from runtime.errors import ActorError, Overloaded
from runtime.ids import ActorId
from runtime.namespace.call import Call
from runtime.namespace.container import FACET_KEYS, Below, Container
from runtime.namespace.facet_container import FacetContainer
from runtime.namespace.stub import AnyStub
from runtime.storage.duplicate import duplicate
from runtime.storage.erase import erase


class Server(Protocol):
    """What facets need from the router."""

    log: structlog.stdlib.BoundLogger
    services: Services
    env: Any

    def now_live(self, container: Container, /) -> None:
        """An instance comes into memory. Raises: Overloaded."""
        ...

    def now_ended(self, container: Container, /) -> None:
        """It is gone."""
        ...

    def now_failed(self, container: Container, error: Exception, /) -> None:
        """It is being destroyed."""
        ...


@lru_cache(maxsize=1_024)  # it reads the code of every method
def _names_of(actor_class: Any) -> Names:
    return Names.of(actor_class)


class FacetTable:
    """The facets of one actor that run, are being started, or could not be (`Below`, and their `Keeper`)."""

    def __init__(self, parent: Container, server: Server) -> None:
        self.log = server.log
        self.services = server.services
        self._names: dict[type[Actor[Any]], Names] = {}
        self.names: Mapping[type[Actor[Any]], Names] = self._names
        self.construct: Callable[[Cell], Actor[Any]] = self._construct
        self._parent = parent
        self._server = server
        self._facets: dict[str, FacetContainer] = {}
        self._of: ActorFacets | None = None
        self._left_over: deque[ActorId] = deque()
        self._erasing = False

    # The parent's side (`Below`).

    @property
    def empty(self) -> bool:
        """Nothing is left to keep."""
        return not self._facets and not self._left_over

    @property
    def files(self) -> int:
        """How many of those in memory have a database file open."""
        return sum(facet.files for facet in self._facets.values() if facet.cell is not None)

    def running(self, name: str | None = None) -> Iterator[Container]:
        """Those in memory, or only one, with those below them."""
        for facet in list(self._facets.values()):
            if name in {None, facet.name}:
                if facet.cell is not None:
                    yield facet
                if facet.below is not None:
                    yield from facet.below.running()

    def of(self, cell: Cell) -> Facets:
        """What an instance of the actor has as `ctx.facets`."""
        cell.check()
        if self._of is None or self._of.cell is not cell:
            self._of = ActorFacets(self, cell)
            self._find_left_over(cell)
        return self._of

    def clearing(self, cell: Cell) -> None:
        """An instance deletes everything that it has stored."""
        stored = [self.facet_id(name, token) for name, token in _tokens(cell).items()]
        cell.emit(partial(self._erase, stored))
        self.break_(_deleted())

    def evict(self) -> None:
        """Forget the idle instances: that of their parent is evicted."""
        self._of = None
        for facet in list(self._facets.values()):
            facet.evict()

    def break_(self, error: Exception) -> None:
        """Destroy the instances."""
        for facet in list(self._facets.values()):
            facet.stop(error)

    def let_go(self) -> None:
        """The server goes down: sockets keep nobody in memory any more."""
        for facet in list(self._facets.values()):
            facet.let_go()

    def end(self) -> None:
        """End the instances without an error."""
        for facet in list(self._facets.values()):
            facet.end()

    def close_sockets(self, code: int, reason: str) -> None:
        """Send every socket a close frame."""
        for facet in list(self._facets.values()):
            facet.close_sockets(code, reason)

    # One facet.

    def open(self, name: str) -> FacetContainer:
        """A facet's container, made when there is none.

        Raises:
            Overloaded: too many facets of this actor are in memory.
        """
        facet = self._facets.get(name)
        if facet is None:
            if len(self._facets) >= limits.FACETS_PER_ACTOR:
                raise Overloaded(
                    f"{len(self._facets):,} facets of {self._parent.id!r} are in memory; at most "
                    f"{limits.FACETS_PER_ACTOR:,} (limits.FACETS_PER_ACTOR): abort() those that are not needed"
                )
            facet = self._facets[name] = FacetContainer(name, self._parent, self.facet_id(name), self)
        return facet

    def stop(self, name: str, error: Exception) -> None:
        """Destroy an instance, if there is one."""
        facet = self._facets.get(name)
        if facet is not None:
            facet.stop(error)

    def delete(self, cell: Cell, name: str, error: Exception) -> None:
        """Destroy an instance, and the storage once that is durable."""
        key = _key(name)
        token = cell.storage.get_private(key)
        if token is not None:
            cell.storage.put_private(key, None)
            cell.emit(partial(self._erase, [self.facet_id(name, token)]))
        self.stop(name, error)

    async def clone(self, cell: Cell, source: str, target: str) -> None:
        """Copy a facet's storage over that of another one, and destroy the instance of that."""
        if source == target:
            self.stop(target, _cloned_over())
            return
        token = cell.storage.get_private(_key(source))
        if token is None:
            self.delete(cell, target, _cloned_over())
            return
        fresh = self.services.platform.token_bytes(ids.TOKEN_BYTES)
        address = self.facet_id(target, fresh)
        running = {facet.id: facet.actor_class.storage for facet in self.running(source)}
        try:
            await duplicate(self.facet_id(source, token), address, running, self.services.store, self.services.backends)
            cell.check()
        except BaseException:
            self._erase([address])
            raise
        self.delete(cell, target, _cloned_over())
        cell.storage.put_private(_key(target), fresh)

    def facet_id(self, name: str, token: bytes = bytes(ids.TOKEN_BYTES)) -> ActorId:
        """What a facet is called in messages and, with its token, stored under."""
        return ids.facet_address(self._parent.id, token, name)

    def address(self, name: str) -> ActorId:
        """Where a facet is stored; decided on, with the parent's turn, when it never was."""
        assert self._parent.cell is not None
        storage = self._parent.cell.storage
        token = storage.get_private(_key(name))
        if token is None:
            token = self.services.platform.token_bytes(ids.TOKEN_BYTES)
            storage.put_private(_key(name), token)
        return self.facet_id(name, token)

    # Their containers (`FacetKeeper`).

    def know(self, actor_class: type[Actor[Any]]) -> None:
        """A facet of this class is about to be constructed."""
        key: Any = actor_class  # a class is hashable
        self._names[actor_class] = _names_of(key)

    def _construct(self, cell: Cell) -> Actor[Any]:
        facet = cast("FacetContainer", cell.owner)
        return cell.actor_class(Context(cell, facet.shown_id), self._server.env)

    def facets_of(self, container: Container) -> Below:
        """The facets of a facet."""
        return FacetTable(container, self._server)

    def now_live(self, container: Container) -> None:
        """An instance comes into memory. Raises: Overloaded."""
        self._server.now_live(container)

    def now_idle(self, container: Container) -> None:
        """It goes when its parent goes."""

    def now_ended(self, container: Container) -> None:
        """Its cell was evicted or destroyed."""
        self._server.now_ended(container)
        self.now_gone(container)

    def now_failed(self, container: Container, error: Exception) -> None:
        """Its instance is being destroyed."""
        self._server.now_failed(container, error)

    def now_gone(self, container: Container) -> None:
        """Forget it when it has nothing left."""
        name = cast("FacetContainer", container).name
        if container.empty and self._facets.get(name) is container:
            del self._facets[name]
            if self.empty:
                self._parent.keeper.now_gone(self._parent)

    # What is left of deleted ones.

    def _find_left_over(self, cell: Cell) -> None:
        if cell.storage.lineage != self.services.store.lineage:
            return  # it was brought back to a bookmark: what it does not know of may be known again after another one
        tokens = set(_tokens(cell).values())
        below = self.services.store.list_below(self._parent.id)
        begin = len(self._parent.id.raw)
        self._erase(found for found in below if found.raw[begin : begin + ids.TOKEN_BYTES] not in tokens)

    def _erase(self, addresses: Iterable[ActorId]) -> None:
        self._left_over.extend(addresses)
        if self._left_over and not self._erasing:
            self._erasing = True
            self.services.workers.start_soon(self._erase_left_over)

    async def _erase_left_over(self) -> None:
        while self._left_over:
            address = self._left_over[0]
            try:
                await erase(address, self.services.store, self.services.backends)
            except Exception:  # the next instance finds it again
                self.log.exception("a deleted facet's storage was not removed", actor=repr(address))
            self._left_over.popleft()
        self._erasing = False
        self._parent.keeper.now_gone(self._parent)


class ActorFacets:
    """`ctx.facets` of one instance."""

    def __init__(self, table: FacetTable, cell: Cell) -> None:
        self.cell = cell
        self._table = table

    def get(self, name: str, start: Callable[[], Any]) -> Any:
        """A stub of a facet."""
        _check(name)
        if not callable(start):
            raise TypeError(f"facet {name!r} needs a function that says what to start; got {start!r:.60}")
        if self.cell.id.depth >= limits.FACET_DEPTH:
            raise ActorError(
                "Facet nesting depth limit exceeded. "
                f"The maximum depth including the root Durable Object is {limits.FACET_DEPTH}."
            )
        return FacetStub(self._table, self.cell, name, start)

    def abort(self, name: str, reason: Exception) -> None:
        """Destroy an instance."""
        _check(name)
        if not isinstance(cast("object", reason), Exception):
            raise TypeError(f"facet {name!r} is aborted with {reason!r:.60}; the reason is an exception")
        self.cell.check()
        self._table.stop(name, reason)

    def delete(self, name: str) -> None:
        """Destroy a facet with its storage."""
        _check(name)
        self.cell.check()
        self._table.delete(self.cell, name, _deleted())

    async def clone(self, src: str, dst: str) -> None:
        """Give a facet a copy of the storage of another one."""
        _check(src)
        _check(dst)
        self.cell.frame()
        await self._table.clone(self.cell, src, dst)


class FacetStub(AnyStub):
    """A handle of a facet."""

    __slots__ = ("_cell", "_gate", "_name", "_start", "_table")
    refused_as_value: ClassVar[str] = "Stubs pointing to Durable Object facets are not serializable."

    def __init__(self, table: FacetTable, cell: Cell, name: str, start: Callable[[], Any]) -> None:
        super().__init__(table, table.facet_id(name))
        self._table = table
        self._cell = cell
        self._name = name
        self._start = start
        self._gate: InputGate = cell.own_gate()

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, read: bool = False) -> Call:
        self._gate = self._cell.own_gate()  # a critical section that waits for the facet starts it, too
        return super()._call(name, args, kwargs, read=read)

    def _place(self) -> Container:
        broken = self._cell.broken or (None if self._incarnation is None else self._incarnation.error)
        if broken is not None:
            raise copy_error(broken)
        facet = self._table.open(self._name)
        self._incarnation = facet.begin(self._cell, self._gate, self._start)
        return facet


def _key(name: str) -> bytes:
    return FACET_KEYS + name.encode("utf-8", "surrogatepass")


def _tokens(cell: Cell) -> dict[str, bytes]:
    stored = cell.storage.list_private(FACET_KEYS)
    return {key.removeprefix(FACET_KEYS).decode("utf-8", "surrogatepass"): token for key, token in stored.items()}


def _check(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"a facet's name is text; got {name!r:.60}")
    if not name:
        raise TypeError("Facet name cannot be empty.")
    if len(name.encode("utf-8", "surrogatepass")) > limits.FACET_NAME_BYTES:
        raise TypeError(f"Facet name is too long (max {limits.FACET_NAME_BYTES} characters).")


def _deleted() -> ActorError:
    return ActorError("Facet was deleted.")


def _cloned_over() -> ActorError:
    return ActorError("Facet was cloned-over.")
