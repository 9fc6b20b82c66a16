"""What the client machine tells its application and its transport."""

from __future__ import annotations

from typing import Literal

import attrs

from actors.protocol.cursor import Cursor
from actors.signals import Signal

ClientStateName = Literal["connecting", "resuming", "connected", "draining", "reconnecting", "closed"]
SubStateName = Literal["pending", "catchup", "live", "failed"]


@attrs.frozen
class Open:
    """The transport shall open a socket; what it reports about it later has this number.

    Attributes:
        url: where, when the server said so; None for the usual address.
    """

    socket: int = 1
    url: str | None = None


@attrs.frozen
class Close:
    """The transport shall close the socket; the machine has counted it as closed already."""

    code: int
    reason: str = ""
    socket: int = 1


@attrs.frozen(kw_only=True)
class ClientState:
    """Where the client is.

    Attributes:
        attempt: of `reconnecting`: which retry this is, from 1. delay_ms: how long it waits first.
        code: of `reconnecting` and `closed`: the close code, None when the socket ended without one.
        reason: of the same: in words.
        terminal: of `closed`: the server (or the protocol) asked for it, not the application.
        session, resumed: of `connected`.
    """

    state: ClientStateName
    attempt: int | None = None
    delay_ms: float | None = None
    code: int | None = None
    reason: str = ""
    terminal: bool | None = None
    session: str | None = None
    resumed: bool | None = None


@attrs.frozen(kw_only=True)
class SubState:
    """Where a subscription is.

    Attributes:
        since: of `catchup`: the cursor it begins at.
        code, reason: of `failed`: why.
    """

    s: str
    state: SubStateName
    since: Cursor | None = None
    code: int | None = None
    reason: str = ""


@attrs.frozen(kw_only=True)
class Signals:
    """Deliver these, in order; afterwards the subscription's cursor is `c` of `epoch`. May be empty.

    Attributes:
        k: how many older ones of the same type and entity were left out (`mode` `latest`).
    """

    s: str
    signals: tuple[Signal, ...]
    epoch: str
    c: int
    k: int = 0


@attrs.frozen(kw_only=True)
class Snap:
    """Deliver these as a part of a snapshot or of a backfill: they may be older than what was delivered before.

    Attributes:
        c: the subscription's cursor now; None while a snapshot it begins with is not complete.
    """

    s: str
    signals: tuple[Signal, ...]
    epoch: str
    c: int | None


@attrs.frozen(kw_only=True)
class Modified:
    """A change of a subscription is in force for what comes after `c` of `epoch`, and its backfill was delivered."""

    s: str
    epoch: str
    c: int


@attrs.frozen(kw_only=True)
class ModifyRefused:
    """A change of a subscription was refused for good; the subscription is as it was."""

    s: str
    code: int
    slug: str
    msg: str


@attrs.frozen(kw_only=True)
class Gap:
    """`a < o ≤ b` will not come (None: unknown); the cursor is then `c` of `epoch`, None after a reset.

    `reason` is `retention`, `slow` or `epoch`.
    """

    s: str
    a: int | None
    b: int | None
    reason: str
    epoch: str | None
    c: int | None


@attrs.frozen(kw_only=True)
class GapDetected:
    """A frame began at `a`, beyond the cursor `c`; the machine repairs it by itself."""

    s: str
    c: int
    a: int


@attrs.frozen(kw_only=True)
class Published:
    """A publication is durable at offset `o`; `dup` says that it was there before."""

    key: int
    id: str
    o: int
    epoch: str
    dup: bool


@attrs.frozen(kw_only=True)
class PublishRefused:
    """A publication was refused for good."""

    key: int
    id: str
    code: int
    slug: str
    msg: str


@attrs.frozen(kw_only=True)
class PageRead:
    """A page of what is stored: all and only the matching signals with `after < o ≤ upto`.

    Attributes:
        more: there is another page, after `upto` or in reverse before `after`.
    """

    key: int
    signals: tuple[Signal, ...]
    epoch: str
    after: int
    upto: int
    more: bool


@attrs.frozen(kw_only=True)
class ReadRefused:
    """There is no page; with `retry` it may be asked for again after `retry_after_ms`."""

    key: int
    code: int
    slug: str
    msg: str
    retry: bool
    retry_after_ms: float | None


@attrs.frozen(kw_only=True)
class Notice:
    """An `err` about the connection, about `hello` or about `auth`."""

    code: int
    slug: str
    msg: str


Event = (
    Open
    | Close
    | ClientState
    | SubState
    | Signals
    | Snap
    | Modified
    | ModifyRefused
    | Gap
    | GapDetected
    | Published
    | PublishRefused
    | PageRead
    | ReadRefused
    | Notice
)
