"""What is said between the broadcaster and its callers: deeply immutable values, passed by reference."""

from __future__ import annotations

import attrs

from actors.protocol.cursor import Cursor, Since
from actors.protocol.messages import OnGap

STREAM = "main"
PUBLISH_SIGNALS = 1_000
PUBLISH_BYTES = 8 * 1024 * 1024


def shard_name(number: int) -> str:
    """The name of a connection manager, counted from 0."""
    return f"shard-{number}"


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
    """A subscription as a shard asks for it; the filter is canonical text."""

    filter: str
    since: Since
    on_gap: OnGap


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
class Joined:
    """The answer to `subscribe`: for each wanted one what was granted, or why not."""

    bounds: Bounds
    answers: tuple[Granted | str, ...]


@attrs.frozen
class Greeted:
    """The answer to `hello`: the session, and the subscriptions that came with it."""

    session: str
    resume: str
    resumed: bool
    joined: Joined
