"""What an actor can do besides computing: storage, time, waits, sockets, and its own end (`ctx`)."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar

import structlog
import trio

from runtime import limits
from runtime.actor.breaking import Aborted
from runtime.actor.cell import Cell
from runtime.actor.due_timers import GateTimer
from runtime.actor.facets import Facets
from runtime.actor.input_gate import Job
from runtime.actor.response_stream import ResponseStream
from runtime.actor.result import DONE, Error, Result
from runtime.actor.sockets import Listener, WebSocket
from runtime.errors import ActorReset
from runtime.frames import PreparedMessage
from runtime.ids import ActorId
from runtime.storage.storage import Storage

if TYPE_CHECKING:
    from runtime.actor.actor import Actor

P = ParamSpec("P")
T = TypeVar("T")


class Spawned(Generic[T]):
    """Concurrent work of an actor; awaiting it gives its value or raises its error."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._result: Result | None = None
        self._wake: Callable[[Result], None] | None = None

    def __await__(self) -> Any:
        return self._join().__await__()

    async def _join(self) -> T:
        if self._result is None:
            await self._cell.wait(self._arm)
        assert self._result is not None
        value: T = self._result.unwrap()
        return value

    def _arm(self, wake: Callable[[Result], None]) -> Callable[[], None]:
        self._wake = wake
        return self._disarm

    def _disarm(self) -> None:
        self._wake = None

    def _done(self, result: Result) -> None:
        self._result = result
        if self._wake is not None:
            self._wake(DONE)
        elif isinstance(result, Error) and self._cell.broken is None:
            self._cell.services.log.error("concurrent work failed", actor=repr(self._cell.id), exc_info=result.error)


