"""What a server says in `signals.v1` as values, each with its JSON text; `decoding.py` reads them back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import attrs

from actors.protocol import messagepack
from actors.protocol.codes import ErrorCode
from actors.protocol.cursor import Cursor
from actors.signals import Signal, SignalTexts

PONG = '{"t":"pong"}'


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
        fields = present(t="subok", id=self.id) | {
            "s": self.s,
            "g": self.g,
            "from": str(self.since),
            "head": self.head,
            "recovered": self.recovered,
            "lost": None if self.lost is None else {"a": self.lost.a, "b": self.lost.b},
        }
        return f'{dump(fields)[:-1]},"filter":{self.filter}}}'


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
        return present(
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
        return dump(self.to_json())


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
        return f'{dump(fields)[:-1]},"subs":[{",".join([sub.encode() for sub in self.subs])}]}}'


@attrs.frozen(kw_only=True)
class Sig:
    """All and only the matching signals with `a < o ≤ b`; for a group (`g`) or for one subscription (`s`).

    Attributes:
        k: how many were left out because a newer one of the same type and entity is there (`mode` `latest`).
    """

    g: int | None = None
    s: str | None = None
    a: int
    b: int
    signals: tuple[Signal, ...] = ()
    k: int = 0

    def encode(self) -> str:
        """The message's text."""
        texts = (signal.json for signal in self.signals)
        return encode_sig(a=self.a, b=self.b, signals=texts, g=self.g, s=self.s, left_out=self.k)


@attrs.frozen(kw_only=True)
class Snap:
    """Older signals of `s`, ascending: a part of a snapshot or of a backfill, both as of `b`; `more`: not the last."""

    s: str
    b: int
    signals: tuple[Signal, ...] = ()
    more: bool = False

    def encode(self) -> str:
        """The message's text."""
        return encode_snap(
            s=self.s, b=self.b, signals=b",".join(signal.json for signal in self.signals), more=self.more
        )


@attrs.frozen(kw_only=True)
class Page:
    """The answer to `hist`: all and only the matching signals with `a < o ≤ b`; `more`: there is another page."""

    id: int
    a: int
    b: int
    signals: tuple[Signal, ...]
    more: bool
    epoch: str

    def encode(self) -> str:
        """The message's text."""
        signals = b",".join(signal.json for signal in self.signals).decode()
        more = "true" if self.more else "false"
        return (
            f'{{"t":"page","id":{self.id},"a":{self.a},"b":{self.b},"d":[{signals}],"more":{more},'
            f'"epoch":"{self.epoch}"}}'
        )


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
        return dump({"t": "gap", "s": self.s, "a": self.a, "b": self.b, "reason": self.reason})


@attrs.frozen(kw_only=True)
class Reset:
    """The epoch changed under a live connection; the server has forgotten every subscription of it."""

    epoch: str
    head: int
    reason: str = ""

    def encode(self) -> str:
        """The message's text."""
        return dump({"t": "reset", "epoch": self.epoch, "head": self.head, "reason": self.reason})


@attrs.frozen(kw_only=True)
class Unsubbed:
    """The server ended a subscription."""

    s: str
    code: int
    reason: str = ""

    def encode(self) -> str:
        """The message's text."""
        return dump({"t": "unsubbed", "s": self.s, "code": self.code, "reason": self.reason})


@attrs.frozen(kw_only=True)
class Goaway:
    """The server will close after `deadline_ms`; come back between `after_ms[0]` and `after_ms[1]`."""

    reason: str = ""
    after_ms: tuple[int, int] = (0, 1_000)
    deadline_ms: int = 0
    url: str | None = None

    def encode(self) -> str:
        """The message's text."""
        return dump(
            present(
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
    """A request was carried out; `o`, `epoch` and `dup` answer `pub`, `exp_ms` (of the token) answers `auth`."""

    id: int
    o: int | None = None
    epoch: str | None = None
    dup: bool | None = None
    exp_ms: int | None = None

    def encode(self) -> str:
        """The message's text."""
        return dump(present(t="ok", id=self.id, o=self.o, epoch=self.epoch, dup=self.dup, exp_ms=self.exp_ms))


ServerMessage = Welcome | SubOk | Sig | Snap | Page | Live | Gap | Reset | Unsubbed | Goaway | Pong | Ok | Err


def encode_sig(
    *, a: int, b: int, signals: Iterable[bytes], g: int | None = None, s: str | None = None, left_out: int = 0
) -> str:
    """A `sig` frame's text from the JSON texts of its signals, which are joined as they are.

    Live frames carry the group and nothing of a connection, so that one text serves every member.
    """
    address = f'"g":{g}' if s is None else f'"s":"{s}"'
    joined = b",".join(signals).decode()
    rest = f',"k":{left_out}' if left_out else ""
    return f'{{"t":"sig",{address},"a":{a},"b":{b},"d":[{joined}]{rest}}}'


def pack_sig(*, g: int, a: int, b: int, signals: Iterable[SignalTexts], left_out: int = 0) -> bytes:
    """A group's `sig` frame as MessagePack, from what its signals were packed to."""
    packed = [texts.packed for texts in signals]
    fields: dict[str, object] = {"t": "sig", "g": g, "a": a, "b": b}
    if left_out:
        fields["k"] = left_out
    return messagepack.join(fields, "d", sum(count for count, _ in packed), [items for _, items in packed])


def encode_snap(*, s: str, b: int, signals: bytes, more: bool) -> str:
    """A `snap` message's text from the JSON texts of its signals, joined by commas."""
    return f'{{"t":"snap","s":"{s}","b":{b},"d":[{signals.decode()}],"more":{"true" if more else "false"}}}'


def present(**fields: object) -> dict[str, object]:
    """The fields that are there."""
    return {name: value for name, value in fields.items() if value is not None}


dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
