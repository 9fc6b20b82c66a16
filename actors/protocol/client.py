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
from actors.protocol import requests
from actors.protocol.backoff import Backoff
from actors.protocol.codes import NORMAL, AfterClose, CloseCode, after_close
from actors.protocol.connection import Connection
from actors.protocol.cursor import Since
from actors.protocol.decoding import decode_server
from actors.protocol.encoding import JSON, Encoding
from actors.protocol.events import ClientState, Close, Event, Open, SubState, SubStateName
from actors.protocol.fields import Refused
from actors.protocol.publications import Publications
from actors.protocol.reads import Reads
from actors.protocol.sockets import Sockets
from actors.protocol.subscription import Subscription
from actors.protocol.subscriptions import Subscriptions
from actors.signals import Draft

CONNECT_MS = 5_000
MOVE_AGAIN_MS = 250  # a subscription without a cursor, or about to change, cannot move yet
FEATURES = ("goaway", "mod", "snap", "latest", "ack")
_NOT_WELCOMED = f"no welcome within {CONNECT_MS:,} ms"
_FINAL_STATUSES = frozenset({400, 401, 403, 404, 426})  # of a refused handshake (section 2.2)
# It was asked for all that is moved in its `hello`.
_OF_A_SUCCESSOR = (wire.Sig, wire.Live, wire.Gap, wire.Pong, wire.Ok, wire.Err)


