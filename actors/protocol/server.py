"""The server's side of one connection, sans-I/O: which messages are allowed when, and what is answered.

The shard feeds it frames, carries out the requests it gives back, and sends the texts it makes. What must survive an
eviction of the shard is one frozen value (`Remembered`), kept in the socket's attachment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from actors.principal import NotAccepted, Principal
from actors.protocol.allowed import allowed, narrowed
from actors.protocol.codes import (
    DUPLICATE_SUB,
    FORBIDDEN,
    OVERLOADED,
    RATE_LIMITED,
    TOKEN_EXPIRING,
    TOO_LARGE,
    UNAUTHENTICATED,
    UNKNOWN_SUB,
    CloseCode,
    ErrorCode,
)
from actors.protocol.cursor import Cursor
from actors.protocol.decoding import decode_client
from actors.protocol.encoding import ENCODINGS
from actors.protocol.fields import Refused
from actors.protocol.limits import Limits
from actors.protocol.messages import PONG, Err, Gap, Live, Lost, Ok, Reset, SubOk, Welcome, encode_sig, encode_snap
from actors.protocol.rate import TokenBucket
from actors.protocol.remembered import Remembered, Snapping, Subscription
from actors.protocol.requests import (
    Ack,
    Auth,
    ClientInfo,
    ClientMessage,
    Hello,
    Hist,
    Mod,
    Ping,
    Pub,
    Sub,
    Unsub,
)

BAD_MESSAGES = 10  # ours: then the peer is no client of this protocol, and is closed with 4001
RATE_VIOLATIONS = 3
DEFLATE = "deflate"  # where the socket compresses
FEATURES = (
    "goaway",
    "mod",
    "snap",
    "latest",
    "ack",
    "msgpack",
    DEFLATE,
)  # of those that a client may list, what this server has
RATE_VIOLATIONS_S = 60.0
SDK_CHARACTERS = 64
NOTICE_S = 60.0  # before its token expires a client is told so


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


_EXPIRED = Close(CloseCode.TOKEN_EXPIRED, "the token has expired; come back with a new one")
_EXPIRING = Reply(Err.of(TOKEN_EXPIRING, "the token expires soon; send auth with a new one", retry_after_ms=0).encode())

Request = Hello | Sub | Mod | Ack | Auth | Unsub | Pub | Hist
Step = Request | Reply | Close


@attrs.define(eq=False)
class ServerMachine:
    """The protocol of one connection.

    Args:
        limits: what it may do. state: who it is, and after an eviction what it had.

    Attributes:
        errors: that its client was told, by slug; many connections may count in one place.
    """

    limits: Limits
    state: Remembered
    errors: Counter[str] = attrs.Factory(Counter)
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

    @property
    def is_welcomed(self) -> bool:
        """The hello was answered."""
        return bool(self.state.session)

    def receive(self, frame: str | bytes) -> Sequence[ClientMessage | Err]:
        """The messages of a frame, to be handed to `step` one by one when the one before is done."""
        return decode_client(frame, self.limits, ENCODINGS[self.state.encoding])

    def step(self, message: ClientMessage | Err, now: float) -> Step:
        """What to do about the next message: carry out a request, send a text, or close."""
        if (limited := self._limited(message, now)) is not None:
            return limited
        match message:
            case Err():
                self._told(message)
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
                taken = [s for s in self.state.subs if not (self.state.was_reset and s == message.s)]
                refused = self._refused(message, taken)
                return self._allowed(message) if refused is None else Reply(refused.encode())
            case Unsub(id=id_, s=s) | Mod(id=id_, s=s) if s not in self.state.subs:
                return Reply(self._told(Err.of(UNKNOWN_SUB, f"no subscription {s!r}", id=id_, at="/s")).encode())
            case Mod() | Pub() | Hist():
                return self._allowed(message)
            case _:
                return message

    def _allowed(self, message: Sub | Mod | Pub | Hist) -> Step:
        try:
            return allowed(message, self.state.capability)
        except Refused as refused:
            return Reply(self._told(Err.of(refused.error, str(refused), id=message.id, at=refused.at)).encode())

    def patience(self, open_s: float, now: float) -> tuple[float, Close | Reply] | None:
        """In how many seconds to close this connection, or to say something, and what; None: neither is ever due.

        How long a client may be silent is not for its machine to tell.

        Args:
            open_s: how long it has been open. now: seconds since the Unix epoch.
        """
        if not self._hello_seen:
            hello_s = self.limits.hello_ms / 1000
            return hello_s - open_s, Close(CloseCode.HELLO_TIMEOUT, f"no hello within {hello_s:g} s")
        notice_at, expires = self.state.notice_at, self.state.expires
        if expires is None:
            return None
        return (expires - now, _EXPIRED) if notice_at is None else (notice_at - now, _EXPIRING)

    def _count(self) -> None:
        if self.state.counted and self._bucket is None:
            per_s = self.limits.rate_messages * 1000 / self.limits.rate_window_ms
            self._bucket = TokenBucket(per_s, self.limits.rate_burst)

    def _limited(self, message: ClientMessage | Err, now: float) -> Reply | Close | None:
        if self.state.expires is not None and now >= self.state.expires:
            return _EXPIRED
        if self._bucket is None or self._bucket.take(now):
            return None
        self._violations = [at for at in self._violations if at > now - RATE_VIOLATIONS_S] + [now]
        wait_ms = round(self._bucket.wait_s * 1000) + 1
        seen = f"more than {self.limits.rate_messages} messages in {self.limits.rate_window_ms / 1000:g} s"
        request_id = None if isinstance(message, Ping | Ack) else message.id
        text = self._told(Err.of(RATE_LIMITED, seen, id=request_id, retry_after_ms=wait_ms)).encode()
        if len(self._violations) >= RATE_VIOLATIONS:
            return Close(CloseCode.RATE_LIMITED, seen, text)
        return Reply(text)

    def _refused(self, sub: Sub, taken: Iterable[str]) -> Err | None:
        names = set(taken)
        s = sub.s if sub.id is None else None
        if sub.s in names:
            message = f"{sub.s!r} is in use; unsub it first, or choose another s"
            return self._told(Err.of(DUPLICATE_SUB, message, id=sub.id, s=s))
        if len(names) >= self.limits.subs:
            message = f"{len(names)} subscriptions; at most {self.limits.subs} for a connection"
            return self._told(Err.of(TOO_LARGE, message, id=sub.id, s=s))
        return None

    # What is answered.

    def unauthenticated(self, hello: Hello, told: str) -> Close:
        """The token of a hello lets nobody in."""
        error = self._told(Err.of(UNAUTHENTICATED, told, id=hello.id, at="/token"))
        return Close(CloseCode.AUTH_FAILED, told, error.encode())

    def authenticated(self, principal: Principal, now: float) -> None:
        """It is known who the client is, and until when."""
        expires = principal.expires
        # Who has a token for a moment only is not told at once, again and again.
        notice_at = None if expires is None else expires - min(NOTICE_S, (expires - now) / 2)
        counted = self.state.counted or bool(principal.user)
        self.state = attrs.evolve(self.state, principal=principal, counted=counted, notice_at=notice_at)
        self._count()

    def noticed(self) -> None:
        """The client was told that its token expires."""
        self.state = attrs.evolve(self.state, notice_at=None)

    def renewed(self, auth: Auth, found: Principal | NotAccepted, now: float) -> Reply | Close:
        """A newer token was shown: the connection goes on with it, if it is of the same user and allows the same."""
        if isinstance(found, NotAccepted):
            return Reply(self._told(Err.of(UNAUTHENTICATED, found.told, id=auth.id, at="/token")).encode())
        if found.user != self.state.user:
            message = "the token is of another user"
            error = self._told(Err.of(UNAUTHENTICATED, message, id=auth.id, at="/token")).encode()
            return Close(CloseCode.AUTH_FAILED, message, error)
        if found.capability != self.state.capability:
            message = "the token allows other things than the one before; connect again with it"
            return Reply(self._told(Err.of(FORBIDDEN, message, id=auth.id, at="/token")).encode())
        self.authenticated(found, now)
        exp_ms = None if found.expires is None else round(found.expires * 1000)
        return Reply(Ok(id=auth.id, exp_ms=exp_ms).encode())

    def wanted(self, hello: Hello) -> list[Sub | Err]:
        """The subscriptions of a hello, as far as they are allowed; those that cannot be replaced by their error."""
        answers: list[Sub | Err] = []
        taken: list[str] = []
        for index, sub in enumerate(hello.subs):
            answer = self._told(sub) if isinstance(sub, Err) else self._refused(sub, taken) or sub
            if isinstance(answer, Sub):
                try:
                    filter_ = narrowed(answer.filter, self.state.capability, f"/subs/{index}")
                    answer = attrs.evolve(answer, filter=filter_)
                    taken.append(answer.s)
                except Refused as refused:
                    answer = self._told(Err.of(refused.error, str(refused), s=answer.s, at=refused.at))
            answers.append(answer)
        return answers

    def welcomed(self, welcome: Welcome, client: ClientInfo | None = None, number: int = 1) -> str:
        """The session has begun, or goes on with its socket of this number."""
        self.state = attrs.evolve(
            self.state,
            session=welcome.session,
            number=number,
            replaces=welcome.resumed,
            moves="goaway" in welcome.features,
            sdk="" if client is None else _sdk(client),
        )
        return welcome.encode()

    def replaced(self) -> None:
        """The older sockets of its session were ended."""
        self.state = attrs.evolve(self.state, replaces=False)

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
        snap = Snapping() if sub.since == "snapshot" else None
        self._put(
            sub.s,
            Subscription(group, since.offset, on_gap=sub.on_gap, snap=snap, min_ms=sub.min_ms, on_slow=sub.on_slow),
        )
        follows: list[str] = []
        if lost is not None and sub.on_gap == "skip":
            follows.append(self._gap(sub.s, lost[1]))
        return answer, follows

    def modified(self, mod: Mod, *, group: int, since: Cursor, head: int, filter_: str, backfill: int | None) -> SubOk:
        """A subscription was changed: it goes on from `since`, and first gets what is between `backfill` and there."""
        sub = self.state.subs[mod.s]
        snap = sub.snap
        if backfill is not None:
            snap = Snapping(backfill, sub.group)
        elif snap is not None and group != sub.group:
            # A snapshot begins again for the new filter; a backfill that was not finished ends.
            snap = None if snap.without else Snapping()
        min_ms = sub.min_ms if mod.change.min_ms is None else mod.change.min_ms
        place = Subscription(
            group,
            since.offset,
            on_gap=sub.on_gap,
            snap=snap,
            min_ms=min_ms,
            on_slow=mod.change.on_slow or sub.on_slow,
        )
        self._put(mod.s, place)
        return SubOk(id=mod.id, s=mod.s, g=group, since=since, head=head, filter=filter_)

    def snapped(self, s: str, upto: int, signals: bytes, *, more: bool) -> list[str]:
        """A part of a snapshot or of a backfill, whose next one begins after `upto`."""
        sub = self.state.subs[s]
        assert sub.snap is not None
        self._put(s, attrs.evolve(sub, snap=attrs.evolve(sub.snap, after=upto) if more else None))
        return [encode_snap(s=s, b=sub.cursor, signals=signals, more=more)] if signals or not more else []

    def page(self, s: str, after: int, upto: int, signals: bytes, left_out: int = 0) -> list[str]:
        """A piece of the log for a subscription that catches up; what lies before `after` is gone."""
        texts: list[str] = []
        if after > self.state.subs[s].cursor:
            texts.append(self._gap(s, after))
        if upto > after:
            texts.append(encode_sig(s=s, a=after, b=upto, signals=(signals,), left_out=left_out))
            self._put(s, attrs.evolve(self.state.subs[s], cursor=upto))
        return texts

    def joined(self, s: str) -> str:
        """A subscription has reached its group's cursor and is a member from now on."""
        sub = self.state.subs[s]
        self._put(s, attrs.evolve(sub, live=True))
        return Live(s=s, g=sub.group, b=sub.cursor).encode()

    def held(self, s: str, cursor: int) -> None:
        """A client reads too slowly: from this offset on a subscription gets nothing for now."""
        self._put(s, attrs.evolve(self.state.subs[s], live=False, slow=True, cursor=cursor))

    def skipped(self, s: str, upto: int) -> list[str]:
        """What it did not get it will not get."""
        return [self._gap(s, upto, "slow")] if upto > self.state.subs[s].cursor else []

    def rejoined(self, s: str) -> None:
        """Its client reads again, and it is a member of its group as before."""
        self._put(s, attrs.evolve(self.state.subs[s], live=True, slow=False))

    def missed(self, group: int, after: int, upto: int) -> list[str]:
        """What a group's members will not get, because it is not stored any more."""
        return [
            Gap(s=s, a=after, b=upto, reason="retention").encode()
            for s, sub in self.state.subs.items()
            if sub.live and sub.group == group
        ]

    def reset(self, epoch: str, head: int) -> str:
        """The stream is of another epoch: every subscription is forgotten, and the client asks for each again.

        What it asked for before it heard of that may arrive now; the same name asked for again takes its place.
        """
        self.state = attrs.evolve(self.state, subs={}, was_reset=True)
        return Reset(epoch=epoch, head=head, reason="the stream was restored").encode()

    def unsubscribed(self, unsub: Unsub) -> str:
        """A subscription has ended."""
        self.state = self.state.with_subs({s: sub for s, sub in self.state.subs.items() if s != unsub.s})
        return Ok(id=unsub.id).encode()

    def read(self, hist: Hist, fields: str) -> str:
        """A page of the log, whose JSON fields these are."""
        return f'{{"t":"page","id":{hist.id},{fields}}}'

    def unreadable(self, hist: Hist, error: ErrorCode, message: str) -> str:
        """There is no such page."""
        return self._told(Err.of(error, message, id=hist.id, at="/from")).encode()

    def unavailable(self, request: Hello | Sub | Mod | Auth | Pub | Hist, message: str) -> Err:
        """A request that could not be carried out now."""
        s = request.s if isinstance(request, Sub) and request.id is None else None
        return self._told(Err.of(OVERLOADED, message, id=request.id, s=s, retry_after_ms=1_000))

    def _gap(self, s: str, upto: int, reason: str = "retention") -> str:
        sub = self.state.subs[s]
        self._put(s, attrs.evolve(sub, cursor=upto))
        return Gap(s=s, a=sub.cursor, b=upto, reason=reason).encode()

    def _told(self, error: Err) -> Err:
        self.errors[error.slug] += 1
        return error

    def _put(self, s: str, sub: Subscription) -> None:
        self.state = self.state.with_subs({**self.state.subs, s: sub})


def _sdk(client: ClientInfo) -> str:
    return "/".join(part for part in (client.sdk or client.name, client.version) if part)[:SDK_CHARACTERS]
