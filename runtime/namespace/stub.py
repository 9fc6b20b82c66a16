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
from runtime.actor.cell import Incarnation, copy_error, plain_wait
from runtime.actor.frame import Frame, current_frame
from runtime.actor.input_gate import Arrival, Job, Result
from runtime.errors import ActorError, UnknownMethod
from runtime.ids import ActorId
from runtime.namespace.container import Container


class Calls(Protocol):
    """Where calls go: the router."""

    log: structlog.stdlib.BoundLogger

    def container(self, actor_id: ActorId) -> Container:
        """The container of an actor, made when there is none."""
        ...

    def callable_methods(self, container: Container) -> frozenset[str]:
        """Names that may be called on it."""
        ...


class Call:
    """A call that was sent; awaiting it gives the answer."""

    __slots__ = ("_abandoned", "_arrival", "_frame", "_label", "_log", "_result", "_wake")

    def __init__(self, frame: Frame | None, label: str, log: structlog.stdlib.BoundLogger) -> None:
        self._frame = frame
        self._label = label
        self._log = log
        self._result: Result | None = None
        self._wake: Callable[[Result], None] | None = None
        self._arrival: Arrival | None = None
        self._abandoned = False
        if frame is not None:
            frame.calls[self] = None
            frame.cell.busy(1)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        if self._frame is not None:
            self._frame.calls.pop(self, None)
        frame = current_frame.get()
        if self._result is None:
            await (plain_wait(self._arm) if frame is None else frame.cell.wait(self._arm))
        elif self._arrival is not None and frame is not None:
            await frame.cell.wait_for(self._arrival)
        assert self._result is not None
        return self._result.unwrap()

    def abandon(self) -> None:
        """The handler that made it has ended without awaiting it: an error is only logged."""
        self._abandoned = True
        self._log_error()

    def answer(self, result: Result) -> None:
        """The answer has left the callee."""
        if self._result is not None:
            return
        if isinstance(result, outcome.Error):
            result = outcome.Error(copy_error(result.error))
        self._result = result
        if self._wake is not None:
            self._wake(outcome.Value(None))
        elif self._abandoned:
            self._log_error()
        elif self._frame is not None and self._frame.cell.gate.held:
            self._arrival = Arrival(self._frame.gate)
            self._frame.gate.enter(self._arrival)
        if self._frame is not None:
            self._frame.cell.busy(-1)

    def _arm(self, wake: Callable[[Result], None]) -> Callable[[], None]:
        if self._wake is not None:
            raise RuntimeError("this call is being awaited already; await it in one place")
        self._wake = wake
        return self._disarm

    def _disarm(self) -> None:
        self._wake = None

    def _log_error(self) -> None:
        if isinstance(self._result, outcome.Error):
            self._log.error("a call that nobody awaited failed", call=self._label, exc_info=self._result.error)


class StubMethod:
    """One method of a stub."""

    __slots__ = ("_name", "_stub")

    def __init__(self, stub: Stub, name: str) -> None:
        self._stub = stub
        self._name = name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Call:
        """Send the call now; await what is returned for the answer."""
        return self._stub._call(self._name, args, kwargs)

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

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        frame = _calling_frame()
        call = Call(frame, f"{self._id!r}.{name}", self._calls.log)
        try:
            job = self._job(name, args, kwargs, call.answer)
        except Exception:
            call.answer(outcome.Value(None))
            raise

        def send() -> None:
            try:
                self._broken()
                container = self._calls.container(self._id)
                container.reserve_call()
                self._deliver(container, job)
            except ActorError as error:
                call.answer(outcome.Error(error))

        if frame is None:
            send()
        else:
            frame.cell.emit(send)
        return call

    def _notify(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._broken()
        frame = _calling_frame()
        job = self._job(name, args, kwargs, None)
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
    ) -> Job:
        # A request carries a live socket, and is a frozen value otherwise: it passes as it is.
        by_reference = name == "fetch"
        if not by_reference:
            args, kwargs = codec.copy(args), {key: codec.copy(value) for key, value in kwargs.items()}
        calls, label = self._calls, f"{self._id!r}.{name}"

        async def run(actor: Any) -> Any:
            if name not in calls.callable_methods(container := calls.container(self._id)):
                raise UnknownMethod(
                    f'The RPC receiver does not implement the method "{name}". '
                    f"({container.actor_class.__name__} has {', '.join(sorted(calls.callable_methods(container)))})",
                    remote=True,
                )
            try:
                value = await getattr(actor, name)(*args, **kwargs)
                return value if by_reference else codec.copy(value)
            except Exception as error:  # noqa: BLE001 -- the caller gets it
                raise remote_copy(error, label) from None

        return Job(name, run, done, taken=lambda: calls.container(self._id).release_call())


def remote_copy(error: Exception, label: str) -> Exception:
    """The error as its caller gets it: a copy that says where it was raised."""
    copy = copy_error(error)
    copy.__cause__ = None
    if not getattr(copy, "remote", False):
        copy.remote = True  # type: ignore[attr-defined]
        copy.add_note(f"in {label}")
    return copy


def _calling_frame() -> Frame | None:
    frame = current_frame.get()
    if frame is not None and not frame.outside:
        frame.check_task()
    return frame
