"""A stub: the handle through which one actor, or a route, calls another.

Making a stub sends nothing. Calling a method sends the call at that moment, so calls of one stub arrive in the order
they were made; awaiting gives the answer. A stub that was used while an instance was destroyed fails for ever with the
same error; eviction does not break it. (Durable Objects: stubs.)
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol

import outcome
import structlog

from runtime import codec
from runtime.actor.breaking import copy_error
from runtime.actor.cell import Incarnation
from runtime.actor.frame import Frame
from runtime.actor.input_gate import Job, Result
from runtime.errors import StorageFailed, UnknownMethod
from runtime.ids import ActorId
from runtime.namespace.call import Call, calling_frame
from runtime.namespace.container import Container
from runtime.namespace.references import carried, carry_arguments, remote_copy


class Calls(Protocol):
    """Where calls go: the router."""

    log: structlog.stdlib.BoundLogger

    def container(self, actor_id: ActorId) -> Container:
        """The container of an actor, made when there is none."""
        ...

    def callable_methods(self, container: Container) -> frozenset[str]:
        """Names that may be called on it."""
        ...

    def readable_properties(self, container: Container) -> frozenset[str]:
        """Names that may be read from it."""
        ...


class StubMethod:
    """One method of a stub."""

    __slots__ = ("_name", "_stub")

    def __init__(self, stub: Stub, name: str) -> None:
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


class Stub:
    """A handle of one actor."""

    __slots__ = ("_calls", "_id", "_incarnation")

    def __init__(self, calls: Calls, actor_id: ActorId) -> None:
        self._calls = calls
        self._id = actor_id
        self._incarnation: Incarnation | None = None

    @property
    def id(self) -> ActorId:
        """Whose stub this is."""
        return self._id

    @property
    def name(self) -> str | None:
        """The name it was made from."""
        return self._id.name

    def __repr__(self) -> str:
        return f"<stub of {self._id!r}>"

    def __getattr__(self, name: str) -> StubMethod:
        if name.startswith("_"):
            raise AttributeError(name)
        return StubMethod(self, name)

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, read: bool = False) -> Call:
        frame = calling_frame()
        lent = None
        if name != "fetch":  # a request carries a live socket, and is a frozen value otherwise: it passes as it is
            (args, kwargs), lent = carry_arguments(args, kwargs, frame, self._calls)
        call = Call(frame, f"{self._id!r}.{name}", self._calls.log, lent)
        answer = _fetched(call) if name == "fetch" else call._answer
        job = self._job(name, args, kwargs, answer, caller=frame, read=read)

        def send() -> None:
            try:
                self._broken()
                container = self._calls.container(self._id)
                container.reserve_call()
                self._deliver(container, job)
            except Exception as error:  # noqa: BLE001 -- of the runtime, or what destroyed the instance
                call._answer(outcome.Error(error))

        if frame is None:
            send()
        else:
            frame.cell.emit(send)
        return call

    def _notify(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._broken()
        frame = calling_frame()
        job = self._job(name, codec.copy(args), codec.copy(kwargs), None)
        container = self._calls.container(self._id)
        container.reserve_call()
        if frame is None:
            self._deliver(container, job)
        else:
            frame.cell.emit(lambda: self._deliver(container, job), lambda _: container.release_call())

    def _deliver(self, container: Container, job: Job) -> None:
        container.deliver(job)
        if container.cell is not None:
            self._incarnation = container.cell.incarnation

    def _broken(self) -> None:
        if self._incarnation is not None and self._incarnation.error is not None:
            raise copy_error(self._incarnation.error)

    def _job(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        done: Callable[[Result], None] | None,
        *,
        caller: Frame | None = None,
        read: bool = False,
    ) -> Job:
        calls, label = self._calls, f"{self._id!r}.{name}"

        async def run(actor: Any) -> Any:
            container = calls.container(self._id)
            callable_methods = calls.callable_methods(container)
            if name not in (calls.readable_properties(container) if read else callable_methods):
                raise UnknownMethod(
                    f'The RPC receiver does not implement the method "{name}". '
                    f"({container.actor_class.__name__} has {', '.join(sorted(callable_methods))})",
                    remote=True,
                )
            try:
                if read:
                    return codec.copy(getattr(actor, name))
                value = await getattr(actor, name)(*args, **kwargs)
                return value if name == "fetch" else carried(value, caller, calls)
            except Exception as error:  # noqa: BLE001 -- the caller gets it
                raise remote_copy(error, label) from None

        return Job(name, run, done, taken=lambda: calls.container(self._id).release_call(), caller=caller)


def _fetched(call: Call) -> Callable[[Result], None]:
    """Durable Objects: that a commit failed looks to `fetch` as if the target's own code had raised it."""

    def answer(result: Result) -> None:
        if isinstance(result, outcome.Error) and isinstance(result.error, StorageFailed):
            error = copy_error(result.error)
            error.remote = True  # type: ignore[attr-defined]
            result = outcome.Error(error)
        call._answer(result)

    return answer