@attrs.define(eq=False)
class ClientMachine:
    """Desired subscriptions and publications of one application, kept alive over any number of sockets.

    Each method takes the time in ms and returns the events that follow; the texts to send are collected by
    `texts_to_send`, one frame each. Call `tick` at `next_deadline_ms` at the latest.

    Normally there is one socket. After `goaway` a second one is opened, and takes the place of the first once it has
    everything that the first had (make before break). Inputs without a number are about the one in use.

    Args:
        random: draws in [0, 1).
        info: what the client says about itself in `hello`.
        features: what it asks for; without `goaway` there is never a second socket.
        encoding: what frames are. The texts to send are JSON all the same, and whoever sends them encodes them.
    """

    random: Callable[[], float]
    info: requests.ClientInfo | None = None
    features: tuple[str, ...] = FEATURES
    encoding: Encoding = JSON
    state: ClientState = attrs.field(factory=lambda: ClientState(state="closed", terminal=False), init=False)
    _subs: Subscriptions = attrs.field(factory=Subscriptions, init=False)
    _publications: Publications = attrs.field(factory=Publications, init=False)
    _reads: Reads = attrs.field(factory=Reads, init=False)
    _backoff: Backoff = attrs.field(init=False)
    _sockets: Sockets = attrs.field(factory=Sockets, init=False)
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
        self._reconnect_at = None
        closing = [Close(NORMAL, socket=number) for number in self._sockets.close()]
        return [*closing, *self._now_in(ClientState(state="closed", code=NORMAL, terminal=False))]

    def subscribe(
        self,
        name: str,
        filter: Filter,  # noqa: A002 - the protocol's word
        since: Since = "now",
        on_gap: requests.OnGap = "fail",
        min_ms: int = 0,
        on_slow: requests.OnSlow = "close",
    ) -> None:
        """Declare a subscription; it is requested on this connection and on every one after it.

        During a hand-over it waits for the end of that. `min_ms` is 0 for `mode` `all`.
        """
        sub = Subscription(name=name, filter=filter, since=since, on_gap=on_gap, min_ms=min_ms, on_slow=on_slow)
        self._subs.declare(sub)
        if self._sockets.is_ready and self._sockets.next is None:
            self._used.request(sub)

    def modify(self, name: str, change: requests.Change) -> None:
        """Change a subscription in place; `Modified` or `ModifyRefused` says when that has an end.

        One change at a time. A server without the feature `mod` gives no backfill.
        """
        sub = self._subs[name]
        assert sub.change is None, f"{name} is being changed"
        sub.change = change
        if self._sockets.is_ready and self._sockets.next is None:
            self._used.modify(sub)

    def unsubscribe(self, name: str) -> None:
        """Take a subscription back; unknown names are ignored, it may just have failed."""
        if self._subs.forget(name):
            self._sockets.leave(name)

    def rest(self, name: str) -> None:
        """Ask for no more of a subscription: its cursor stands still and the server's log keeps what comes."""
        self._subs[name].resting = True
        self._sockets.leave(name)

    def go_on(self, name: str) -> None:
        """Ask again for a subscription that rests, from its cursor."""
        sub = self._subs[name]
        sub.resting = False
        if self._sockets.is_ready and self._sockets.next is None:
            self._used.request(sub)

    def publish(self, draft: Draft) -> tuple[int, list[Event]]:
        """Send a publication now or after the next `welcome`; its outcome carries the key returned here.

        Raises: OutboxFull.
        """
        key = self._publications.add(draft)
        return key, self._flush()

    def forget_publication(self, key: int) -> None:
        """Nobody waits for this outcome any more."""
        self._publications.forget(key)

    def read(self, filter: Filter, since: Since, limit: int, reverse: bool) -> tuple[int, list[Event]]:  # noqa: A002
        """Ask for a page of what is stored, now or after the next `welcome`; its outcome carries the key returned here.

        Raises: TooManyReads.
        """
        key = self._reads.add(filter, since, limit, reverse)
        return key, self._flush()

    def forget_read(self, key: int) -> None:
        """Nobody waits for this page any more."""
        self._reads.forget(key)

    # --- the transport -------------------------------------------------------------------------------------

    def opened(self, now: float, token: str | None = None, socket: int | None = None) -> None:
        """The socket that `Open` asked for is there: say hello."""
        opened = self._sockets.find(socket)
        if opened is None:
            return
        request = opened.open(now)
        names = list(self._used.places) if opened.is_successor else [sub.name for sub in self._subs if not sub.resting]
        opened.send(
            requests.Hello(
                id=request,
                token=token,
                resume=self._resume,
                client=self.info,
                features=self.features,
                subs=self._subs.enter(opened, request, names),
            )
        )

    def authenticate(self, token: str, socket: int | None = None) -> None:
        """Go on with a newer token on a welcomed socket; `Notice` if the server refuses the newest that was shown."""
        if (found := self._sockets.find(socket)) is not None and found.is_welcomed:
            found.authenticate(token)

    def receive(self, frame: str | bytes, now: float, socket: int | None = None) -> list[Event]:
        """One frame from the server."""
        receiving = self._sockets.find(socket)
        if receiving is None:
            return []
        receiving.heard_at = now
        events: list[Event] = []
        messages = decode_server(frame, self.encoding)
        while True:
            try:
                message = next(messages, None)
                if message is None:
                    break
                events += self._handle(receiving, message, now)
            except Refused as refused:
                receiving.fail(CloseCode.GAP, f"bad message: {refused}")
            if receiving.failure is not None:
                return [*events, *self._abandon(receiving, *receiving.failure, now)]
            events += self._move_when_ready()
            if self._sockets.find(receiving.number) is None:
                return events
        receiving.moved(now)
        return events

    def closed(
        self,
        code: int | None,
        now: float,
        *,
        reason: str = "",
        status: int | None = None,
        retry_after_ms: float | None = None,
        socket: int | None = None,
    ) -> list[Event]:
        """The socket ended, or could not be opened.

        Args:
            code: the close code; None without one.
            now: ms.
            reason: what the server, or the network, said.
            status: the HTTP status of a refused handshake.
            retry_after_ms: what a refused handshake asked for.
            socket: its number.
        """
        ended = self._sockets.find(socket)
        if ended is None:
            return []
        if ended.is_successor:
            return self._stay()
        does = AfterClose.STOP if status in _FINAL_STATUSES else after_close(code, told_to_go=ended.was_told_to_go)
        if ended.welcomed_at is not None:
            self._backoff.ended(now - ended.welcomed_at, planned=does is AfterClose.WINDOW)
        if self._sockets.next is not None and does is not AfterClose.STOP:
            return self._move_on()
        closing = [Close(NORMAL, socket=number) for number in self._sockets.close() if number != ended.number]
        self._publications.disconnected()
        self._reads.disconnected()
        reason = reason or ended.trouble
        if does is AfterClose.STOP:
            shown = code if status is None else status
            return [*closing, *self._now_in(ClientState(state="closed", code=shown, reason=reason, terminal=True))]
        attempt = self._backoff.failures + 1
        delay = self._backoff.delay_ms(ended.window if does is AfterClose.WINDOW else None, retry_after_ms)
        self._reconnect_at = now + delay
        return self._now_in(
            ClientState(
                state="reconnecting",
                attempt=attempt,
                delay_ms=delay,
                code=code,
                reason=reason,
            )
        )

    def texts_to_send(self, socket: int | None = None) -> list[str]:
        """The frames to send on a socket, in order; each is handed out once."""
        sending = self._sockets.find(socket)
        if sending is None:
            return []
        texts, sending.outgoing = sending.outgoing, []
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
        if not reading:
            for socket in self._sockets:
                socket.heard_at = now
        events: list[Event] = []
        while due := sorted((timer for timer in self._timers() if timer[0] <= now), key=lambda timer: timer[0]):
            events += due[0][1](now)
        return events

    def _timers(self) -> Iterator[tuple[float, Callable[[float], list[Event]]]]:
        if self._reconnect_at is not None:
            yield self._reconnect_at, self._connect
        for socket in self._sockets:
            if socket.open_by is not None:
                yield socket.open_by, partial(self._abandon, socket, CloseCode.DEAD_LINK, _NOT_WELCOMED)
                continue
            yield socket.dead_at, partial(self._dead, socket)
            if socket.ping_at is not None:
                yield socket.ping_at, partial(self._ping, socket)
            if socket.ack_at is not None:
                yield socket.ack_at, partial(self._acknowledge, socket)
            if socket.move_at is not None:
                yield socket.move_at, partial(self._move, socket)
            for name, at in socket.retries():
                yield at, partial(self._retry, socket, self._subs[name])
        if self._sockets.is_ready and self._publications.paused_until_ms is not None:
            yield self._publications.paused_until_ms, self._unpause

    def _connect(self, now: float) -> list[Event]:
        self._reconnect_at = None
        socket = self._sockets.ask(now + CONNECT_MS)
        state = ClientState(state="connecting" if not self._resume else "resuming")
        return [*self._now_in(state), Open(socket.number)]

    def _dead(self, socket: Connection, now: float) -> list[Event]:
        silence = socket.ping_ms + socket.dead_ms
        return self._abandon(socket, CloseCode.DEAD_LINK, f"nothing received for {silence:,} ms", now)

    def _ping(self, socket: Connection, now: float) -> list[Event]:
        socket.ping(now)
        return []

    def _acknowledge(self, socket: Connection, now: float) -> list[Event]:
        socket.acknowledge()
        return []

    def _retry(self, socket: Connection, sub: Subscription, now: float) -> list[Event]:
        if socket.state_of(sub.name) == "pending":
            socket.request(sub)
        else:
            socket.modify(sub)
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
        if isinstance(message, wire.Err) and message.id in (None, socket.renews):
            return [socket.notice(message)]
        if socket.is_successor and not isinstance(message, _OF_A_SUCCESSOR):
            socket.fail(CloseCode.GAP, "not the subscriptions that were moved")
            return ()
        return self._handle_welcomed(socket, message, now)

    def _handle_welcomed(self, socket: Connection, message: wire.ServerMessage, now: float) -> Iterable[Event]:
        match message:
            case wire.Sig():
                return self._subs.sig(socket, message, now)
            case wire.SubOk():
                return self._subs.subok(socket, message, now)
            case wire.Snap():
                return self._subs.snap(socket, message)
            case wire.Live():
                return self._subs.live(socket, message, now)
            case wire.Gap():
                return self._subs.gap(socket, message)
            case wire.Ok() | wire.Err() | wire.Page():
                return self._answered(socket, message, now)
            case wire.Unsubbed():
                return self._without_failed(self._subs.ended(socket, message.s, message.code, message.reason))
            case wire.Reset():
                return [*self._leave_successor("the stream was reset"), *self._subs.reset(socket)]
            case wire.Goaway():
                socket.told_to_go(message, now, self.random)
                return self._now_in(ClientState(state="draining", reason=message.reason))
            case _:  # pong
                socket.answered(now)
                return ()

    def _welcomed(self, socket: Connection, welcome: wire.Welcome, now: float) -> Iterable[Event]:
        socket.greet(welcome, now, self.random())
        self._resume = welcome.resume
        if socket.is_successor:
            return self._subs.welcomed(socket, welcome, now)
        return [
            *self._now_in(_connected(welcome)),
            *self._subs.welcomed(socket, welcome, now),
            *self._requested(socket),
        ]

    def _answered(self, socket: Connection, answer: wire.Ok | wire.Err | wire.Page, now: float) -> Iterable[Event]:
        if socket.is_successor:
            return ()  # to `unsub` or `auth`; who waits for an answer has an id of the socket in use
        if isinstance(answer, wire.Err):
            for name in socket.awaiting(answer.id):
                return self._without_failed(self._subs.refused(socket, name, answer, now))
        outcome: Event | None = None if isinstance(answer, wire.Ok) else self._reads.answered(answer)
        if outcome is None and not isinstance(answer, wire.Page):
            outcome = self._publications.answered(answer, now)
        return [*([] if outcome is None else [outcome]), *self._flush()]

    def _without_failed(self, events: Iterable[Event]) -> Iterable[Event]:
        """A subscription that the server will have no more of is none of the successor's either."""
        for event in events:
            if isinstance(event, SubState) and event.state == "failed":
                self._sockets.leave(event.s)
            yield event

    # --- make before break (section 2.14) --------------------------------------------------------------------

    def _move(self, socket: Connection, now: float) -> list[Event]:
        if any(sub.cursor is None or sub.change is not None for sub in self._subs if not sub.resting):
            socket.move_at = now + MOVE_AGAIN_MS
            return []
        socket.move_at = None
        if self._sockets.next is not None:  # told twice
            return []
        return [Open(self._sockets.ask(now + CONNECT_MS).number, socket.move_to)]

    def _move_when_ready(self) -> list[Event]:
        """The successor takes over once it is live and has everything that the one before had."""
        if not self._sockets.has_moved(self._subs):
            return []
        return [Close(NORMAL, "moved", self._used.number), *self._move_on()]

    def _move_on(self) -> list[Event]:
        old = self._used
        self._sockets.succeed()
        self._publications.disconnected()
        self._reads.disconnected()
        if self._used.welcome is None:
            return self._now_in(ClientState(state="resuming"))
        events = self._now_in(_connected(self._used.welcome))
        return [*events, *self._used.changes(old), *self._requested(self._used)]

    def _leave_successor(self, reason: str) -> list[Event]:
        successor = self._sockets.next
        return [] if successor is None else [Close(NORMAL, reason, successor.number), *self._stay()]

    def _stay(self) -> list[Event]:
        """The successor is nothing: go on with the socket in use until that ends."""
        self._sockets.next = None
        return self._requested(self._used)

    # --- small steps ---------------------------------------------------------------------------------------

    @property
    def _used(self) -> Connection:
        assert self._sockets.used is not None, "there is no socket"
        return self._sockets.used

    def _requested(self, socket: Connection) -> list[Event]:
        """Send what waited for this socket."""
        if not socket.is_welcomed:
            return []
        socket.request_missing(self._subs)
        return self._flush()

    def _flush(self) -> list[Event]:
        if not self._sockets.is_ready:
            return []
        socket = self._used
        socket.outgoing += self._reads.flush(socket.next_request)
        events: list[Event] = []
        for step in self._publications.flush(socket.next_request, socket.message_bytes, self.encoding):
            if isinstance(step, str):
                socket.outgoing.append(step)
            else:
                events.append(step)
        return events

    def _abandon(self, socket: Connection, code: int, reason: str, now: float) -> list[Event]:
        closing = Close(code, reason, socket.number)
        return [closing, *self.closed(code, now, reason=reason, socket=socket.number)]

    def _now_in(self, state: ClientState) -> list[Event]:
        self.state = state
        return [state]

    @property
    def rtt_ms(self) -> float | None:
        """How long the last answer to `hello` or a ping took on the socket in use; None without one."""
        return None if self._sockets.used is None else self._sockets.used.rtt_ms

    def state_of(self, name: str) -> SubStateName:
        """Where a declared subscription is; `failed` when it is not declared (any more)."""
        if name not in self._subs:
            return "failed"
        return "pending" if self._sockets.used is None else self._used.state_of(name)

    def filter_of(self, name: str) -> Filter:
        """The filter of a declared subscription that is in force."""
        return self._subs[name].filter

    def since_of(self, name: str) -> Since:
        """Where a declared subscription goes on: at its cursor, and before its first `subok` where it was to begin."""
        return self._subs[name].wanted()


def _connected(welcome: wire.Welcome) -> ClientState:
    return ClientState(state="connected", session=welcome.session, resumed=welcome.resumed)