class ActorEvent:
    """An in-memory latch of one instance: `await wait()` lets the turn go until `set()`."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._set = False
        self._wakes: dict[Callable[[Result], None], None] = {}

    def is_set(self) -> bool:
        """It was set."""
        return self._set

    def set(self) -> None:
        """Wake everyone who waits, in the order they came."""
        self._set = True
        wakes, self._wakes = self._wakes, {}
        for wake in wakes:
            wake(DONE)

    async def wait(self) -> None:
        """Wait until it is set; lets the turn go even when it is set already."""
        await self._cell.wait(self._arm)

    def _arm(self, wake: Callable[[Result], None]) -> Callable[[], None] | None:
        if self._set:
            wake(DONE)
            return None
        self._wakes[wake] = None
        return lambda: self._wakes.pop(wake, None)


class Timeout:
    """A function that will be called later."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        """Do not call it. Harmless when it was called already."""
        self._cancel()


class Context:
    """The runtime as one instance of an actor sees it (Durable Objects: `DurableObjectState`)."""

    def __init__(self, cell: Cell, actor_id: ActorId | None = None) -> None:
        self._cell = cell
        self._id = cell.id if actor_id is None else actor_id

    @property
    def id(self) -> ActorId:
        """Who this actor is; `.name` is what it was reached by, if any. A facet's is its parent's, unless given one."""
        return self._id

    @property
    def storage(self) -> Storage:
        """Durable keys, values and the alarm."""
        return self._cell.storage

    @property
    def lineage(self) -> str:
        """A random text that changes with every restore, of this actor or of the whole data directory."""
        return self._cell.storage.lineage

    @property
    def random(self) -> random.Random:
        """For jitter; never for ids or secrets."""
        return self._cell.services.platform.random

    @property
    def log(self) -> structlog.stdlib.BoundLogger:
        """A structured log that names this actor."""
        return self._cell.services.log.bind(actor=repr(self._cell.id))

    def point(self, name: str) -> None:
        """Mark a branch that is rarely taken: a simulation counts them, and may end the process there.

        Elsewhere it does nothing.
        """
        self._cell.services.platform.point(name)

    def now(self) -> float:
        """Wall clock, seconds since the Unix epoch."""
        return self._cell.services.platform.now()

    def token(self, nbytes: int = 16) -> bytes:
        """Random bytes for ids and secrets."""
        return self._cell.services.platform.token_bytes(nbytes)

    # Waits: every one of these lets other events in, `checkpoint` does not.

    async def sleep(self, seconds: float) -> None:
        """Wait; other events run meanwhile."""
        cell = self._cell
        frame, timers = cell.frame(), cell.services.timers
        timer: GateTimer | None = None

        def arm(wake: Callable[[Result], None]) -> Callable[[], None]:
            nonlocal timer
            if frame.outside:
                return timers.call_after(seconds, lambda: wake(DONE)).cancel
            timer = GateTimer(frame.gate, timers, seconds, lambda: wake(DONE))
            return timer.cancel

        try:
            await cell.wait(arm)
        finally:
            if timer is not None:
                timer.ran()

    async def outside(self, fn: Callable[..., Awaitable[T]], /, *args: Any) -> T:
        """Run foreign async code (HTTP, other trio libraries) without the turn and return its value.

        It is an effect: it starts when everything written before is durable. It may not write to storage.
        """
        return await self._cell.outside(fn, *args)

    async def run_blocking(self, fn: Callable[..., T], /, *args: Any) -> T:
        """Run a blocking function off the loop, without the turn."""
        value: T = await self._cell.outside(self._cell.services.platform.run_blocking, fn, *args)
        return value

    async def checkpoint(self) -> None:
        """Let other tasks of the server run, and keep the turn: for long computations."""
        await trio.lowlevel.checkpoint()

    def event(self) -> ActorEvent:
        """A new in-memory latch."""
        return ActorEvent(self._cell)

    def start_soon(self, fn: Callable[..., Awaitable[T]], /, *args: Any) -> Spawned[T]:
        """Start concurrent work of this actor, queued behind the events that wait already; it takes turns."""
        spawned: Spawned[T] = Spawned(self._cell)
        self._cell.own_gate().enter(
            Job(getattr(fn, "__name__", "start_soon"), lambda _: fn(*args), spawned._done, gated=False)
        )
        return spawned

    def wait_until(self, awaitable: Awaitable[Any]) -> None:
        """Go on with this after the handler has answered; a failure is only logged."""

        async def background(_: Actor[Any]) -> None:
            await awaitable

        self._cell.own_gate().enter(Job("wait_until", background))

    def set_timeout(self, seconds: float, fn: Callable[..., Awaitable[Any]], /, *args: Any) -> Timeout:
        """Call an async function later, as an event of this actor. In memory only; pending ones keep it awake."""
        cell = self._cell
        cell.check()  # a handler's `finally` may come here when its instance is gone, and nobody would stop the timer
        gate = cell.own_gate()

        def enter() -> None:
            gate.enter(Job(getattr(fn, "__name__", "set_timeout"), lambda _: fn(*args), taken=timer.ran))
            cell.holdings.drop_timer(timer)

        def cancel() -> None:
            if cell.holdings.drop_timer(timer):
                timer.cancel()

        timer = GateTimer(gate, cell.services.timers, seconds, enter)
        cell.holdings.keep_timer(timer)
        return Timeout(cancel)

    # Calls.

    def notify(self, method: Callable[P, Awaitable[Any]], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a stub's method one way: in order with other calls, never waits, gives no answer; an error is logged.

        Raises:
            Overloaded: the target's mailbox is full; nothing was sent.
        """
        method.notify(*args, **kwargs)  # type: ignore[attr-defined]

    @property
    def facets(self) -> Facets:
        """Child actors with instances and storage of their own, which are part of this actor."""
        return self._cell.owner.facets(self._cell)

    # Critical sections and the end.

    def block_concurrency_while(self, fn: Callable[[], Awaitable[T]]) -> Awaitable[T]:
        """Run `fn` with every other event kept out; usable in the constructor, where it need not be awaited.

        It starts when the turn is let go, before any queued event, and may take 30 s. If it raises or takes longer,
        the instance is destroyed and the error cannot be caught. (Durable Objects: `blockConcurrencyWhile`.)
        """
        return self._cell.block(fn)

    def abort(
        self, reason: str = "Application called abort() to reset Durable Object.", *, retry_alarm: bool = True
    ) -> NoReturn:
        """Destroy this instance: its open batch is lost, calls in flight fail with the reason, sockets are cut.

        Args:
            reason: the message of the error that callers get.
            retry_alarm: in the alarm handler: try the alarm again on a new instance, or drop it.
        """
        self._cell.break_(ActorReset(reason, retry_alarm=retry_alarm))
        raise Aborted

    # Responses that are streamed.

    def response_stream(
        self,
        on_end: Callable[[], Awaitable[object]] | None = None,
        *,
        backlog_bytes: int | None = None,
        stall_s: float = limits.SOCKET_BACKLOG_S,
    ) -> ResponseStream:
        """The body of a response that this instance writes while the client reads: `Response(200, stream=...)`.

        It keeps the actor in memory until it has been read, and ends with the instance.

        Args:
            on_end: called, as an event of this actor, when its reader is done with it or gone.
            backlog_bytes: what may wait to be read when it is written with `push`; the class's `backlog_bytes` else.
            stall_s: for how long it may wait while nothing is read.
        """
        cell = self._cell

        def ended() -> None:
            if (tell := on_end) is not None:
                cell.gate.enter(Job("end of a response", lambda _: tell()))

        bound = self._actor_class().backlog_bytes if backlog_bytes is None else backlog_bytes
        return ResponseStream(cell, ended, bound, stall_s)

    # Sockets.

    def accept_web_socket(self, ws: WebSocket, tags: Sequence[str] = (), *, compress: bool = False) -> None:
        """Make a request's socket this actor's; it survives eviction. Answer the request with `Response(101)`.

        Args:
            compress: agree to compress messages (permessage-deflate) if the client offers it.

        Raises:
            RuntimeError: it is accepted already. LimitExceeded: over 32,768 sockets, 10 tags or 256 bytes.
        """
        actor = self._actor_class()
        self._cell.owner.sockets.accept(
            ws,
            tags,
            message_bytes=actor.message_bytes,
            backlog_bytes=actor.backlog_bytes,
            slow_code=actor.slow_code,
            compress=compress,
        )

    def accept_ordinary_web_socket(
        self,
        ws: WebSocket,
        on_message: Callable[[str | bytes], Awaitable[None]],
        on_close: Callable[[int, str, bool], Awaitable[None]],
    ) -> None:
        """Make a request's socket this instance's: it keeps the actor in memory, and ends with it.

        Its frames and its end are events for these functions instead of the handlers, each taking its turn; it has
        no tags and no attachment, is not listed, and a close frame is always answered. (Durable Objects: `accept()`.)

        Args:
            on_close: gets code, reason and whether it was clean, as `web_socket_close` does.

        Raises:
            RuntimeError: it is accepted already. LimitExceeded: over 32,768 sockets.
        """
        cell, actor = self._cell, self._actor_class()
        cell.owner.sockets.accept_ordinary(
            ws,
            Listener(on_message, on_close, lambda: cell.busy(-1)),
            message_bytes=actor.message_bytes,
            backlog_bytes=actor.backlog_bytes,
            slow_code=actor.slow_code,
        )
        cell.busy(1)

    def get_web_sockets(self, tag: str | None = None) -> list[WebSocket]:
        """All sockets, newest first; with a tag, those that have it, oldest first."""
        return self._cell.owner.sockets.list(tag)

    def get_tags(self, ws: WebSocket) -> Sequence[str]:
        """The tags a socket was accepted with."""
        return ws.tags

    def broadcast(self, message: str | bytes | PreparedMessage, tag: str | None = None) -> None:
        """Send one message to all sockets (with a tag), encoded once."""
        prepared = message if isinstance(message, PreparedMessage) else PreparedMessage.of(message)
        self.send_all(self.get_web_sockets(tag), prepared)

    def send_all(self, sockets: Iterable[WebSocket], message: PreparedMessage) -> None:
        """Send one encoded message to many sockets, as one effect; sockets that are closing are passed over.

        For sockets that are sent to again and again, `Recipients` are faster.
        """
        table = self._cell.owner.sockets
        if self._cell.output.open:
            self._cell.check()
            table.push_all(sockets, message)
        else:
            members = list(sockets)
            self._cell.emit(lambda: table.push_all(members, message))

    def set_web_socket_auto_response(self, request: str | None = None, response: str | None = None) -> None:
        """Answer this exact text message with that one, without waking the actor; with None, no longer.

        Raises:
            LimitExceeded: a text over 2,048 bytes.
        """
        self._cell.owner.sockets.set_auto_response(request, response)

    def set_hibernatable_web_socket_event_timeout(self, seconds: float | None = None) -> None:
        """Cut off socket handlers that run longer than this (0 to 604,800 s); with None, no longer.

        A handler that is cut off fails for itself: the socket stays open and the instance lives on. Survives eviction.
        (Durable Objects: `setHibernatableWebSocketEventTimeout`, in milliseconds.)

        Raises:
            LimitExceeded: over a week. ValueError: negative.
        """
        self._cell.owner.sockets.set_event_timeout(seconds)

    def get_hibernatable_web_socket_event_timeout(self) -> float | None:
        """The seconds that are set."""
        return self._cell.owner.sockets.event_timeout_s

    def get_web_socket_auto_response(self) -> tuple[str, str] | None:
        """The pair that is set."""
        table = self._cell.owner.sockets
        return None if table.auto_request is None else (table.auto_request, table.auto_response_text or "")

    def _actor_class(self) -> type[Actor[Any]]:
        return self._cell.actor_class
