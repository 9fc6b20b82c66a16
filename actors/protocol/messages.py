"""The messages of `signals.v1` as values, each with its JSON text; `decoding.py` reads them back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Literal

import attrs

from actors.filters import Filter
from actors.protocol.codes import ErrorCode
from actors.protocol.cursor import Cursor, Last, Since
from actors.signals import Draft, Signal

PING = '{"t":"ping"}'
PONG = '{"t":"pong"}'

OnGap = Literal["fail", "skip"]


@attrs.frozen(kw_only=True)
class ClientInfo:
    """What a client says about itself; shown to operators, decides nothing."""

    name: str = ""
    version: str = ""
    sdk: str = ""


# --- client to server -------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Sub:
    """Subscribe under the client's own name `s`; `id` is None inside `hello`."""

    id: int | None = None
    s: str
    filter: Filter
    since: Since = "now"
    on_gap: OnGap = "fail"

    def to_json(self) -> dict[str, object]:
        """The message as a JSON object."""
        return _present(
            t=None if self.id is None else "sub",
            id=self.id,
            s=self.s,
            filter=json.loads(self.filter.source),
            on_gap=None if self.on_gap == "fail" else self.on_gap,
        ) | {"from": since_to_json(self.since)}

    def encode(self) -> str:
        """The message's text."""
        return _dump(self.to_json())


@attrs.frozen(kw_only=True)
class Hello:
    """The first message of a connection; a part of `subs` that cannot be accepted is the `Err` to answer with."""

    id: int
    token: str | None = None
    resume: str | None = None
    client: ClientInfo | None = None
    features: tuple[str, ...] = ()
    subs: tuple[Sub | Err, ...] = ()

    def encode(self) -> str:
        """The message's text."""
        return _dump(
            _present(
                t="hello",
                id=self.id,
                token=self.token,
                resume=self.resume,
                client=None if self.client is None else attrs.asdict(self.client),
                features=list(self.features) or None,
                subs=[sub.to_json() for sub in self.subs] or None,
            )
        )


@attrs.frozen(kw_only=True)
class Unsub:
    """End a subscription."""

    id: int
    s: str

    def encode(self) -> str:
        """The message's text."""
        return _dump({"t": "unsub", "id": self.id, "s": self.s})


@attrs.frozen(kw_only=True)
class Pub:
    """Publish a signal."""

    id: int
    draft: Draft

    def encode(self) -> str:
        """The message's text."""
        draft = self.draft
        parts = [f'"type":"{draft.type}","entity":"{draft.entity}","data":{draft.data_json.decode()}']
        if draft.id is not None:
            parts.append(f'"id":{_dump(draft.id)}')
        if draft.tags_json is not None:
            parts.append(f'"tags":{draft.tags_json.decode()}')
        return f'{{"t":"pub","id":{self.id},"signal":{{{",".join(parts)}}}}}'


@attrs.frozen(kw_only=True)
class Hist:
    """Read a page of what is stored; in reverse from `since` backwards."""

    id: int
    filter: Filter
    since: Since
    limit: int
    reverse: bool = False

    def encode(self) -> str:
        """The message's text."""
        return _dump(
            _present(
                t="hist",
                id=self.id,
                filter=json.loads(self.filter.source),
                limit=self.limit,
                reverse=self.reverse or None,
            )
            | {"from": since_to_json(self.since)}
        )


@attrs.frozen
class Ping:
    """Asks for a `pong`; the text is exactly `PING`."""

    def encode(self) -> str:
        """The message's text."""
        return PING


# --- server to client -------------------------------------------------------------------------------------


@attrs.frozen
class Lost:
    """The interval `a < o ≤ b` that the log no longer holds."""

    a: int
    b: int


@attrs.frozen(kw_only=True)
class SubOk:
    """A subscription was accepted.

    Attributes:
        g: the group whose live frames will count.
        since: the effective cursor (`from` on the wire).
        recovered: None unless the client asked for a cursor; False when something since then is gone.
        lost: the interval that is gone, when it is known.
        filter: the canonical form.
    """

    id: int | None = None
    s: str
    g: int
    since: Cursor
    head: int
    recovered: bool | None = None
    lost: Lost | None = None
    filter: str

    def encode(self) -> str:
        """The message's text; the filter is JSON already and stands in it as it is."""
        fields = _present(t="subok", id=self.id) | {
            "s": self.s,
            "g": self.g,
            "from": str(self.since),
            "head": self.head,
            "recovered": self.recovered,
            "lost": None if self.lost is None else {"a": self.lost.a, "b": self.lost.b},
        }
        return f'{_dump(fields)[:-1]},"filter":{self.filter}}}'


@attrs.frozen(kw_only=True)
class Err:
    """A request was refused; without `id` it is a notice about the connection.

    Attributes:
        s: the subscription, in `welcome.subs` only.
        at: JSON Pointer to the offending part of the request (of the filter, for `bad_filter`).
        retry: the same request may succeed later, after `retry_after_ms` if that is given.
    """

    code: int
    slug: str
    msg: str
    retry: bool = False
    id: int | None = None
    s: str | None = None
    at: str | None = None
    retry_after_ms: int | None = None

    @classmethod
    def of(
        cls,
        error: ErrorCode,
        msg: str,
        *,
        id: int | None = None,  # noqa: A002 - the protocol's word
        s: str | None = None,
        at: str | None = None,
        retry_after_ms: int | None = None,
    ) -> Err:
        """An error of the table."""
        return cls(
            code=error.code,
            slug=error.slug,
            msg=msg,
            retry=error.retry,
            id=id,
            s=s,
            at=at,
            retry_after_ms=retry_after_ms,
        )

    def to_json(self) -> dict[str, object]:
        """The message as a JSON object."""
        return _present(
            t="err",
            id=self.id,
            s=self.s,
            code=self.code,
            slug=self.slug,
            at=self.at,
            msg=self.msg,
            retry=self.retry,
            retry_after_ms=self.retry_after_ms,
        )

    def encode(self) -> str:
        """The message's text."""
        return _dump(self.to_json())


