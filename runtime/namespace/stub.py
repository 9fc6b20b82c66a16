"""A stub: the handle through which one actor, or a route, calls another.

Making a stub sends nothing. Calling a method sends the call at that moment, so calls of one stub arrive in the order
they were made; awaiting gives the answer. A stub that was used while an instance was destroyed fails for ever with the
same error; eviction does not break it. (Durable Objects: stubs.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, Protocol

import attrs
import structlog

from runtime import codec
from runtime.actor.actor import HANDLERS, Actor, Names
from runtime.actor.breaking import Incarnation, copy_error
from runtime.actor.http import Response
from runtime.actor.response_stream import ResponseStream, stream_chunks
from runtime.actor.result import Error, Result
from runtime.actor.services import Services
from runtime.call_size import SMALL, check_call_size
from runtime.errors import StorageFailed, UnknownMethod
from runtime.ids import ActorId
from runtime.namespace.call import Call, calling_frame
from runtime.namespace.call_job import CallJob
from runtime.namespace.container import Container
from runtime.namespace.references import carried, carry_arguments, check_arguments


class Calls(Protocol):
    """Where calls go: the router."""

    log: structlog.stdlib.BoundLogger
    services: Services
    names: Mapping[type[Actor[Any]], Names]


class Containers(Calls, Protocol):
    """The router."""

    def container(self, actor_id: ActorId, /) -> Container:
        """The container of an actor, made when there is none."""
        ...


class StubMethod:
    """One method of a stub."""

    __slots__ = ("_name", "_stub")

    def __init__(self, stub: AnyStub, name: str) -> None:
        self._stub = stub
        self._name = name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Call:
        """Send the call now; await what is returned for the answer."""
        return self._stub._call(self._name, args, kwargs)

    def __await__(self) -> Generator[Any, Any, Any]:
        """Read the property of this name."""
        return self._stub._call(self._name, (), {}, read=True).__await__()

    def notify(self, /, *args: Any, **kwargs: Any) -> None:
        """Send it one way.

        Raises:
            Overloaded: the target's mailbox is full.
        """
        self._stub._notify(self._name, args, kwargs)


class AnyStub:
    """A handle of an actor or of a facet.

    Args:
        calls: where calls go.
        label: whose it is, for messages.
    """

    __slots__ = ("_calls", "_incarnation", "_label")

    def __init__(self, calls: Calls, label: object) -> None:
        self._calls = calls
        self._label = label
        self._incarnation: Incarnation | None = None

    def __repr__(self) -> str:
        return f"<stub of {self._label!r}>"

    def __getattr__(self, name: str) -> StubMethod:
        if name.startswith("_"):
            raise AttributeError(name)
        return StubMethod(self, name)

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, read: bool = False) -> Call:
        frame = calling_frame()
        calls = self._calls
        lent = None
        if name == "fetch":  # a request carries a live socket, and is a frozen value otherwise: it passes as it is
            kind: type[_StubCall] = _Fetch
        else:
            kind = _Read if read else _StubCall
            try:
                args = codec.copy(args)
                if kwargs:
                    kwargs = codec.copy(kwargs)
            except TypeError:
                (args, kwargs), lent = carry_arguments(args, kwargs, frame, calls)
            for arg in args:
                if arg.__class__ not in SMALL:
                    check_arguments(args, kwargs, lent)
                    break
            else:
                if kwargs:
                    check_arguments(args, kwargs, lent)
        call = Call(frame, self._label, name, calls, lent)
        if self._incarnation is not None and self._incarnation.error is not None:
            call._answer(Error(self._incarnation.error), sent=False)
            return call
        job = kind(self, name, args, kwargs, call)
        if frame is None:
            job.send()
        else:
            frame.cell.emit(job.send)
        return call

    def _notify(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        frame = calling_frame()
        args = codec.copy(args)
        if kwargs:
            kwargs = codec.copy(kwargs)
        for arg in args:
            if arg.__class__ not in SMALL:
                check_arguments(args, kwargs)
                break
        else:
            if kwargs:
                check_arguments(args, kwargs)
        place = self._place()
        place.reserve_call()
        job = _StubCall(self, name, args, kwargs, None)
        job._place = place
        if frame is None:
            job.deliver()
            return
        try:
            frame.cell.emit(job.deliver, job.dropped)
        except BaseException:
            job.take()
            raise

    def _place(self) -> Container:
        """Where its calls go.

        Raises:
            Exception: what destroyed the instance that was called before.
        """
        raise NotImplementedError


class Stub(AnyStub):
    """A handle of one actor."""

    __slots__ = ("_container", "_id", "_router")

    def __init__(self, router: Containers, actor_id: ActorId) -> None:
        super().__init__(router, actor_id)
        self._router = router
        self._id = actor_id
        self._container: Container | None = None

    @property
    def id(self) -> ActorId:
        """Whose stub this is."""
        return self._id

    @property
    def name(self) -> str | None:
        """The name it was made from."""
        return self._id.name

    def _place(self) -> Container:
        if self._incarnation is not None and self._incarnation.error is not None:
            raise copy_error(self._incarnation.error)
        place = self._container
        if place is None or place.forgotten:
            place = self._container = self._router.container(self._id)
        return place


class _StubCall(CallJob):
    """A call of an actor's method."""

    __slots__ = ("_stub",)

    def __init__(
        self, stub: AnyStub, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], call: Call | None
    ) -> None:
        super().__init__(name, args, kwargs, call)
        self._stub = stub

    @property
    def where(self) -> str:
        return f"{self._stub._label!r}.{self._name}"

    def send(self) -> None:
        """Reserve a place and take it."""
        try:
            place = self._stub._place()
            place.reserve_call()
            self._place = place
            self.deliver()
        except Exception as error:  # noqa: BLE001 -- of the runtime, or what destroyed the instance
            self.done(Error(error))

    def deliver(self) -> None:
        """Take the place that is reserved."""
        place = self._place
        assert place is not None
        place.deliver(self)
        if place.cell is not None:
            self._stub._incarnation = place.cell.incarnation

    def dropped(self, error: Exception) -> None:
        self.take()
        super().dropped(error)

    def never_waits(self, actor: Actor[Any]) -> bool:
        function = self._stub._calls.names[type(actor)].at_once.get(self._name)
        return function is not None and getattr(getattr(actor, self._name), "__func__", None) is function

    def run(self, actor: Actor[Any]) -> Awaitable[Any]:
        self.check_caller()
        name = self._name
        if name not in self._stub._calls.names[type(actor)].methods:
            raise self._unknown(actor)
        method: Callable[..., Awaitable[Any]] = getattr(actor, name)
        return method(*self._args, **self._kwargs)

    def _unknown(self, actor: Actor[Any]) -> UnknownMethod:
        if self._name in HANDLERS:
            text = f"'{self._name}' is a reserved method and cannot be called over RPC."
            return UnknownMethod(text, remote=True)
        known = ", ".join(sorted(self._stub._calls.names[type(actor)].methods))
        return UnknownMethod(
            f'The RPC receiver does not implement the method "{self._name}". ({type(actor).__name__} has {known})',
            remote=True,
        )

    def carry(self, value: Any) -> Any:
        try:
            copied = codec.copy(value)
        except TypeError:
            return carried(value, self.caller, self._stub._calls)
        if copied.__class__ not in SMALL:
            check_call_size(copied)
        return copied


class _Read(_StubCall):
    """A read of an actor's property."""

    __slots__ = ()

    def never_waits(self, actor: Actor[Any]) -> bool:
        return False

    async def run(self, actor: Actor[Any]) -> Any:
        self.check_caller()
        if self._name not in self._stub._calls.names[type(actor)].properties:
            raise self._unknown(actor)
        return getattr(actor, self._name)


class _Fetch(_StubCall):
    """A request."""

    __slots__ = ()

    def carry(self, value: Any) -> Any:
        if isinstance(value, Response) and value.stream is not None:
            chunks = value.stream
            stream = chunks if isinstance(chunks, ResponseStream) else stream_chunks(self.gate.cell, chunks)
            stream.lend()
            return attrs.evolve(value, stream=stream)
        return value

    def done(self, result: Result) -> None:
        if isinstance(result, Error) and _destroyed(result.error):
            # Durable Objects: what destroyed the instance looks to `fetch` as if the target's own code had raised it.
            error = copy_error(result.error)
            error.remote = True  # type: ignore[attr-defined]
            result = Error(error)
        super().done(result)


def _destroyed(error: BaseException) -> bool:
    return isinstance(error, StorageFailed) or getattr(error, "durable_object_reset", False)
