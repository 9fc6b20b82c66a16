"""One socket of a client: its timers, its limits, what it was asked for, and the texts that are to leave on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import attrs

from actors.protocol import messages as wire
from actors.protocol.backoff import WINDOW_MS, drawn
from actors.protocol.events import Notice, SubState, SubStateName
from actors.protocol.fields import Refused
from actors.protocol.limits import Limits
from actors.protocol.subscription import Place, Subscription


@attrs.define(eq=False, kw_only=True)
class Connection:
    """One socket, from the moment it is asked for.

    Attributes:
        number: names it in events and inputs.
        open_by: when it must have been welcomed; None once it was.
        is_successor: another is still in use, and what happens to the subscriptions here is not the application's
            concern yet.
        move_at: when to open its successor, at move_to. window: when to come back after its planned end.
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
    move_at: float | None = None
    move_to: str | None = None
    window: tuple[float, float] = WINDOW_MS
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
        self.opened, self.heard_at = True, now
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
        self.window = goaway.after_ms
        if self.has("goaway"):
            self.move_at, self.move_to = now + drawn(goaway.after_ms, random()), goaway.url

    def next_request(self) -> int:
        """The id of the next request of this connection."""
        self.requests += 1
        return self.requests

    def send(self, message: wire.ClientMessage) -> None:
        """One more text to send."""
        self.outgoing.append(message.encode())

    def ping(self, now: float) -> None:
        """Ask for a sign of life, and again after `ping_ms`."""
        self.ping_at = now + self.ping_ms
        self.outgoing.append(wire.PING)

    def notice(self, error: wire.Err) -> Notice:
        """An `err` about the connection, or about `hello`."""
        self.trouble = f"{error.slug}: {error.msg}"
        return Notice(code=error.code, slug=error.slug, msg=error.msg)

    # --- its subscriptions -----------------------------------------------------------------------------------

    def request(self, sub: Subscription) -> None:
        """Ask for a subscription (again), from where it is."""
        place = self.places.setdefault(sub.name, Place(sub.wanted()))
        place.coverage.restart()
        place.asked, place.retry_at = sub.wanted(), None
        place.request = self.next_request()
        self.send(sub.message(place.request))

    def request_missing(self, subs: Iterable[Subscription]) -> None:
        """Ask for those that were not asked for here."""
        for sub in subs:
            if sub.name not in self.places:
                self.request(sub)

    def leave(self, name: str) -> None:
        """Take a subscription back, if the server knows it or will."""
        place = self.places.pop(name, None)
        if place is not None and place.retry_at is None and self.is_welcomed:
            self.send(wire.Unsub(id=self.next_request(), s=name))

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
