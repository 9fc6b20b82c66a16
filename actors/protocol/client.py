"""The client of `signals.v1` as a pure machine: inputs and time in, events and texts out, across reconnects.

No socket, no clock, no randomness of its own. What it does where the protocol leaves a choice is written in
`vectors/README.md`, which every client follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import attrs

from actors.filters import Filter
from actors.protocol import messages as wire
from actors.protocol.backoff import WINDOW_MS, Backoff
from actors.protocol.codes import AfterClose, CloseCode, after_close
from actors.protocol.connection import Connection
from actors.protocol.cursor import Cursor, Since
from actors.protocol.decoding import decode_server
from actors.protocol.events import ClientState, Close, Event, Open, SubStateName
from actors.protocol.fields import Refused
from actors.protocol.publications import Publications
from actors.protocol.subscription import Subscription
from actors.protocol.subscriptions import Subscriptions
from actors.signals import Draft

CONNECT_MS = 5_000
_FINAL_STATUSES = frozenset({400, 401, 403, 404, 426})  # of a refused handshake (section 2.2)


@attrs.define(eq=False)
class ClientMachine:
    """Desired subscriptions and publications of one application, kept alive over any number of sockets.

    Each method takes the time in ms and returns the events that follow; the texts to send are collected by
    `texts_to_send`, one frame each. Call `tick` at `next_deadline_ms` at the latest.

    Args:
        random: draws in [0, 1).
        info: what the client says about itself in `hello`.
    """

    random: Callable[[], float]
    info: wire.ClientInfo | None = None
    state: ClientState = attrs.field(factory=lambda: ClientState(state="closed", terminal=False), init=False)
    _subs: Subscriptions = attrs.field(factory=Subscriptions, init=False)
    _publications: Publications = attrs.field(factory=Publications, init=False)
    _backoff: Backoff = attrs.field(init=False)
    _socket: Connection | None = attrs.field(default=None, init=False)
    _reconnect_at: float | None = attrs.field(default=None, init=False)
    _resume: str | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._backoff = Backoff(self.random)

    # --- the application -----------------------------------------------------------------------------------

    def start(self, now: float) -> list[Event]:
        """Begin to connect."""
        assert self.state.state == "closed", "a client is started once"
        return self._connect(now)

    def stop(self) -> list[Event]:
        """End it; the events say what to close."""
        if self.state.state == "closed":
            return []
        closing: list[Event] = [] if self._socket is None else [Close(1000)]
        self._socket = self._reconnect_at = None
        return [*closing, *self._now_in(ClientState(state="closed", code=1000, terminal=False))]

    def subscribe(
        self,
        name: str,
        filter: Filter,  # noqa: A002 - the protocol's word
        since: Since = "now",
        on_gap: wire.OnGap = "fail",
    ) -> None:
        """Declare a subscription; it is requested on this connection and on every one after it."""
        self._subs.declare(Subscription(name=name, filter=filter, since=since, on_gap=on_gap))
        if self._is_welcomed:
            self._live_socket.request(self._subs[name])

    def unsubscribe(self, name: str) -> None:
        """Take a subscription back; unknown names are ignored, it may just have failed."""
        if self._subs.forget(name) and self._socket is not None:
            self._socket.leave(name)

    def publish(self, draft: Draft) -> tuple[int, list[Event]]:
        """Send a publication now or after the next `welcome`; its outcome carries the key returned here.

        Raises: OutboxFull.
        """
        key = self._publications.add(draft)
        return key, self._flush()

    def forget_publication(self, key: int) -> None:
        """Nobody waits for this outcome any more."""
        self._publications.forget(key)

    # --- the transport -------------------------------------------------------------------------------------

    def opened(self, now: float, token: str | None = None) -> None:
        """The socket that `Open` asked for is there: say hello."""
        socket = self._live_socket
        request = socket.open(now)
        subs = self._subs.enter(socket, request)
        socket.send(wire.Hello(id=request, token=token, resume=self._resume, client=self.info, subs=subs))

    def receive(self, frame: str, now: float) -> list[Event]:
        """One text frame from the server."""
        socket = self._socket
        if socket is None:
            return []
        socket.heard_at = now
        events: list[Event] = []
        for line in frame.split("\n"):
            try:
                for message in decode_server(line):
                    events += self._handle(socket, message, now)
            except Refused as refused:
                socket.fail(CloseCode.GAP, f"bad message: {refused}")
            if socket.failure is not None:
                return [*events, *self._abandon(*socket.failure, now)]
        return events

    def closed(
        self,
        code: int | None,
        now: float,
        *,
        reason: str = "",
        status: int | None = None,
        retry_after_ms: float | None = None,
    ) -> list[Event]:
        """The socket ended, or could not be opened.

        Args:
            code: the close code; None without one.
            now: ms.
            reason: what the server, or the network, said.
            status: the HTTP status of a refused handshake.
            retry_after_ms: what a refused handshake asked for.
        """
        socket = self._socket
        if socket is None:
            return []
        self._socket = None
        self._publications.disconnected()
        if socket.welcomed_at is not None:
            self._backoff.ended(now - socket.welcomed_at)
        reason = reason or socket.trouble
        does = AfterClose.STOP if status in _FINAL_STATUSES else after_close(code)
        if does is AfterClose.STOP:
            shown = code if status is None else status
            return self._now_in(ClientState(state="closed", code=shown, reason=reason, terminal=True))
        window = socket.window if does is AfterClose.WINDOW else None
        if retry_after_ms is not None:
            window = (retry_after_ms, retry_after_ms + WINDOW_MS[1])
        delay = self._backoff.delay_ms(window)
        self._reconnect_at = now + delay
        return self._now_in(
            ClientState(
                state="reconnecting",
                attempt=self._backoff.attempts,
                delay_ms=delay,
                code=code,
                reason=reason,
            )
        )

    def texts_to_send(self) -> list[str]:
        """The frames to send, in order; each is handed out once."""
        if self._socket is None:
            return []
        texts, self._socket.outgoing = self._socket.outgoing, []
        return texts

    # --- time ----------------------------------------------------------------------------------------------

    @property
    def next_deadline_ms(self) -> float | None:
        """When `tick` has something to do next."""
        return min((at for at, _ in self._timers()), default=None)

    def tick(self, now: float, *, reading: bool = True) -> list[Event]:
        """Do what is due, in order of its time; what that schedules counts from `now`.

        Args:
            now: ms.
            reading: False while the application's back pressure keeps the transport from reading: silence is then
                our own doing, and no sign of a dead link.
        """
        if not reading and self._socket is not None:
            self._socket.heard_at = now
        events: list[Event] = []
        while due := sorted((timer for timer in self._timers() if timer[0] <= now), key=lambda timer: timer[0]):
            events += due[0][1](now)
        return events

    def _timers(self) -> Iterator[tuple[float, Callable[[float], list[Event]]]]:
        if self._reconnect_at is not None:
            yield self._reconnect_at, self._connect
        if self._socket is None:
            return
        if self._socket.open_by is not None:
            yield self._socket.open_by, self._not_welcomed
            return
        yield self._socket.dead_at, self._dead
        if self._socket.ping_at is not None:
            yield self._socket.ping_at, self._ping
        if self._publications.paused_until_ms is not None:
            yield self._publications.paused_until_ms, self._unpause
        for name, at in self._socket.retries():
            yield at, partial(self._retry, self._subs[name])

    def _connect(self, now: float) -> list[Event]:
        self._reconnect_at = None
        self._socket = Connection(open_by=now + CONNECT_MS)
        state = ClientState(state="connecting" if self._resume is None else "resuming")
        return [*self._now_in(state), Open()]

    def _not_welcomed(self, now: float) -> list[Event]:
        return self._abandon(CloseCode.DEAD_LINK, f"no welcome within {CONNECT_MS:,} ms", now)

    def _dead(self, now: float) -> list[Event]:
        socket = self._live_socket
        silence = socket.ping_ms + socket.dead_ms
        return self._abandon(CloseCode.DEAD_LINK, f"nothing received for {silence:,} ms", now)

    def _ping(self, now: float) -> list[Event]:
        self._live_socket.ping(now)
        return []

    def _retry(self, sub: Subscription, now: float) -> list[Event]:
        self._live_socket.request(sub)
        return []

    def _unpause(self, now: float) -> list[Event]:
        self._publications.paused_until_ms = None
        return self._flush()

    # --- messages ------------------------------------------------------------------------------------------

    def _handle(self, socket: Connection, message: wire.ServerMessage, now: float) -> Iterable[Event]:
        if isinstance(message, wire.Welcome):
            return self._welcomed(socket, message, now)
        if not socket.is_welcomed:
            return [socket.notice(message)] if isinstance(message, wire.Err) else ()
        match message:
            case wire.Sig():
                return self._subs.sig(socket, message, now)
            case wire.SubOk():
                return self._subs.subok(socket, message)
            case wire.Live():
                return self._subs.live(socket, message, now)
            case wire.Gap():
                return self._subs.gap(socket, message)
            case wire.Ok() | wire.Err():
                return self._answered(socket, message, now)
            case wire.Unsubbed():
                return self._subs.ended(socket, message.s, message.code, message.reason)
            case wire.Reset():
                return self._subs.reset(socket)
            case wire.Goaway():
                socket.window = message.after_ms
                return self._now_in(ClientState(state="draining", reason=message.reason))
            case wire.Pong():
                return ()

    def _welcomed(self, socket: Connection, welcome: wire.Welcome, now: float) -> Iterable[Event]:
        socket.greet(welcome, now, self.random())
        self._resume = welcome.resume
        yield from self._now_in(ClientState(state="connected", session=welcome.session, resumed=welcome.resumed))
        yield from self._subs.welcomed(socket, welcome, now)
        socket.request_missing(self._subs)
        yield from self._flush()

    def _answered(self, socket: Connection, answer: wire.Ok | wire.Err, now: float) -> Iterable[Event]:
        if isinstance(answer, wire.Err):
            if answer.id is None:
                return [socket.notice(answer)]
            for name in socket.awaiting(answer.id):
                return self._subs.refused(socket, name, answer, now)
        outcome = self._publications.answered(answer, now)
        return [*([] if outcome is None else [outcome]), *self._flush()]

    # --- small steps ---------------------------------------------------------------------------------------

    @property
    def _live_socket(self) -> Connection:
        assert self._socket is not None, "there is no socket"
        return self._socket

    @property
    def _is_welcomed(self) -> bool:
        return self._socket is not None and self._socket.is_welcomed

    def _flush(self) -> list[Event]:
        if not self._is_welcomed:
            return []
        socket = self._live_socket
        events: list[Event] = []
        for step in self._publications.flush(socket.next_request, socket.message_bytes):
            if isinstance(step, str):
                socket.outgoing.append(step)
            else:
                events.append(step)
        return events

    def _abandon(self, code: CloseCode, reason: str, now: float) -> list[Event]:
        return [Close(code, reason), *self.closed(code, now, reason=reason)]

    def _now_in(self, state: ClientState) -> list[Event]:
        self.state = state
        return [state]

    def state_of(self, name: str) -> SubStateName:
        """Where a declared subscription is; `failed` when it is not declared (any more)."""
        if name not in self._subs:
            return "failed"
        return "pending" if self._socket is None else self._socket.state_of(name)

    def cursor_of(self, name: str) -> Cursor | None:
        """Up to where a declared subscription has everything; None before its first `subok`."""
        return self._subs[name].cursor
