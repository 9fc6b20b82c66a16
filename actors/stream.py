"""How streams and their shards are named, and what is said between a broadcaster and its callers.

That is deeply immutable values, passed by reference.
"""

from __future__ import annotations

import re

import attrs

from actors.protocol.cursor import Ago, Cursor, Last, Since
from actors.protocol.requests import OnGap, Sub
from actors.resume import Session

STREAM = "main"  # the stream that has no name in a path
CONSOLE_STREAM = "console"  # what the console shows of the server; no path of clients leads to it
PUBLISH_SIGNALS = 1_000
PUBLISH_BYTES = 8 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9_\-]{1,64}")


def is_stream_name(text: str) -> bool:
    """Whether it is 1–64 of `A-Z a-z 0-9 _ -`."""
    return _NAME.fullmatch(text) is not None


def shard_name(number: int, stream: str = STREAM) -> str:
    """The name of a connection manager of a stream, counted from 0."""
    return f"shard-{number}" if stream == STREAM else f"{stream}/shard-{number}"


def shard_number(shard: str) -> int:
    """The number of a connection manager of this name."""
    return int(shard.rpartition("-")[2])


def stream_of(shard: str) -> str:
    """The stream whose connections a connection manager of this name holds."""
    stream, slash, _ = shard.rpartition("/")
    return stream if slash else STREAM


@attrs.frozen
class Receipt:
    """Where a published signal is; `dup`: its id was seen before, and this is the first one's offset."""

    offset: int
    dup: bool


@attrs.frozen
class Published:
    """The answer to a publication: one receipt for each signal, in order."""

    epoch: str
    receipts: tuple[Receipt, ...]


@attrs.frozen
class Ingested:
    """The answer to a source's batch.

    Attributes:
        cursor: the source's cursor as stored now; not `upto` when the batch did not begin where the last one ended.
        accepted: the batch was taken. duplicates: how many of its signals had been published before.
    """

    cursor: str | None
    accepted: bool
    duplicates: int = 0


@attrs.frozen
class Wanted:
    """A subscription as a shard asks for it; the filter is canonical text, `min_ms` 0 for `mode` `all`."""

    filter: str
    since: Since
    on_gap: OnGap
    min_ms: int = 0

    @classmethod
    def of(cls, sub: Sub) -> Wanted:
        """What a client asks for."""
        return cls(sub.filter.canonical, sub.since, sub.on_gap, sub.min_ms)


@attrs.frozen
class Granted:
    """A subscription as the broadcaster recorded it.

    Attributes:
        group: the number of its group, whose cursor is `head` now; the shard gets every later frame of it.
        since: where the subscriber begins.
        recovered: None when no cursor was asked for. lost: the interval that is not stored any more.
    """

    group: int
    since: Cursor
    recovered: bool | None = None
    lost: tuple[int, int] | None = None


@attrs.frozen
class Change:
    """A change of a subscription as a shard asks for it.

    Attributes:
        group: its group until now. filter: canonical text; None leaves it as it is.
        backfill: which signals come first that the filter before did not let through. upto: at most up to this offset.
        min_ms: 0 for `mode` `all`.
    """

    group: int
    filter: str | None
    min_ms: int
    backfill: Last | Ago | None
    upto: int | None


@attrs.frozen
class Changed:
    """A change as the broadcaster recorded it.

    Attributes:
        group: its new group. Its cursor, and that of the one before, are `bounds.head` now.
        filter: canonical text. backfill: the offset after which those signals begin.
    """

    bounds: Bounds
    group: int
    filter: str
    backfill: int | None


@attrs.frozen
class SnapPart:
    """A piece of a snapshot or of a backfill.

    Attributes:
        upto: the next part begins behind this offset. signals: their JSON texts, joined by commas.
    """

    upto: int
    signals: bytes
    more: bool


@attrs.frozen
class Bounds:
    """Where the stream stands.

    Attributes:
        oldest: of the stored signals. window_ms: the age up to which signals are certainly kept.
    """

    epoch: str
    head: int
    oldest: int
    window_ms: int


@attrs.frozen
class StreamView:
    """What an operator sees of a stream: `retained` signals of so many bytes, and its groups.

    Attributes:
        asked: filters that a signal was held against, since the instance began. refused: those that said no.
    """

    head: int
    retained: int
    retained_bytes: int
    groups: int
    asked: int = 0
    refused: int = 0


@attrs.frozen
class Joined:
    """The answer to `subscribe`: for each wanted one what was granted, or why not."""

    bounds: Bounds
    answers: tuple[Granted | str, ...]


@attrs.frozen
class Greeted:
    """The answer to `hello`: the session, the token to resume it with, and the subscriptions that came with it."""

    session: Session
    resume: str
    joined: Joined
