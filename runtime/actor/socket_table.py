"""Which sockets an actor has, and what is set for all of them; the table outlives the instance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from runtime import frames, limits
from runtime.actor.input_gate import Work
from runtime.actor.recipients import Recipients
from runtime.actor.sockets import CLOSED, CLOSING, OPEN, Listener, WebSocket
from runtime.errors import LimitExceeded
from runtime.frames import PreparedMessage
from runtime.timers import Timers


class SocketTable:
    """The sockets of one actor, by age and by tag; lives as long as the actor has sockets or is in memory.

    Args:
        deliver: puts an event into the actor's mailbox, constructing the actor when needed.
        receive: the same in a task of the transport's, in which the event may run.
        rest: is told that all that a socket has received was delivered.
        emit: lets an effect out through the gate of the live instance, at once when there is none.
        emit_aside: the same for what no handler made; it waits for no turn.
        timers: the server's.
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
        "timers",
    )

    def __init__(
        self,
        *,
        deliver: Callable[[Work], None],
        receive: Callable[[Work], None],
        rest: Callable[[], None],
        emit: Callable[[Callable[[], None]], None],
        emit_aside: Callable[[Callable[[], None]], None],
        timers: Timers,
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
        self.timers = timers
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
        ws._end_silence()
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
