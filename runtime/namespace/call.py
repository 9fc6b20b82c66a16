"""A call that was sent: its answer, and calls on its result that need not wait for it.

Awaiting gives the answer. A method of a call that has no answer yet is sent on to the result as soon as it is there,
in order, so that `await stub.open(x).read()` waits once. (Durable Objects: promise pipelining.)
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol

import attrs
import structlog
import trio

from runtime import codec
from runtime.actor.breaking import copy_error
from runtime.actor.frame import Frame, Held, current_frame, release_all
from runtime.actor.input_gate import Arrival
from runtime.actor.result import DONE, Error, Result, Value
from runtime.actor.services import Services
from runtime.call_size import check_call_size


@attrs.frozen
class Carried:
    """A result with what was passed by reference in it."""

    value: Any
    references: list[Held]


class Target(Protocol):
    """A result that can be called."""

    def _invoke(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], call: Call) -> None: ...


class Reachable(Protocol):
    """What a call needs from the router."""

    log: structlog.stdlib.BoundLogger
    services: Services


class Call:
    """A call that was sent; awaiting it gives the answer.

    Args:
        frame: the handler that makes it, None outside of actors.
        target, name: what is called; for messages.
        lent: what the arguments pass by reference: until the answer.
    """

    __slots__ = (
        "_abandoned",
        "_arrival",
        "_calls",
        "_followers",
        "_frame",
        "_lent",
        "_name",
        "_result",
        "_target",
        "_task",
        "_wake",
    )

    def __init__(
        self, frame: Frame | None, target: object, name: str, calls: Reachable, lent: list[Held] | None = None
    ) -> None:
        self._frame = frame
        self._target = target
        self._name = name
        self._calls = calls
        self._lent = lent
        self._result: Result | None = None
        self._task: trio.lowlevel.Task | None = None  # of nobody's, waiting for the answer
        self._wake: Callable[[Result], None] | None = None
        self._arrival: Arrival | None = None
        self._abandoned = False
        self._followers: list[Callable[[Result], None]] | None = None
        if frame is not None:
            if frame.calls is None:
                frame.calls = {}
            frame.calls[self] = None
            frame.cell.busy(1)

    @property
    def _label(self) -> str:
        target = self._target._label if isinstance(self._target, Call) else repr(self._target)
        return f"{target}.{self._name}" if self._name else target

    def __await__(self) -> Generator[Any, Any, Any]:
        if self._frame is not None and self._frame.calls is not None:
            self._frame.calls.pop(self, None)
        frame = current_frame.get()
        if frame is not None and self._result is None and not frame.outside:
            frame.cell.seal()  # the wait would; it may send the very call, and that may be refused at once
        if self._result is None:
            if frame is not None:
                yield from frame.cell.wait(self._arm).__await__()
            elif not self._answered_at_once():
                self._check_unawaited()
                self._task = trio.lowlevel.current_task()
                wait = trio.lowlevel.wait_task_rescheduled(self._stop)  # noqa: ASYNC105 -- this is a generator
                yield from wait.__await__()
        elif self._arrival is not None and frame is not None:
            yield from frame.cell.wait_for(self._arrival).__await__()
        assert self._result is not None
        return self._result.unwrap()

    def __getattr__(self, name: str) -> Callable[..., Call]:
        if name.startswith("_"):
            raise AttributeError(name)

        def pipelined(*args: Any, **kwargs: Any) -> Call:
            return self._pipeline(name, args, kwargs)

        return pipelined

    def _abandon(self) -> None:
        # The handler that made it has ended without awaiting it: an error is only logged.
        self._abandoned = True
        self._log_error()

    def _answer(self, result: Result, *, sent: bool = True) -> None:
        # The answer has left the callee; what was not sent has none to wait for.
        if self._result is not None:
            return
        if isinstance(result, Error):
            result = Error(copy_error(result.error))
        elif result.value.__class__ is Carried:
            result = Value(self._take_over(result.value))
        self._result = result
        if self._followers is not None:
            followers, self._followers = self._followers, None
            for follower in followers:
                follower(result)
        if self._lent is not None:
            release_all(self._lent)
        frame = self._frame
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)
        elif self._wake is not None:
            self._wake(DONE)
        elif self._abandoned:
            self._log_error()
        elif sent and frame is not None and frame.cell.gate.held:
            self._arrival = Arrival(frame.gate)
            frame.gate.enter(self._arrival)
        if frame is not None:
            frame.cell.busy(-1)

    def _take_over(self, carried: Carried) -> Any:
        # References in an answer live as long as the event that made the call.
        assert self._frame is not None
        if self._abandoned or self._frame.cell.broken is not None:
            release_all(carried.references)
        else:
            self._frame.references = [*(self._frame.references or ()), *carried.references]
        return carried.value

    def _pipeline(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        frame = calling_frame()
        args, kwargs = codec.copy(args), codec.copy(kwargs)
        check_call_size((args, kwargs))
        call = Call(frame, self, name, self._calls)

        def follow(result: Result) -> None:
            if not isinstance(result, Value):
                call._answer(result)
            elif hasattr(type(result.value), "_invoke"):
                target: Target = result.value
                target._invoke(name, args, kwargs, call)
            else:
                call._answer(Error(TypeError(f"the result of {self._label} is a value; it cannot be called")))

        def send() -> None:
            if self._result is not None:
                follow(self._result)
            elif self._followers is None:
                self._followers = [follow]
            else:
                self._followers.append(follow)

        if frame is None:
            send()
        else:
            frame.cell.emit(send)
        return call

    def _arm(self, wake: Callable[[Result], None]) -> Callable[[], None]:
        self._check_unawaited()
        self._wake = wake
        return self._disarm

    def _disarm(self) -> None:
        self._wake = None

    def _stop(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _answered_at_once(self) -> bool:
        while self._result is None and self._calls.services.workers.run_at_once():
            pass
        return self._result is not None

    def _check_unawaited(self) -> None:
        if self._wake is not None or self._task is not None:
            raise RuntimeError("this call is being awaited already; await it in one place")

    def _log_error(self) -> None:
        if isinstance(self._result, Error):
            self._calls.log.error("a call that nobody awaited failed", call=self._label, exc_info=self._result.error)


def calling_frame() -> Frame | None:
    """The handler that makes a call, None outside of actors.

    Raises:
        RuntimeError: the calling task is no handler's own.
    """
    frame = current_frame.get()
    if frame is not None and not frame.outside:
        frame.check_task()
    return frame
