"""Functions and objects that actors pass to each other by reference.

A function, a bound method or an `RpcTarget` in the arguments or the result of a call stays where it is; the other side
gets a `Reference`, and calling that is an event of the actor it came from. References in arguments live until the
call is answered, those in an answer until the event that made the call ends; `dup()` makes one that lives as long as
its instance or until it is disposed. (Durable Objects: RPC, functions and `RpcTarget`.)
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Protocol, cast

import structlog

from runtime import codec
from runtime.actor.breaking import copy_error
from runtime.actor.cell import Cell
from runtime.actor.frame import Frame, Held, current_frame, release_all
from runtime.actor.input_gate import Job
from runtime.actor.result import Error, Result
from runtime.actor.services import Services
from runtime.call_size import check_call_size
from runtime.errors import ActorError, LimitExceeded, UnknownMethod
from runtime.namespace.call import Call, Carried, calling_frame
from runtime.namespace.call_job import CallJob
from runtime.namespace.container import Container


class RpcTarget:
    """An object that actors pass by reference: whoever gets it may call its public methods."""

    def dispose(self) -> None:
        """Nobody holds a reference to it any more."""


class Calls(Protocol):
    """What references need from the router."""

    log: structlog.stdlib.BoundLogger
    services: Services


class _Export:
    """Something of a live instance that others hold references to; keeps that instance in memory."""

    __slots__ = ("calls", "cell", "count", "gate", "target")

    def __init__(self, target: Any, frame: Frame, calls: Calls) -> None:
        self.target = target
        self.cell: Cell = frame.cell
        self.gate = frame.gate  # a callback of a critical section runs inside it
        self.calls = calls
        self.count = 0

    def hold(self) -> None:
        if self.count == 0:
            self.cell.busy(1)
        self.count += 1

    def release(self) -> None:
        self.count -= 1
        if self.count or self.cell.broken is not None:
            return
        if isinstance(self.target, RpcTarget):
            self.gate.enter(Job("dispose", self._dispose))
        self.cell.busy(-1)

    async def _dispose(self, _: Any) -> None:
        self.target.dispose()

    def method(self, name: str) -> Callable[..., Any]:
        """What a call runs; no name: the target itself.

        Raises:
            UnknownMethod: the target has no such public method.
        """
        if not name and not isinstance(self.target, RpcTarget):
            function: Callable[..., Any] = self.target
            return function
        found = getattr(type(self.target), name, None) if name and not name.startswith("_") else None
        if not isinstance(self.target, RpcTarget) or not callable(found) or name == "dispose":
            raise UnknownMethod(
                f'The RPC receiver does not implement the method "{name}". (a {type(self.target).__name__})',
                remote=True,
            )
        bound: Callable[..., Any] = getattr(self.target, name)
        return bound


class Reference:
    """A function or an object of another actor."""

    __slots__ = ("_disposed", "_export", "_keeper")
    passes_by_reference: ClassVar[bool] = True

    def __init__(self, export: _Export) -> None:
        self._export = export
        self._disposed = False
        self._keeper: Cell | None = None
        export.hold()

    def __repr__(self) -> str:
        return f"<reference to a {type(self._export.target).__name__} of {self._export.cell.id!r}>"

    def __call__(self, /, *args: Any, **kwargs: Any) -> Call:
        """Call the function now; await what is returned for its value."""
        return self._call("", args, kwargs)

    def __getattr__(self, name: str) -> Callable[..., Call]:
        if name.startswith("_"):
            raise AttributeError(name)

        def method(*args: Any, **kwargs: Any) -> Call:
            return self._call(name, args, kwargs)

        return method

    def dispose(self) -> None:
        """Let go of it; in order with the calls made before. Harmless when it was disposed already."""
        if not self._disposed:
            self._disposed = True
            frame = current_frame.get()
            if self._keeper is not None:
                self._keeper.holdings.drop_reference(self)
            if frame is None or frame.cell.broken is not None:
                self._export.release()
            else:
                frame.cell.emit(self._export.release)

    def dup(self) -> Reference:
        """Another reference to the same, which lives as long as this instance or until it is disposed.

        Raises:
            RuntimeError: outside of an actor, or this one is disposed.
        """
        frame = calling_frame()
        if frame is None:
            raise RuntimeError("dup() belongs to a handler: an actor's instance keeps what it makes")
        self._check()
        copy = Reference(self._export)
        copy._keeper = frame.cell
        frame.cell.holdings.keep_reference(copy)
        return copy

    def release(self) -> None:
        """Let go of it at once (the runtime's own use)."""
        if not self._disposed:
            self._disposed = True
            self._export.release()

    def _check(self) -> None:
        if self._disposed:
            raise RuntimeError("RPC stub used after being disposed.")

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        self._check()
        frame = calling_frame()
        calls = self._export.calls
        (args, kwargs), lent = carry_arguments(args, kwargs, frame, calls)
        check_arguments(args, kwargs, lent)
        call = Call(frame, self, name, calls, lent)
        if frame is None:
            self._invoke(name, args, kwargs, call)
        else:
            frame.cell.emit(partial(self._invoke, name, args, kwargs, call))
        return call

    def _invoke(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], call: Call) -> None:
        export = self._export
        cell = export.cell
        container = cast("Container", cell.owner)
        try:
            if container.cell is not cell:
                error = cell.incarnation.error
                raise ActorError(f"{self!r} is gone with its instance") if error is None else copy_error(error)
            container.reserve_call()
        except Exception as error:  # noqa: BLE001 -- the caller gets it
            call._answer(Error(error))
            return
        export.hold()
        export.gate.enter(_ReferenceCall(export, name, args, kwargs, call, container))


