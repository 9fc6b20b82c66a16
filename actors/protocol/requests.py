"""What a client says in `signals.v1` as values, each with its JSON text; `decoding.py` reads them back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

import attrs

from actors.filters import Filter
from actors.protocol.cursor import Ago, Cursor, Last, Since
from actors.protocol.messages import Err, dump, present
from actors.signals import Draft

PING = '{"t":"ping"}'

OnGap = Literal["fail", "skip"]
OnSlow = Literal["close", "latest", "skip"]
Mode = Literal["all", "latest"]


@attrs.frozen(kw_only=True)
class ClientInfo:
    """What a client says about itself; shown to operators, decides nothing."""

    name: str = ""
    version: str = ""
    sdk: str = ""


@attrs.frozen(kw_only=True)
class Sub:
    """Subscribe under the client's own name `s`; `id` is None inside `hello`.

    Attributes:
        min_ms: 0 for `mode` `all`; else `latest`, with a frame every so many ms.
    """

    id: int | None = None
    s: str
    filter: Filter
    since: Since = "now"
    on_gap: OnGap = "fail"
    min_ms: int = 0
    on_slow: OnSlow = "close"

    def to_json(self) -> dict[str, object]:
        """The message as a JSON object."""
        return present(
            t=None if self.id is None else "sub",
            id=self.id,
            s=self.s,
            filter=json.loads(self.filter.source),
            on_gap=None if self.on_gap == "fail" else self.on_gap,
            mode="latest" if self.min_ms else None,
            min_ms=self.min_ms or None,
            on_slow=None if self.on_slow == "close" else self.on_slow,
        ) | {"from": since_to_json(self.since)}

    def encode(self) -> str:
        """The message's text."""
        return dump(self.to_json())


@attrs.frozen(kw_only=True)
class Hello:
    """The first message of a connection; a part of `subs` that cannot be accepted is the `Err` to answer with."""

    id: int
    token: str | None = attrs.field(default=None, repr=False)
    resume: str | None = None
    client: ClientInfo | None = None
    features: tuple[str, ...] = ()
    subs: tuple[Sub | Err, ...] = ()

    def encode(self) -> str:
        """The message's text."""
        return dump(
            present(
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
class Change:
    """What `mod` makes of a subscription; None leaves a part as it is.

    Attributes:
        min_ms: 0 for `mode` `all`, else `latest` with a frame every so many ms.
        backfill: which older signals of the new filter, that the old one did not let through, come first.
    """

    filter: Filter | None = None
    min_ms: int | None = None
    on_slow: OnSlow | None = None
    backfill: Last | Ago | None = None


@attrs.frozen(kw_only=True)
class Mod:
    """Change a subscription in place."""

    id: int
    s: str
    change: Change

    def encode(self) -> str:
        """The message's text."""
        change = self.change
        return dump(
            present(
                t="mod",
                id=self.id,
                s=self.s,
                filter=None if change.filter is None else json.loads(change.filter.source),
                mode=None if change.min_ms is None else "latest" if change.min_ms else "all",
                min_ms=change.min_ms or None,
                on_slow=change.on_slow,
                backfill=None if change.backfill is None else since_to_json(change.backfill),
            )
        )


@attrs.frozen
class Ack:
    """How far subscriptions are: telemetry, which is not answered and decides nothing."""

    offsets: Mapping[str, int]

    def encode(self) -> str:
        """The message's text."""
        return dump({"t": "ack", "c": dict(self.offsets)})


@attrs.frozen(kw_only=True)
class Auth:
    """Go on with a newer token of the same user."""

    id: int
    token: str = attrs.field(repr=False)

    def encode(self) -> str:
        """The message's text."""
        return dump({"t": "auth", "id": self.id, "token": self.token})


@attrs.frozen(kw_only=True)
class Unsub:
    """End a subscription."""

    id: int
    s: str

    def encode(self) -> str:
        """The message's text."""
        return dump({"t": "unsub", "id": self.id, "s": self.s})


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
            parts.append(f'"id":{dump(draft.id)}')
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
        return dump(
            present(
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


ClientMessage = Hello | Sub | Mod | Ack | Auth | Unsub | Pub | Hist | Ping


def since_to_json(since: Since) -> object:
    """The `from` of a subscription as JSON."""
    match since:
        case Cursor():
            return {"cursor": str(since)}
        case Last(count):
            return {"last": count}
        case Ago(ms):
            return {"ago_ms": ms}
        case _:
            return since