@attrs.frozen(kw_only=True)
class Welcome:
    """The answer to `hello`; `subs` has one answer for each subscription that `hello` named, in order."""

    id: int
    session: str
    resume: str
    resumed: bool
    epoch: str
    head: int
    oldest: int
    now: int
    ping_ms: int
    dead_ms: int
    limits: Mapping[str, object] = attrs.field(factory=dict)
    features: tuple[str, ...] = ()
    server: str = ""
    subs: tuple[SubOk | Err, ...] = ()

    def encode(self) -> str:
        """The message's text."""
        fields = {
            "t": "welcome",
            "id": self.id,
            "session": self.session,
            "resume": self.resume,
            "resumed": self.resumed,
            "epoch": self.epoch,
            "head": self.head,
            "oldest": self.oldest,
            "now": self.now,
            "ping_ms": self.ping_ms,
            "dead_ms": self.dead_ms,
            "limits": dict(self.limits),
            "features": self.features,
            "server": self.server,
        }
        return f'{_dump(fields)[:-1]},"subs":[{",".join([sub.encode() for sub in self.subs])}]}}'


@attrs.frozen(kw_only=True)
class Sig:
    """All and only the matching signals with `a < o ≤ b`; for a group (`g`) or for one subscription (`s`)."""

    g: int | None = None
    s: str | None = None
    a: int
    b: int
    signals: tuple[Signal, ...] = ()

    def encode(self) -> str:
        """The message's text."""
        texts = (signal.json for signal in self.signals)
        return encode_sig(a=self.a, b=self.b, signals=texts, g=self.g, s=self.s)


@attrs.frozen(kw_only=True)
class Live:
    """Catch-up of `s` has ended at `b`; from now on frames of group `g` count."""

    s: str
    g: int
    b: int

    def encode(self) -> str:
        """The message's text."""
        return f'{{"t":"live","s":"{self.s}","g":{self.g},"b":{self.b}}}'


@attrs.frozen(kw_only=True)
class Gap:
    """`a < o ≤ b` will not be delivered; `reason` is `retention`, `slow` or `epoch`."""

    s: str
    a: int
    b: int
    reason: str

    def encode(self) -> str:
        """The message's text."""
        return _dump({"t": "gap", "s": self.s, "a": self.a, "b": self.b, "reason": self.reason})


@attrs.frozen(kw_only=True)
class Reset:
    """The epoch changed under a live connection; the server has forgotten every subscription of it."""

    epoch: str
    head: int
    reason: str = ""

    def encode(self) -> str:
        """The message's text."""
        return _dump({"t": "reset", "epoch": self.epoch, "head": self.head, "reason": self.reason})


@attrs.frozen(kw_only=True)
class Unsubbed:
    """The server ended a subscription."""

    s: str
    code: int
    reason: str = ""

    def encode(self) -> str:
        """The message's text."""
        return _dump({"t": "unsubbed", "s": self.s, "code": self.code, "reason": self.reason})


@attrs.frozen(kw_only=True)
class Goaway:
    """The server will close after `deadline_ms`; come back between `after_ms[0]` and `after_ms[1]`."""

    reason: str = ""
    after_ms: tuple[int, int] = (0, 1_000)
    deadline_ms: int = 0
    url: str | None = None

    def encode(self) -> str:
        """The message's text."""
        return _dump(
            _present(
                t="goaway",
                reason=self.reason,
                after_ms=list(self.after_ms),
                deadline_ms=self.deadline_ms,
                url=self.url,
            )
        )


@attrs.frozen
class Pong:
    """The answer to `ping`; the text is exactly `PONG`."""

    def encode(self) -> str:
        """The message's text."""
        return PONG


@attrs.frozen(kw_only=True)
class Ok:
    """A request was carried out; `o`, `epoch` and `dup` answer `pub`."""

    id: int
    o: int | None = None
    epoch: str | None = None
    dup: bool | None = None

    def encode(self) -> str:
        """The message's text."""
        return _dump(_present(t="ok", id=self.id, o=self.o, epoch=self.epoch, dup=self.dup))


ClientMessage = Hello | Sub | Unsub | Pub | Hist | Ping
ServerMessage = Welcome | SubOk | Sig | Live | Gap | Reset | Unsubbed | Goaway | Pong | Ok | Err


def encode_sig(*, a: int, b: int, signals: Iterable[bytes], g: int | None = None, s: str | None = None) -> str:
    """A `sig` frame's text from the JSON texts of its signals, which are joined as they are.

    Live frames carry the group and nothing of a connection, so that one text serves every member.
    """
    address = f'"g":{g}' if s is None else f'"s":"{s}"'
    joined = b",".join(signals).decode()
    return f'{{"t":"sig",{address},"a":{a},"b":{b},"d":[{joined}]}}'


def since_to_json(since: Since) -> object:
    """The `from` of a subscription as JSON."""
    match since:
        case Cursor():
            return {"cursor": str(since)}
        case Last(count):
            return {"last": count}
        case _:
            return since


def _present(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