class _ReferenceCall(CallJob):
    """A call of something that an instance has passed on."""

    __slots__ = ("_export",)

    def __init__(
        self,
        export: _Export,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        call: Call,
        container: Container,
    ) -> None:
        super().__init__(name, args, kwargs, call)
        self._place = container
        self._export = export

    @property
    def label(self) -> str:
        return self._name or "callback"

    @property
    def where(self) -> str:
        return self.label if self._call is None else self._call._label

    async def run(self, actor: Any) -> Any:
        self.check_caller()
        value = self._export.method(self._name)(*self._args, **self._kwargs)
        return await value if inspect.isawaitable(value) else value

    def carry(self, value: Any) -> Any:
        return carried(value, self.caller, self._export.calls)

    def done(self, result: Result) -> None:
        if self._call is not None:
            super().done(result)
            self._export.release()


def carry(value: Any, frame: Frame | None, calls: Calls) -> tuple[Any, list[Held] | None]:
    """A copy of a value for another actor, and the references that were made in it.

    Raises:
        TypeError: something in it can be neither copied nor referred to.
    """
    try:
        return codec.copy(value), None
    except TypeError as refused:
        if frame is None:  # outside of actors nothing lives that a callback could run in
            raise
        made: list[Held] = []
        try:
            return codec.copy(_replace(value, frame, calls, made)), made
        except (TypeError, RecursionError):
            release_all(made)
            raise refused from None


def carry_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame | None, calls: Calls
) -> tuple[tuple[tuple[Any, ...], dict[str, Any]], list[Held] | None]:
    """The same for the arguments of a call."""
    args, made = carry(args, frame, calls)
    if kwargs:
        kwargs, more = carry(kwargs, frame, calls)
        made = [*(made or ()), *more] if more else made
    return (args, kwargs), made


def check_arguments(args: tuple[Any, ...], kwargs: dict[str, Any], lent: list[Held] | None = None) -> None:
    """Refuse arguments over 32 MiB, and let go of the references in them. Raises: LimitExceeded."""
    try:
        check_call_size((args, kwargs) if kwargs else args)
    except LimitExceeded:
        release_all(lent or ())
        raise


def carried(value: Any, caller: Frame | None, calls: Calls) -> Any:
    """The result of a call as it leaves; `Carried` when it has references in it."""
    copied, made = carry(value, current_frame.get() if caller is not None else None, calls)
    try:
        check_call_size(copied)
    except LimitExceeded:
        release_all(made or ())
        raise
    return copied if made is None else Carried(copied, made)


def _replace(value: Any, frame: Frame, calls: Calls, made: list[Held]) -> Any:
    if isinstance(value, Reference):
        value._check()
        made.append(again := Reference(value._export))
        return again
    if isinstance(value, RpcTarget | types.FunctionType | types.MethodType):
        made.append(reference := Reference(_Export(value, frame, calls)))
        return reference
    cls = value.__class__
    if cls in {list, tuple}:
        return cls(_replace(item, frame, calls, made) for item in value)
    if cls is dict:
        return {key: _replace(item, frame, calls, made) for key, item in value.items()}
    return value
