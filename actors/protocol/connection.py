"""One socket of a client: its timers, its limits, what it was asked for, and the texts that are to leave on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import attrs

from actors.protocol import messages as wire
from actors.protocol.backoff import WINDOW_MS, drawn
from actors.protocol.events import Notice, SubState, SubStateName
from actors.protocol.fields import Refused
from actors.protocol.limits import Limits
from actors.protocol.requests import PING, Ack, Auth, Change, ClientMessage, Mod, Unsub
from actors.protocol.subscription import Place, Subscription

ACK_MS = 5_000


@attrs.define(eq=False, kw_only=True)
class Connection:
    """One socket, from the moment it is asked for.

    Attributes:
        number: names it in events and inputs.
        open_by: when it must have been welcomed; None once it was.
        is_successor: another is still in use, and what happens to the subscriptions here is not the application's
            concern yet.
        asked_at: when `hello` or the ping left that is not answered. rtt_ms: how long the last answer took.
        move_at: when to open its successor, at move_to. window: when to come back after its planned end.
        was_told_to_go: by `goaway`.
        acked: how far the server was told that subscriptions are. ack_at: when to tell it again.
        renews: the id of the last `auth`; what became of a token before it is no news any more.
        trouble: the last `err` about it, for the words of a terminal close.
        failure: why it is of no more use, and the code to close it with.
    """

    number: int
    open_by: float | None
    is_successor: bool = False
    opened: bool = False
    welcomed_at: float | None = None
    welcome: wire.Welcome | None = None
    places: dict[str, Place] = attrs.Factory(dict[str, Place])
    outgoing: list[str] = attrs.Factory(list[str])
    requests: int = 0
    heard_at: float = 0
    ping_at: float | None = None
    ping_ms: int = 0
    dead_ms: int = 0
    message_bytes: int = 0
    asked_at: float | None = None
    rtt_ms: float | None = None
    move_at: float | None = None
    move_to: str | None = None
    window: tuple[float, float] = WINDOW_MS
    was_told_to_go: bool = False
    acked: dict[str, int] = attrs.Factory(dict[str, int])
    ack_at: float | None = None
    renews: int | None = None
    trouble: str = ""
    failure: tuple[int, str] | None = None

    @property
    def is_welcomed(self) -> bool:
        """The server has answered hello."""
        return self.welcomed_at is not None

    @property
    def dead_at(self) -> float:
        """When it counts as dead, should nothing more be heard."""
        return self.heard_at + self.ping_ms + self.dead_ms

    def open(self, now: float) -> int:
        """It is there; returns the id for `hello`."""
        self.opened, self.heard_at, self.asked_at = True, now, now
        return self.next_request()

    def greet(self, welcome: wire.Welcome, now: float, draw: float) -> None:
        """`welcome` has come; `draw` in [0, 1) places the first ping.

        Raises: Refused, when it is none for this hello.
        """
        if not self.opened or self.is_welcomed:
            raise Refused("welcome does not answer hello", at="")
        answered = {answer.s for answer in welcome.subs}
        if not answered.issuperset(self.places):
            raise Refused("welcome does not answer every subscription of hello", at="/subs")
        self.open_by, self.welcomed_at, self.welcome = None, now, welcome
        self.answered(now)
        self.ping_ms, self.dead_ms = welcome.ping_ms, welcome.dead_ms
        self.ping_at = now + welcome.ping_ms * draw
        limit = welcome.limits.get("msg_bytes")
        self.message_bytes = limit if isinstance(limit, int) else Limits().msg_bytes

    def fail(self, code: int, reason: str) -> None:
        """It is of no more use."""
        self.failure = (code, reason)

    def has(self, feature: str) -> bool:
        """Whether the server has granted a feature."""
        return self.welcome is not None and feature in self.welcome.features

    def told_to_go(self, goaway: wire.Goaway, now: float, random: Callable[[], float]) -> None:
        """`goaway`: when to open its successor, or to come back after its end; a draw in [0, 1) places the former."""
        self.window, self.was_told_to_go = goaway.after_ms, True
        if self.has("goaway"):
            self.move_at, self.move_to = now + drawn(goaway.after_ms, random()), goaway.url

    def next_request(self) -> int:
        """The id of the next request of this connection."""
        self.requests += 1
        return self.requests

    def send(self, message: ClientMessage) -> None:
        """One more text to send."""
        self.outgoing.append(message.encode())

    def authenticate(self, token: str) -> None:
        """Go on with a newer token."""
        self.renews = self.next_request()
        self.send(Auth(id=self.renews, token=token))

    def ping(self, now: float) -> None:
        """Ask for a sign of life, and again after `ping_ms`."""
        self.ping_at, self.asked_at = now + self.ping_ms, now
        self.outgoing.append(PING)

    def answered(self, now: float) -> None:
        """`hello` or a ping was answered."""
        if self.asked_at is not None:
            self.rtt_ms, self.asked_at = now - self.asked_at, None

    def moved(self, now: float) -> None:
        """Cursors may have moved: tell the server in a while, if it wants to know."""
        if self.ack_at is None and self.has("ack") and self._unacknowledged():
            self.ack_at = now + ACK_MS

    def acknowledge(self) -> None:
        """Tell the server how far the subscriptions are that have moved on."""
        self.ack_at = None
        news = self._unacknowledged()
        if news:
            self.acked |= news
            self.send(Ack(news))

    def _unacknowledged(self) -> dict[str, int]:
        at = {s: place.coverage.at.offset for s, place in self.places.items() if place.coverage.state == "live"}
        return {s: offset for s, offset in at.items() if self.acked.get(s) != offset}

    def notice(self, error: wire.Err) -> Notice:
        """An `err` about the connection, about `hello` or about `auth`."""
        self.trouble = f"{error.slug}: {error.msg}"
        return Notice(code=error.code, slug=error.slug, msg=error.msg)

    # --- its subscriptions -----------------------------------------------------------------------------------

    def request(self, sub: Subscription, change: Change | None = None) -> None:
        """Ask for a subscription (again), from where it is, and with a change of it."""
        place = self.places.setdefault(sub.name, Place(sub.wanted()))
        place.coverage.restart()
        place.asked, place.retry_at, place.modifies, place.snapping = sub.wanted(), None, False, False
        place.change = change or sub.change_by_sub
        place.request = self.next_request()
        self.send(sub.message(place.request, place.change))

    def request_again(self, sub: Subscription) -> None:
        """Ask for it on this socket from its cursor, after frames of it were lost here."""
        self.send(Unsub(id=self.next_request(), s=sub.name))
        self.request(sub)

    def modify(self, sub: Subscription) -> None:
        """Ask for the change that a subscription is to undergo, unless something else is to happen before."""
        place = self.places.get(sub.name)
        if sub.change is None or place is None or place.coverage.state == "pending":
            return
        if place.request is not None or place.snapping:
            return
        if self.has("mod"):
            place.change, place.retry_at, place.modifies = sub.change, None, True
            place.request = self.next_request()
            self.send(Mod(id=place.request, s=sub.name, change=sub.change))
        else:  # what is older than the cursor is not to be had from this server
            self.send(Unsub(id=self.next_request(), s=sub.name))
            self.request(sub, sub.change)

    def request_missing(self, subs: Iterable[Subscription]) -> None:
        """Ask for those that were not asked for here, and for changes."""
        for sub in subs:
            if sub.resting:
                continue
            if sub.name not in self.places:
                self.request(sub)
            else:
                self.modify(sub)

    def leave(self, name: str) -> None:
        """Take a subscription back, if the server knows it or will."""
        place = self.places.pop(name, None)
        if place is not None and self.is_welcomed and (place.retry_at is None or place.coverage.state != "pending"):
            self.send(Unsub(id=self.next_request(), s=name))

    def addressed(self, frame: wire.Sig) -> list[str]:
        """The subscriptions that a `sig` frame counts for."""
        names = list(self.places) if frame.s is None else [frame.s]
        return [name for name in names if name in self.places and self.places[name].coverage.counts(frame)]

    def awaiting(self, request: int | None) -> list[str]:
        """The subscriptions whose answer has this id: one, or those of `hello`."""
        return [s for s, place in self.places.items() if place.request == request and request is not None]

    def retries(self) -> Iterator[tuple[str, float]]:
        """Subscriptions to be asked for again, and when."""
        return ((s, place.retry_at) for s, place in self.places.items() if place.retry_at is not None)

    def state_of(self, name: str) -> SubStateName:
        """Where a subscription is on this socket."""
        return self.places[name].coverage.state if name in self.places else "pending"

    def changes(self, old: Connection) -> Iterator[SubState]:
        """Subscriptions that are further, or less far, here than on the socket before."""
        for name, place in self.places.items():
            state = place.coverage.state
            if state not in ("pending", old.state_of(name)):
                yield SubState(s=name, state=state, since=place.coverage.cursor if state == "catchup" else None)
