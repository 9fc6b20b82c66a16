"""The client of `signals.v1` as a pure machine: inputs and time in, events and texts out, across reconnects.

No socket, no clock, no randomness of its own. What it does where the protocol leaves a choice is written in
`vectors/README.md`, which every client follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import attrs

from actors.filters import Filter
from actors.protocol import messages as wire
from actors.protocol.backoff import WINDOW_MS, Backoff
from actors.protocol.codes import AfterClose, CloseCode, after_close
from actors.protocol.connection import Connection, Subscription
from actors.protocol.coverage import Loss
from actors.protocol.cursor import Cursor, Since
from actors.protocol.decoding import decode_server
from actors.protocol.events import (
    ClientState,
    Close,
    Event,
    Gap,
    GapDetected,
    Notice,
    Open,
    Signals,
    SubState,
    SubStateName,
)
from actors.protocol.fields import Refused
from actors.protocol.limits import Limits
from actors.protocol.publications import Publications
from actors.signals import Draft

CONNECT_MS = 5_000
LOSS_WINDOW_MS = 10_000
SUB_RETRY_MS = 1_000
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
    _subs: dict[str, Subscription] = attrs.field(factory=dict[str, Subscription], init=False)
    _publications: Publications = attrs.field(factory=Publications, init=False)
    _backoff: Backoff = attrs.field(init=False)
    _socket: Connection | None = attrs.field(default=None, init=False)
    _reconnect_at: float | None = attrs.field(default=None, init=False)
    _resume: str | None = attrs.field(default=None, init=False)
    _outgoing: list[str] = attrs.field(factory=list[str], init=False)

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
        self._outgoing.clear()
        return [*closing, *self._now_in(ClientState(state="closed", code=1000, terminal=False))]

    def subscribe(
        self,
        name: str,
        filter: Filter,  # noqa: A002 - the protocol's word
        since: Since = "now",
        on_gap: wire.OnGap = "fail",
    ) -> None:
        """Declare a subscription; it is requested on this connection and on every one after it."""
        assert name not in self._subs, f"{name} is declared already"
        sub = self._subs[name] = Subscription(name=name, filter=filter, since=since, on_gap=on_gap)
        if self._is_welcomed:
            self._request(sub)

    def unsubscribe(self, name: str) -> None:
        """Take a subscription back; unknown names are ignored, it may just have failed."""
        sub = self._subs.pop(name, None)
        if sub is not None and self._is_welcomed and sub.retry_at is None:
            self._send(wire.Unsub(id=self._live_socket.next_request(), s=name))

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
        socket.opened, socket.heard_at = True, now
        request = socket.next_request()
        for sub in self._subs.values():
            sub.request = request
        self._send(
            wire.Hello(
                id=request,
                token=token,
                resume=self._resume,
                client=self.info,
                subs=tuple(sub.message(None) for sub in self._subs.values()),
            )
        )

    def receive(self, frame: str, now: float) -> list[Event]:
        """One text frame from the server."""
        if not self._has_socket:
            return []
        self._live_socket.heard_at = now
        events: list[Event] = []
        for line in frame.split("\n"):
            try:
                for message in decode_server(line):
                    events += self._handle(message, now)
            except Refused as refused:
                return [*events, *self._abandon(CloseCode.GAP, f"bad message: {refused}", now)]
            if self._socket is None:
                break
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
        self._outgoing.clear()
        self._publications.disconnected()
        for sub in self._subs.values():
            sub.coverage.restart()
            sub.request = sub.retry_at = sub.lost_at = None
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
        texts, self._outgoing = self._outgoing, []
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
        yield self._socket.heard_at + self._socket.ping_ms + self._socket.dead_ms, self._dead
        if self._socket.ping_at is not None:
            yield self._socket.ping_at, self._ping
        if self._publications.paused_until_ms is not None:
            yield self._publications.paused_until_ms, self._unpause
        for sub in self._subs.values():
            if sub.retry_at is not None:
                yield sub.retry_at, partial(self._retry, sub)

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
        socket = self._live_socket
        socket.ping_at = now + socket.ping_ms
        self._outgoing.append(wire.PING)
        return []

    def _retry(self, sub: Subscription, now: float) -> list[Event]:
        return self._request(sub)

    def _unpause(self, now: float) -> list[Event]:
        self._publications.paused_until_ms = None
        return self._flush()

    # --- messages ------------------------------------------------------------------------------------------

    def _handle(self, message: wire.ServerMessage, now: float) -> list[Event]:
        if isinstance(message, wire.Welcome):
            return self._welcomed(message, now)
        if not self._is_welcomed:
            return self._notice(message) if isinstance(message, wire.Err) else []
        match message:
            case wire.Sig():
                return self._sig(message, now)
            case wire.SubOk():
                sub = self._awaiting(message.s, message.id)
                return [] if sub is None else self._accepted(sub, message)
            case wire.Live():
                return self._live(message, now)
            case wire.Gap():
                return self._gap(message)
            case wire.Ok() | wire.Err():
                return self._answered(message, now)
            case wire.Unsubbed():
                sub = self._subs.get(message.s)
                return [] if sub is None else self._failed(sub, message.code, message.reason)
            case wire.Reset():
                return self._reset()
            case wire.Goaway():
                self._live_socket.window = message.after_ms
                return self._now_in(ClientState(state="draining", reason=message.reason))
            case wire.Pong():
                return []

    def _welcomed(self, welcome: wire.Welcome, now: float) -> list[Event]:
        socket = self._live_socket
        if not socket.opened or self._is_welcomed:
            raise Refused("welcome does not answer hello", at="")
        answers = {answer.s: answer for answer in welcome.subs if answer.s is not None}
        if any(sub.request is not None and sub.name not in answers for sub in self._subs.values()):
            raise Refused("welcome does not answer every subscription of hello", at="/subs")
        socket.open_by, socket.welcomed_at = None, now
        socket.ping_ms, socket.dead_ms = welcome.ping_ms, welcome.dead_ms
        socket.ping_at = now + welcome.ping_ms * self.random()
        limit = welcome.limits.get("msg_bytes")
        socket.message_bytes = limit if isinstance(limit, int) else Limits().msg_bytes
        self._resume = welcome.resume
        events = self._now_in(ClientState(state="connected", session=welcome.session, resumed=welcome.resumed))
        for name, answer in answers.items():
            sub = self._awaiting(name, welcome.id)
            if isinstance(answer, wire.Err):
                events += [] if sub is None else self._refused(sub, answer, now)
            elif sub is not None:
                events += self._accepted(sub, answer)
            else:  # the application took it back while hello was on its way
                self._send(wire.Unsub(id=socket.next_request(), s=name))
        for sub in self._subs.values():
            if sub.request is None and sub.coverage.state == "pending" and sub.retry_at is None:
                self._request(sub)
        return [*events, *self._flush()]

    def _accepted(self, sub: Subscription, answer: wire.SubOk) -> list[Event]:
        asked = sub.wanted()
        sub.request = None
        sub.coverage.accept(answer.since, answer.g)
        events: list[Event] = [SubState(s=sub.name, state="catchup", since=answer.since)]
        if not isinstance(asked, Cursor) or answer.recovered is not False or answer.since == asked:
            return events
        known = answer.lost is not None and answer.since.epoch == asked.epoch
        gap = Gap(
            s=sub.name,
            a=asked.offset if known else None,
            b=answer.since.offset if known else None,
            reason="retention" if known else "epoch",
            epoch=answer.since.epoch,
            c=answer.since.offset,
        )
        return [*events, gap]

    def _sig(self, frame: wire.Sig, now: float) -> list[Event]:
        if frame.s is not None:
            named = self._subs.get(frame.s)
            subs = [] if named is None else [named]
        else:
            subs = list(self._subs.values())
        events: list[Event] = []
        for sub in subs:
            if not sub.coverage.counts(frame):
                continue
            try:
                signals = sub.coverage.take(frame)
            except Loss as loss:
                events += self._lost(sub, loss, now)
                if not self._has_socket:
                    break
                continue
            if signals is not None:
                assert sub.coverage.cursor is not None
                events.append(Signals(s=sub.name, signals=signals, epoch=sub.coverage.cursor.epoch, c=frame.b))
        return events

    def _live(self, live: wire.Live, now: float) -> list[Event]:
        sub = self._subs.get(live.s)
        if sub is None or sub.coverage.state != "catchup":
            return []
        try:
            sub.coverage.go_live(live)
        except Loss as loss:
            return self._lost(sub, loss, now)
        return [SubState(s=sub.name, state="live")]

    def _gap(self, gap: wire.Gap) -> list[Event]:
        sub = self._subs.get(gap.s)
        if sub is None or sub.coverage.state == "pending" or (after := sub.coverage.skip(gap)) is None:
            return []
        assert sub.coverage.cursor is not None
        epoch = sub.coverage.cursor.epoch
        return [Gap(s=sub.name, a=after, b=gap.b, reason=gap.reason, epoch=epoch, c=gap.b)]

    def _lost(self, sub: Subscription, loss: Loss, now: float) -> list[Event]:
        assert sub.coverage.cursor is not None
        detected = GapDetected(s=sub.name, c=sub.coverage.cursor.offset, a=loss.a)
        if sub.lost_at is not None and now - sub.lost_at < LOSS_WINDOW_MS:
            reason = f"frames of {sub.name} were lost twice within {LOSS_WINDOW_MS:,} ms"
            return [detected, *self._abandon(CloseCode.GAP, reason, now)]
        sub.lost_at = now
        self._send(wire.Unsub(id=self._live_socket.next_request(), s=sub.name))
        return [detected, *self._request(sub)]

    def _answered(self, answer: wire.Ok | wire.Err, now: float) -> list[Event]:
        if isinstance(answer, wire.Err):
            if answer.id is None:
                return self._notice(answer)
            waiting = next((sub for sub in self._subs.values() if sub.request == answer.id), None)
            if waiting is not None:
                return self._refused(waiting, answer, now)
        outcome = self._publications.answered(answer, now)
        return [*([] if outcome is None else [outcome]), *self._flush()]

    def _refused(self, sub: Subscription, error: wire.Err, now: float) -> list[Event]:
        if not error.retry:
            return self._failed(sub, error.code, f"{error.slug}: {error.msg}")
        sub.request = None
        sub.retry_at = now + (SUB_RETRY_MS if error.retry_after_ms is None else error.retry_after_ms)
        return []

    def _failed(self, sub: Subscription, code: int, reason: str) -> list[Event]:
        del self._subs[sub.name]
        return [SubState(s=sub.name, state="failed", code=code, reason=reason)]

    def _reset(self) -> list[Event]:
        events: list[Event] = []
        for sub in self._subs.values():
            sub.since = "earliest" if sub.on_gap == "skip" else "now"
            sub.coverage.forget()
            events.append(Gap(s=sub.name, a=None, b=None, reason="epoch", epoch=None, c=None))
            self._request(sub)
        return events

    def _notice(self, error: wire.Err) -> list[Event]:
        self._live_socket.trouble = f"{error.slug}: {error.msg}"
        return [Notice(code=error.code, slug=error.slug, msg=error.msg)]

    # --- small steps ---------------------------------------------------------------------------------------

    @property
    def _live_socket(self) -> Connection:
        assert self._socket is not None, "there is no socket"
        return self._socket

    @property
    def _has_socket(self) -> bool:
        return self._socket is not None

    @property
    def _is_welcomed(self) -> bool:
        return self._socket is not None and self._socket.welcomed_at is not None

    def _awaiting(self, name: str, request: int | None) -> Subscription | None:
        sub = self._subs.get(name)
        return sub if sub is not None and request is not None and sub.request == request else None

    def _request(self, sub: Subscription) -> list[Event]:
        sub.coverage.restart()
        sub.retry_at = None
        sub.request = self._live_socket.next_request()
        self._send(sub.message(sub.request))
        return []

    def _flush(self) -> list[Event]:
        if not self._is_welcomed:
            return []
        socket = self._live_socket
        events: list[Event] = []
        for step in self._publications.flush(socket.next_request, socket.message_bytes):
            if isinstance(step, str):
                self._outgoing.append(step)
            else:
                events.append(step)
        return events

    def _abandon(self, code: CloseCode, reason: str, now: float) -> list[Event]:
        return [Close(code, reason), *self.closed(code, now, reason=reason)]

    def _now_in(self, state: ClientState) -> list[Event]:
        self.state = state
        return [state]

    def _send(self, message: wire.ClientMessage) -> None:
        self._outgoing.append(message.encode())

    def state_of(self, name: str) -> SubStateName:
        """Where a declared subscription is; `failed` when it is not declared (any more)."""
        sub = self._subs.get(name)
        return "failed" if sub is None else sub.coverage.state
