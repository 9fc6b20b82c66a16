"""WebSockets that outlive the actor's time in memory, with tags, attachments and an answer that wakes nobody.

A socket belongs to an actor, not to an instance of it: after eviction it stays open, and the next frame constructs the
actor again, whose constructor already sees its sockets. (Durable Objects: the WebSocket Hibernation API.)
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio

from runtime import codec, limits
from runtime.actor.input_gate import Job
from runtime.actor.message_job import MessageJob
from runtime.actor.outbound import Outbound
from runtime.actor.result import Result
from runtime.actor.silence import SilenceLimit
from runtime.errors import LimitExceeded
from runtime.frames import PreparedMessage

if TYPE_CHECKING:
    from runtime.actor.actor import Actor
    from runtime.actor.socket_table import SocketTable

T = TypeVar("T")

CONNECTING, OPEN, CLOSING, CLOSED = 0, 1, 2, 3
LOST = "WebSocket disconnected without sending Close frame."


@attrs.frozen
class Listener:
    """Who hears of an ordinary socket: functions of one instance.

    Attributes:
        gone: tells that instance that the socket needs it no more.
    """

    message: Callable[[str | bytes], Awaitable[None]]
    closed: Callable[[int, str, bool], Awaitable[None]]
    gone: Callable[[], None]


class WebSocket:
    """The server's end of one WebSocket, as an actor holds it."""

    __slots__ = (
        "_attachment",
        "_close_sent",
        "_deflate_bits",
        "_listener",
        "_now",
        "_offered_bits",
        "_outbound",
        "_queued",
        "_room",
        "_silence",
        "_table",
        "auto_response_timestamp",
        "message_bytes",
        "ready_state",
        "tags",
        "wire_bytes",
    )

    def __init__(self, outbound: Outbound, now: Callable[[], float], offered_bits: int | None = None) -> None:
        self.tags: tuple[str, ...] = ()
        self.ready_state = CONNECTING
        self.message_bytes: int = limits.MESSAGE_BYTES
        self.wire_bytes: int = limits.MESSAGE_BYTES
        self._offered_bits = offered_bits  # the window of a client that inflates
        self._deflate_bits: int | None = None  # the same, once an actor has agreed
        self.auto_response_timestamp: float | None = None
        self._now = now
        self._outbound = outbound
        self._table: SocketTable | None = None
        self._attachment: bytes | None = None
        self._close_sent = False
        self._listener: Listener | None = None
        self._queued = 0
        self._room: trio.Event | None = None
        self._silence: SilenceLimit | None = None

    @property
    def accepted(self) -> bool:
        """An actor has accepted it."""
        return self._table is not None

    @property
    def compressed(self) -> bool:
        """Its messages are compressed, both ways: the actor agreed to what the client offered."""
        return self._deflate_bits is not None

    @property
    def backlog_bytes(self) -> int:
        """Bytes sent to it that the kernel has not taken yet."""
        return self._outbound.backlog_bytes

    @property
    def round_trip_s(self) -> float | None:
        """The round trip of its TCP connection, smoothed, as the kernel knows it; None where nobody does.

        It goes to the other end of the connection, which may be a proxy.
        """
        return self._outbound.round_trip_s

    @property
    def connection_number(self) -> int | None:
        """Which one it is of the connections that can be made to fail on purpose; None where none can."""
        return self._outbound.connection_number

    def send(self, message: str | bytes | PreparedMessage) -> None:
        """Send one message, in order, once the writes made before are durable.

        Raises:
            TypeError: after close().
        """
        if self._close_sent:
            raise TypeError("Can't call WebSocket send() after close().")
        prepared = message if isinstance(message, PreparedMessage) else PreparedMessage.of(message)
        bits = self._deflate_bits
        frame = prepared.frame if bits is None else prepared.deflated(bits)
        self._accepted_by().emit(lambda: self._outbound.push(frame))

    def close(self, code: int | None = None, reason: str = "") -> None:
        """Send a close frame, in order with what was sent; a second call is ignored.

        Raises:
            ValueError: a code outside 1000 and 3000–4999 rules, or a reason that is too long or has no code.
        """
        _check_close(code, reason)
        if self._close_sent or self.ready_state == CLOSED:
            return
        table = self._accepted_by()
        self._close_sent = True
        self.ready_state = CLOSED if self.ready_state == CLOSING else CLOSING  # the peer's close frame came already
        table.emit(lambda: self._outbound.close(code, reason))

    def limit_backlog(self, nbytes: int, seconds: float, slow_code: int) -> None:
        """Set what this socket may leave unread, for how long without progress, and the code it is closed with.

        Without it the actor class's `backlog_bytes` and `slow_code`, and 5 s.
        """
        self._accepted_by()
        self._outbound.configure(backlog_bytes=nbytes, slow_code=slow_code, stall_s=seconds)

    def limit_message(self, nbytes: int, inflated_bytes: int | None = None) -> None:
        """Set what one message of the client may have, else the connection is closed with 1009; before the 101.

        Args:
            nbytes: as the client sends it.
            inflated_bytes: of a compressed one once it is inflated; as many by default.
        """
        self._accepted_by()
        self.wire_bytes = nbytes
        self.message_bytes = max(nbytes, inflated_bytes or 0) if self.compressed else nbytes

    def limit_silence(self, seconds: float, code: int, reason: str = "") -> None:
        """Close it with this code when no message came for so long from now on, or up to a second later.

        It is told by a monotonic clock, wakes no actor, and lasts until another limit is set; what an automatic answer
        is given to counts, and nothing while messages wait for the actor.

        Raises:
            ValueError: no positive number of seconds, or as by close().
        """
        _check_close(code, reason)
        if not 0 < seconds < math.inf:
            raise ValueError(f"a socket may be silent for {seconds!r} s; must be more than 0, and finite")
        table = self._accepted_by()
        self._end_silence()
        if table.holds(self):
            self._silence = SilenceLimit(table.timers, seconds, self._fell_silent, code, reason)

    def serialize_attachment(self, value: Any) -> None:
        """Keep a value with the socket; it survives eviction and is lost with the connection.

        Raises:
            LimitExceeded: over the class's `attachment_bytes` (16,384); the old one is kept.
        """
        data = codec.encode(value)
        limit = self._accepted_by().attachment_bytes
        if len(data) > limit:
            raise LimitExceeded(
                f"A WebSocket 'attachment' cannot be larger than {limit} bytes.'attachment' was {len(data)} bytes.",
                limit=limit,
                actual=len(data),
            )
        self._attachment = data

    def attachment(self, type_: type[T] | Any = Any) -> T | None:
        """A copy of what was last attached, or None."""
        return None if self._attachment is None else codec.decode(self._attachment, type_)

    # The transport's side.

    async def feed_message(self, message: str | bytes) -> None:
        """A message arrived. Waits while too many of this socket wait for the actor."""
        table = self._accepted_by()
        if self._silence is not None:
            self._silence.heard()
        if table.auto_request is not None and message == table.auto_request:
            self.auto_response_timestamp = self._now()
            response = table.auto_response
            table.emit_aside(lambda: self._outbound.push(response))  # in order with what the actor has sent already
            return
        while self._queued >= limits.SOCKET_EVENTS:
            self._room = trio.Event()
            await self._room.wait()
        if self.ready_state == CLOSED or not table.holds(self):  # the server goes down: nobody is constructed for it
            return
        self._queued += 1
        if self._listener is None:
            table.receive(MessageJob(self, message, self._begun, table.event_timeout_s))
        else:
            hear = self._listener.message
            table.deliver(Job("message of an ordinary socket", lambda _: hear(message), taken=self._begun))

    def feed_ended(self) -> None:
        """Nothing more has arrived."""
        if self._table is not None:
            self._table.rest()

    async def feed_close(self, code: int, reason: str, was_clean: bool) -> None:
        """The peer sent a close frame, or the connection was lost."""
        table = self._table
        if table is None or not table.holds(self):
            return
        self.ready_state = CLOSED if self._close_sent else CLOSING
        if self._room is not None:
            self._room.set()

        async def closed(actor: Actor[Any]) -> None:
            try:
                if self._listener is None:
                    await actor.web_socket_close(self, code, reason, was_clean)
                else:
                    await self._listener.closed(code, reason, was_clean)
            finally:
                table.forget(self)

        def done(_: Result) -> None:
            self._answer_close(table, code, was_clean)

        table.deliver(Job("web_socket_close", closed, done, logs=True, timeout_s=table.event_timeout_s))

    async def feed_error(self, error: Exception) -> None:
        """The connection broke the protocol or a limit."""
        table = self._table
        if table is None or not table.holds(self):
            return
        self.ready_state = CLOSED

        async def failed(actor: Actor[Any]) -> None:
            try:
                if self._listener is None:
                    await actor.web_socket_error(self, error)
                else:
                    await self._listener.closed(1006, str(error), False)
            finally:
                table.forget(self)

        table.deliver(Job("web_socket_error", failed, timeout_s=table.event_timeout_s))

    def _answer_close(self, table: SocketTable, code: int, was_clean: bool) -> None:
        # Durable Objects: the runtime completes the close handshake by itself (compatibility date 2026-04-07).
        if was_clean and not self._close_sent:
            if table.auto_close_reply or self._listener is not None:
                self._close_sent = True
                self.ready_state = CLOSED
                self._outbound.close(None if code == 1005 else code)
            else:
                table.leave_unanswered(self)

    def _fell_silent(self, code: int, reason: str) -> bool:
        if self._queued:  # it is not read meanwhile: the silence is the actor's
            return False
        self._accepted_by().emit_aside(lambda: self._outbound.close(code, reason))
        return True

    def _end_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _begun(self) -> None:
        self._queued -= 1
        if self._room is not None:
            self._room.set()
            self._room = None

    def _accepted_by(self) -> SocketTable:
        if self._table is None:
            raise RuntimeError("this WebSocket is not accepted; call ctx.accept_web_socket(ws) first")
        return self._table


def _check_close(code: int | None, reason: str) -> None:
    if code is None:
        if reason:
            raise ValueError("If you specify a WebSocket close reason, you must also specify a code.")
        return
    if not 1000 <= code <= 4999 or code in (1004, 1005, 1006, 1015):
        raise ValueError(f"Invalid WebSocket close code: {code}.")
    if len(reason.encode()) > limits.CLOSE_REASON_BYTES:
        raise ValueError("WebSocket close reason must not be longer than 123 bytes when UTF-8 encoded.")
