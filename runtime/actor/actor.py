"""The class that apps subclass."""

from __future__ import annotations

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


def rpc_methods(cls: type[Actor[Any]]) -> frozenset[str]:
    """Names that a stub may call: the public methods of the class that `Actor` does not have, and `fetch`."""
    names = {name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name))}
    return frozenset((names - set(dir(Actor))) | {"fetch"})


def rpc_properties(cls: type[Actor[Any]]) -> frozenset[str]:
    """Names that may be read through a stub: the public properties of the class."""
    return frozenset(name for name in dir(cls) if not name.startswith("_") and isinstance(getattr(cls, name), property))
