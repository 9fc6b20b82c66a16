"""The class that apps subclass."""

from __future__ import annotations

import dis
import inspect
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import attrs

from runtime import limits
from runtime.actor.http import Request, Response
from runtime.actor.sockets import WebSocket

if TYPE_CHECKING:
    from runtime.actor.context import Context

EnvT = TypeVar("EnvT")


@attrs.frozen(kw_only=True)
class AlarmInfo:
    """Why an alarm handler runs.

    Attributes:
        retry_count: 0 on the first run. is_retry: the run before failed. scheduled_time: the due time, wall clock.
    """

    retry_count: int
    is_retry: bool
    scheduled_time: float


class Actor(Generic[EnvT]):
    """One addressable object with a single turn, durable storage, at most one alarm and hibernating sockets.

    Every public `async def` method of a subclass can be called through a stub. An exception in a handler undoes
    nothing: earlier writes stay and the caller gets the error. (Durable Objects: the `DurableObject` class.)

    Class settings:
        storage: "shared": keys in the one database of the server, whose commits many actors share. "sql": a database
            of its own with SQL, keys and alarm (Durable Objects: `new_sqlite_classes`); not to be changed later.
        history: what its actors store can be brought back to a bookmark; without, writing costs up to half as much.
        attachment_bytes: bound of a socket's attachment. message_bytes: bound of an inbound message (else close 1009).
        backlog_bytes, slow_code: what a socket may leave unread, and the close code it gets beyond that.
        auto_close_reply: answer a peer's close frame when the handler has not.
    """

    storage: ClassVar[Literal["shared", "sql"]] = "shared"
    history: ClassVar[bool] = True
    attachment_bytes: ClassVar[int] = limits.ATTACHMENT_BYTES
    message_bytes: ClassVar[int] = limits.MESSAGE_BYTES
    backlog_bytes: ClassVar[int] = limits.SOCKET_BACKLOG_BYTES
    slow_code: ClassVar[int] = 1013
    auto_close_reply: ClassVar[bool] = True

    _message_at_once: ClassVar[types.FunctionType | None] = None
    """`web_socket_message`, if its code has no await; found by the runtime."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        found: Any = cls.web_socket_message
        cls._message_at_once = found if _never_waits(found) else None

    def __init__(self, ctx: Context, env: EnvT) -> None:
        self.ctx = ctx
        self.env = env

    async def fetch(self, request: Request) -> Response:
        """Answer an HTTP request; for an upgrade accept `request.web_socket` and answer 101."""
        return Response.text(f"{type(self).__name__} answers no requests\n", 404)

    async def alarm(self, info: AlarmInfo) -> None:
        """The alarm is due. Runs at least once per alarm; when it raises it is repeated up to six times."""

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """A message arrived on an accepted socket."""

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        """A socket's peer closed it (code 1005: without a code), or it was lost (1006, `was_clean` false)."""

    async def web_socket_error(self, ws: WebSocket, error: Exception) -> None:
        """A socket broke the protocol or a limit."""


HANDLERS = frozenset({"alarm", "web_socket_message", "web_socket_close", "web_socket_error"})
"""The methods that only the runtime calls."""


@attrs.frozen
class Names:
    """What of an actor class a stub reaches.

    Attributes:
        methods: the public methods that `Actor` does not have, and `fetch`.
        at_once: those of them whose code has no await: they run from beginning to end without a wait.
        properties: the public properties.
    """

    methods: frozenset[str]
    at_once: Mapping[str, types.FunctionType]
    properties: frozenset[str]

    @classmethod
    def of(cls, actor_class: type[Actor[Any]]) -> Names:
        """Those of a class."""
        public = [name for name in dir(actor_class) if not name.startswith("_")]
        methods = {name for name in public if callable(getattr(actor_class, name))}
        methods = (methods - set(dir(Actor))) | {"fetch"}
        found = {name: getattr(actor_class, name) for name in methods}
        return cls(
            methods=frozenset(methods),
            at_once={name: function for name, function in found.items() if _never_waits(function)},
            properties=frozenset(name for name in public if isinstance(getattr(actor_class, name), property)),
        )


_YIELD = dis.opmap["YIELD_VALUE"]


def _never_waits(function: Any) -> bool:
    # A coroutine is suspended nowhere but at a YIELD_VALUE of its own code, which every await, `async for` and
    # `async with` has; every other byte is an operation. A decorator's function or a method of compiled code is not
    # looked into.
    return (
        isinstance(function, types.FunctionType)
        and inspect.iscoroutinefunction(function)
        and _YIELD not in function.__code__.co_code[::2]
    )
