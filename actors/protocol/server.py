"""The server's side of one connection, sans-I/O: which messages are allowed when, and what is answered.

The shard feeds it frames, carries out the requests it gives back, and sends the texts it makes. What must survive an
eviction of the shard is one frozen value (`Remembered`), kept in the socket's attachment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from actors.protocol.codes import (
    BAD_MESSAGE,
    DUPLICATE_SUB,
    OVERLOADED,
    RATE_LIMITED,
    TOO_LARGE,
    UNAUTHENTICATED,
    UNKNOWN_SUB,
    CloseCode,
    ErrorCode,
)
from actors.protocol.cursor import Cursor
from actors.protocol.decoding import decode_client
from actors.protocol.limits import Limits
from actors.protocol.messages import (
    PONG,
    ClientMessage,
    Err,
    Gap,
    Hello,
    Hist,
    Live,
    Lost,
    Ok,
    OnGap,
    Ping,
    Pub,
    Sub,
    SubOk,
    Unsub,
    Welcome,
    encode_sig,
)
from actors.protocol.rate import TokenBucket

BAD_MESSAGES = 10  # ours: then the peer is no client of this protocol, and is closed with 4001
RATE_VIOLATIONS = 3
FEATURES = ("goaway",)  # of those that a client may list, what this server has
RATE_VIOLATIONS_S = 60.0


@attrs.frozen
class Subscription:
    """One subscription of a connection.

    Attributes:
        group: whose live frames it gets. cursor: where the next page begins; once live, where it joined.
        live: it is a member of its group. on_gap: what it asked for.
        filter: unknown here; the broadcaster has it under the group's number.
    """

    group: int
    cursor: int
    live: bool = False
    on_gap: OnGap = "fail"


@attrs.frozen(kw_only=True)
class Remembered:
    """What a connection is, besides its socket.

    Attributes:
        user: whose token it showed, "" for nobody. peer: its address.
        counted: the limits of rates and counts apply to it. session: "" until it was welcomed.
        moves: it knows what to do about `goaway`.
    """

    user: str = ""
    peer: str = ""
    counted: bool = False
    session: str = ""
    moves: bool = False
    subs: Mapping[str, Subscription] = attrs.field(factory=dict)

    def with_subs(self, subs: Mapping[str, Subscription]) -> Remembered:
        """The same with other subscriptions; `attrs.evolve`, which is slow, would be a part of every subscription."""
        return Remembered(
            user=self.user,
            peer=self.peer,
            counted=self.counted,
            session=self.session,
            moves=self.moves,
            subs=subs,
        )


@attrs.frozen
class Close:
    """Close the connection, after sending `text` if there is one."""

    code: CloseCode
    reason: str
    text: str | None = None


@attrs.frozen
class Reply:
    """Send this text."""

    text: str


Request = Hello | Sub | Unsub | Pub | Hist
Step = Request | Reply | Close


@attrs.define(eq=False)
class ServerMachine:
    """The protocol of one connection.

    Args:
        limits: what it may do. state: who it is, and after an eviction what it had.
    """

    limits: Limits
    state: Remembered
    _hello_seen: bool = attrs.field(init=False)
    _bad: int = 0
    _bucket: TokenBucket | None = None
    _violations: list[float] = attrs.Factory(list)

    def __attrs_post_init__(self) -> None:
        self._hello_seen = bool(self.state.session)
        self._count()

    # What arrives.

    @property
    def greeted(self) -> bool:
        """The hello has come."""
        return self._hello_seen

    def receive(self, frame: str | bytes) -> Sequence[ClientMessage | Err]:
        """The messages of a frame, to be handed to `step` one by one when the one before is done."""
        if isinstance(frame, bytes):
            return (Err.of(BAD_MESSAGE, "a binary frame; signals.v1.json sends text frames", at=""),)
        return decode_client(frame, self.limits)

    def step(self, message: ClientMessage | Err, now: float) -> Step:
        """What to do about the next message: carry out a request, send a text, or close."""
        if (limited := self._rate(message, now)) is not None:
            return limited
        match message:
            case Err():
                self._bad += 1
                if self._bad > BAD_MESSAGES:
                    return Close(CloseCode.BAD_MESSAGE, f"{self._bad} bad messages", message.encode())
                if not self._hello_seen:
                    return Close(CloseCode.NOT_HELLO, "the first message is hello", message.encode())
                return Reply(message.encode())
            case Ping():
                return Reply(PONG)
            case Hello() if self._hello_seen:
                return Close(CloseCode.ALREADY_HELLO, "a second hello")
            case Hello():
                self._hello_seen = True
                return message
            case _ if not self._hello_seen:
                return Close(CloseCode.NOT_HELLO, "the first message is hello")
            case Sub():
                refused = self._refused(message, self.state.subs)
                return message if refused is None else Reply(refused.encode())
            case Unsub(id=id_, s=s) if s not in self.state.subs:
                return Reply(Err.of(UNKNOWN_SUB, f"no subscription {s!r}", id=id_, at="/s").encode())
            case _:
                return message

    def patience(self, open_s: float, silent_s: float, heartbeat_s: float) -> tuple[float, Close]:
        """In how many seconds to close this connection if nothing more arrives, and how.

        Args:
            open_s: how long it has been open. silent_s: for how long nothing has arrived.
            heartbeat_s: how long that may be.
        """
        if not self._hello_seen:
            hello_s = self.limits.hello_ms / 1000
            return hello_s - open_s, Close(CloseCode.HELLO_TIMEOUT, f"no hello within {hello_s:g} s")
        return heartbeat_s - silent_s, Close(CloseCode.NO_HEARTBEAT, f"nothing received for {heartbeat_s:g} s")

    def _count(self) -> None:
        if self.state.counted and self._bucket is None:
            per_s = self.limits.rate_messages * 1000 / self.limits.rate_window_ms
            self._bucket = TokenBucket(per_s, self.limits.rate_burst)

    def _rate(self, message: ClientMessage | Err, now: float) -> Reply | Close | None:
        if self._bucket is None or self._bucket.take(now):
            return None
        self._violations = [at for at in self._violations if at > now - RATE_VIOLATIONS_S] + [now]
        wait_ms = round(self._bucket.wait_s * 1000) + 1
        seen = f"more than {self.limits.rate_messages} messages in {self.limits.rate_window_ms / 1000:g} s"
        request_id = None if isinstance(message, Ping) else message.id
        text = Err.of(RATE_LIMITED, seen, id=request_id, retry_after_ms=wait_ms).encode()
        if len(self._violations) >= RATE_VIOLATIONS:
            return Close(CloseCode.RATE_LIMITED, seen, text)
        return Reply(text)

    def _refused(self, sub: Sub, taken: Iterable[str]) -> Err | None:
        names = set(taken)
        s = sub.s if sub.id is None else None
        if sub.s in names:
            return Err.of(DUPLICATE_SUB, f"{sub.s!r} is in use; unsub it first, or choose another s", id=sub.id, s=s)
        if len(names) >= self.limits.subs:
            message = f"{len(names)} subscriptions; at most {self.limits.subs} for a connection"
            return Err.of(TOO_LARGE, message, id=sub.id, s=s)
        return None

    # What is answered.

    def unauthenticated(self, hello: Hello) -> Close:
        """The token of a hello lets nobody in."""
        message = "hello.token is missing" if hello.token is None else "hello.token is not accepted"
        return Close(CloseCode.AUTH_FAILED, message, Err.of(UNAUTHENTICATED, message, id=hello.id).encode())

    def wanted(self, hello: Hello) -> list[Sub | Err]:
        """The subscriptions of a hello, those that cannot be replaced by their error."""
        answers: list[Sub | Err] = []
        taken: list[str] = []
        for sub in hello.subs:
            answer = sub if isinstance(sub, Err) else self._refused(sub, taken) or sub
            if isinstance(answer, Sub):
                taken.append(answer.s)
            answers.append(answer)
        return answers

    def welcomed(self, welcome: Welcome, user: str) -> str:
        """The session has begun; a user is somebody whose messages count."""
        counted = self.state.counted or bool(user)
        self.state = attrs.evolve(
            self.state, session=welcome.session, user=user, counted=counted, moves="goaway" in welcome.features
        )
        self._count()
        return welcome.encode()

    def subscribed(
        self,
        sub: Sub,
        *,
        group: int,
        since: Cursor,
        head: int,
        recovered: bool | None,
        lost: tuple[int, int] | None,
    ) -> tuple[SubOk, list[str]]:
        """A subscription was granted: the answer, and what follows it."""
        answer = SubOk(
            id=sub.id,
            s=sub.s,
            g=group,
            since=since,
            head=head,
            recovered=recovered,
            lost=None if lost is None else Lost(*lost),
            filter=sub.filter.canonical,
        )
        self._put(sub.s, Subscription(group, since.offset, on_gap=sub.on_gap))
        follows: list[str] = []
        if lost is not None and sub.on_gap == "skip":
            follows.append(self._gap(sub.s, *lost))
        return answer, follows

    def page(self, s: str, after: int, upto: int, signals: bytes) -> list[str]:
        """A piece of the log for a subscription that catches up; what lies before `after` is gone."""
        texts: list[str] = []
        if after > self.state.subs[s].cursor:
            texts.append(self._gap(s, self.state.subs[s].cursor, after))
        if upto > after:
            texts.append(encode_sig(s=s, a=after, b=upto, signals=(signals,)))
            self._put(s, attrs.evolve(self.state.subs[s], cursor=upto))
        return texts

    def joined(self, s: str) -> str:
        """A subscription has reached its group's cursor and is a member from now on."""
        sub = self.state.subs[s]
        self._put(s, Subscription(sub.group, sub.cursor, live=True, on_gap=sub.on_gap))
        return Live(s=s, g=sub.group, b=sub.cursor).encode()

    def missed(self, group: int, after: int, upto: int) -> list[str]:
        """What a group's members will not get, because it is not stored any more."""
        return [
            Gap(s=s, a=after, b=upto, reason="retention").encode()
            for s, sub in self.state.subs.items()
            if sub.live and sub.group == group
        ]

    def unsubscribed(self, unsub: Unsub) -> str:
        """A subscription has ended."""
        self.state = self.state.with_subs({s: sub for s, sub in self.state.subs.items() if s != unsub.s})
        return Ok(id=unsub.id).encode()

    def read(self, hist: Hist, fields: str) -> str:
        """A page of the log, whose JSON fields these are."""
        return f'{{"t":"page","id":{hist.id},{fields}}}'

    def unreadable(self, hist: Hist, error: ErrorCode, message: str) -> str:
        """There is no such page."""
        return Err.of(error, message, id=hist.id, at="/from").encode()

    def unavailable(self, request: Request | Sub, message: str) -> Err:
        """A request that could not be carried out now."""
        s = request.s if isinstance(request, Sub) and request.id is None else None
        return Err.of(OVERLOADED, message, id=request.id, s=s, retry_after_ms=1_000)

    def _gap(self, s: str, after: int, upto: int) -> str:
        self._put(s, attrs.evolve(self.state.subs[s], cursor=upto))
        return Gap(s=s, a=after, b=upto, reason="retention").encode()

    def _put(self, s: str, sub: Subscription) -> None:
        self.state = self.state.with_subs({**self.state.subs, s: sub})
