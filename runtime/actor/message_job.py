"""The event of a message on a socket, which runs at once where its handler is known never to wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from runtime.actor.input_gate import Work

if TYPE_CHECKING:
    from runtime.actor.sockets import WebSocket


class MessageJob(Work):
    """A message that an accepted socket has received.

    Args:
        taken: is told once it has left the mailbox.
        timeout_s: after which its handler is cut off.
    """

    __slots__ = ("_message", "_socket", "_taken", "timeout_s")
    logs = True

    def __init__(
        self, socket: WebSocket, message: str | bytes, taken: Callable[[], None], timeout_s: float | None
    ) -> None:
        self._socket = socket
        self._message = message
        self._taken: Callable[[], None] | None = taken
        self.timeout_s = timeout_s

    @property
    def label(self) -> str:
        """The handler's name."""
        return "web_socket_message"

    def never_waits(self, actor: Any) -> bool:
        """The handler has no await."""
        function = type(actor)._message_at_once
        return function is not None and getattr(actor.web_socket_message, "__func__", None) is function

    def run(self, actor: Any) -> Awaitable[Any]:
        """Begin."""
        handled: Awaitable[Any] = actor.web_socket_message(self._socket, self._message)
        return handled

    def take(self) -> None:
        """It leaves the mailbox."""
        taken, self._taken = self._taken, None
        if taken is not None:
            taken()
