"""WebSockets that outlive the actor's time in memory, with tags, attachments and an answer that wakes nobody.

A socket belongs to an actor, not to an instance of it: after eviction it stays open, and the next frame constructs the
actor again, whose constructor already sees its sockets. (Durable Objects: the WebSocket Hibernation API.)
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio

from runtime import codec, frames, limits
from runtime.actor.input_gate import Job, Work
from runtime.actor.message_job import MessageJob
from runtime.actor.outbound import Outbound
from runtime.actor.recipients import Recipients
from runtime.actor.result import Result
from runtime.errors import LimitExceeded
from runtime.frames import PreparedMessage

if TYPE_CHECKING:
    from runtime.actor.actor import Actor

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
        "_table",
        "auto_response_timestamp",
        "last_received",
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
        self.last_received: float = now()
        self._now = now
        self._outbound = outbound
        self._table: SocketTable | None = None
        self._attachment: bytes | None = None
        self._close_sent = False
        self._listener: Listener | None = None
        self._queued = 0
        self._room: trio.Event | None = None

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
        self.last_received = self._now()
        if table.auto_request is not None and message == table.auto_request:
            self.auto_response_timestamp = self.last_received
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
        self.last_received = self._now()
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

    def _begun(self) -> None:
        self._queued -= 1
        if self._room is not None:
            self._room.set()
            self._room = None

    def _accepted_by(self) -> SocketTable:
        if self._table is None:
            raise RuntimeError("this WebSocket is not accepted; call ctx.accept_web_socket(ws) first")
        return self._table


class SocketTable:
    """The sockets of one actor, by age and by tag; lives as long as the actor has sockets or is in memory.

    Args:
        deliver: puts an event into the actor's mailbox, constructing the actor when needed.
        receive: the same in a task of the transport's, in which the event may run.
        rest: is told that all that a socket has received was delivered.
        emit: lets an effect out through the gate of the live instance, at once when there is none.
        emit_aside: the same for what no handler made; it waits for no turn.
        attachment_bytes, auto_close_reply: the actor class's settings.

    Attributes:
        changes: counts how often one of the sockets has begun or ceased to queue what is sent.
    """

    __slots__ = (
        "_by_tag",
        "_unanswered",
        "attachment_bytes",
        "auto_close_reply",
        "auto_request",
        "auto_response",
        "auto_response_text",
        "changes",
        "deliver",
        "emit",
        "emit_aside",
        "event_timeout_s",
        "ordinary",
        "receive",
        "rest",
        "sockets",
    )

    def __init__(
        self,
        *,
        deliver: Callable[[Work], None],
        receive: Callable[[Work], None],
        rest: Callable[[], None],
        emit: Callable[[Callable[[], None]], None],
        emit_aside: Callable[[Callable[[], None]], None],
        attachment_bytes: int = limits.ATTACHMENT_BYTES,
        auto_close_reply: bool = True,
    ) -> None:
        self.sockets: dict[WebSocket, None] = {}
        self.ordinary: dict[WebSocket, None] = {}
        self.changes = 0
        self.deliver = deliver
        self.receive = receive
        self.rest = rest
        self.emit = emit
        self.emit_aside = emit_aside
        self.attachment_bytes = attachment_bytes
        self.auto_close_reply = auto_close_reply
        self.auto_request: str | None = None
        self.auto_response = b""
        self.auto_response_text: str | None = None
        self.event_timeout_s: float | None = None
        self._by_tag: dict[str, dict[WebSocket, None]] = {}
        self._unanswered: dict[WebSocket, None] = {}

    def accept(
        self,
        ws: WebSocket,
        tags: Sequence[str],
        *,
        message_bytes: int,
        backlog_bytes: int,
        slow_code: int,
        compress: bool = False,
    ) -> None:
        """Make a socket this actor's.

        Raises:
            RuntimeError: it is accepted already. LimitExceeded: too many sockets or tags, or a long tag.
        """
        self._check_room_for(ws)
        distinct, most = dict[str, None](), limits.TAGS_PER_SOCKET
        for tag in tags:
            # Durable Objects: one more is refused when there are ten, even if it is one of the ten.
            _bound(len(distinct) + 1, most, f"a Hibernatable WebSocket cannot have more than {most} tags")
            _bound(
                len(tag.encode()),
                limits.TAG_BYTES,
                f'"{tag}" is longer than the max tag length ({limits.TAG_BYTES} characters).',
            )
            distinct[tag] = None
        self._take(ws, message_bytes, backlog_bytes, slow_code)
        ws.tags = tuple(distinct)
        ws._deflate_bits = ws._offered_bits if compress else None
        self.sockets[ws] = None
        for tag in ws.tags:
            self._by_tag.setdefault(tag, {})[ws] = None

    def accept_ordinary(
        self, ws: WebSocket, listener: Listener, *, message_bytes: int, backlog_bytes: int, slow_code: int
    ) -> None:
        """Make a socket the live instance's; it goes with it.

        Raises:
            RuntimeError: it is accepted already. LimitExceeded: too many sockets.
        """
        self._check_room_for(ws)
        self._take(ws, message_bytes, backlog_bytes, slow_code)
        ws._listener = listener
        self.ordinary[ws] = None

    def holds(self, ws: WebSocket) -> bool:
        """The socket is one of these."""
        return ws in self.sockets or ws in self.ordinary

    def _check_room_for(self, ws: WebSocket) -> None:
        if ws.accepted:
            raise RuntimeError("this WebSocket was accepted already; accept each one once")
        _bound(
            len(self.sockets) + len(self.ordinary) + 1,
            limits.SOCKETS_PER_ACTOR,
            f"only {limits.SOCKETS_PER_ACTOR} websockets can be accepted on a single Durable Object instance",
        )

    def _take(self, ws: WebSocket, message_bytes: int, backlog_bytes: int, slow_code: int) -> None:
        ws._table = self
        ws.ready_state = OPEN
        ws.message_bytes = ws.wire_bytes = message_bytes
        ws._outbound.configure(
            backlog_bytes=backlog_bytes,
            slow_code=slow_code,
            stall_s=limits.SOCKET_BACKLOG_S,
            changed=self._changed,
        )

    def _changed(self) -> None:
        self.changes += 1

    def list(self, tag: str | None) -> list[WebSocket]:
        """All sockets, newest first; those with a tag, oldest first (as Durable Objects list them)."""
        return list(reversed(self.sockets)) if tag is None else list(self._by_tag.get(tag, ()))

    def set_auto_response(self, request: str | None, response: str | None) -> None:
        """Set or (with None) unset the pair.

        Raises:
            LimitExceeded: a text over 2,048 bytes.
        """
        limit = limits.AUTO_RESPONSE_BYTES
        for what, text in (("Request", request), ("Response", response)):
            size = len((text or "").encode())
            refusal = f"{what} cannot be larger than {limit} bytes. A {what.lower()} of size {size} was provided."
            _bound(size, limit, refusal)
        self.auto_request = request
        self.auto_response_text = response if request is not None else None
        self.auto_response = frames.encode_message(response or "")

    def set_event_timeout(self, seconds: float | None) -> None:
        """Cut off socket handlers after so many seconds; None: never.

        Raises:
            LimitExceeded: over a week. ValueError: negative.
        """
        if seconds is not None:
            if seconds < 0:
                raise ValueError(f"the event timeout is {seconds!r}; at least 0 s")
            _bound(
                math.ceil(seconds * 1000),
                limits.EVENT_TIMEOUT_MS,
                f"Event timeout should not exceed {limits.EVENT_TIMEOUT_MS} ms.",
            )
        self.event_timeout_s = seconds or None

    def leave_unanswered(self, ws: WebSocket) -> None:
        """A peer's close frame that got no answer: its connection ends at the next eviction."""
        self._unanswered[ws] = None
        if len(self._unanswered) > limits.SOCKETS_PER_ACTOR:
            oldest = next(iter(self._unanswered))
            del self._unanswered[oldest]
            oldest._outbound.cut()

    def cut_unanswered(self) -> None:
        """End the connections whose close frame got no answer."""
        unanswered, self._unanswered = self._unanswered, {}
        for ws in unanswered:
            ws._outbound.cut()

    def forget(self, ws: WebSocket) -> None:
        """The socket is gone."""
        if self.sockets.pop(ws, ws) is None:
            for tag in ws.tags:
                members = self._by_tag[tag]
                del members[ws]
                if not members:
                    del self._by_tag[tag]
        elif self.ordinary.pop(ws, ws) is None:
            assert ws._listener is not None
            ws._listener.gone()

    def cut_all(self) -> None:
        """Drop every connection without a close frame (the instance was destroyed)."""
        for ws in (*self.sockets, *self.ordinary):
            ws.ready_state = CLOSED
            self.forget(ws)
            ws._outbound.cut()
            if ws._room is not None:
                ws._room.set()
        self.cut_unanswered()

    def close_all(self, code: int, reason: str) -> None:
        """Send every socket a close frame (the server goes down); no handler runs for it."""
        for ws in (*self.sockets, *self.ordinary):
            if not ws._close_sent:
                ws._close_sent = True
                ws.ready_state = CLOSING
                ws._outbound.close(code, reason)
            self.forget(ws)

    def push_all(self, sockets: Iterable[WebSocket], message: PreparedMessage) -> None:
        """Send one encoded message to many."""
        if isinstance(sockets, Recipients):
            sockets._push(message, self.changes)
            return
        for ws in sockets:
            if not ws._close_sent:
                ws._outbound.push(message.frame if ws._deflate_bits is None else message.deflated(ws._deflate_bits))


def _bound(actual: int, limit: int, message: str) -> None:
    if actual > limit:
        raise LimitExceeded(message, limit=limit, actual=actual)


def _check_close(code: int | None, reason: str) -> None:
    if code is None:
        if reason:
            raise ValueError("If you specify a WebSocket close reason, you must also specify a code.")
        return
    if not 1000 <= code <= 4999 or code in (1004, 1005, 1006, 1015):
        raise ValueError(f"Invalid WebSocket close code: {code}.")
    if len(reason.encode()) > limits.CLOSE_REASON_BYTES:
        raise ValueError("WebSocket close reason must not be longer than 123 bytes when UTF-8 encoded.")
