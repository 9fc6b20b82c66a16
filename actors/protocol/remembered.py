"""What is remembered of a connection besides its socket, so that it outlives the shard's instance: one frozen value."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from actors.principal import Capability, Principal
from actors.protocol.encoding import EncodingName
from actors.protocol.requests import OnGap, OnSlow


@attrs.frozen
class Snapping:
    """Parts of a snapshot, or of a backfill, are to be sent.

    Attributes:
        after: the next part begins behind this offset. without: the group whose signals are left out; 0 for a
            snapshot, which has the newest signal of each type and entity.
    """

    after: int = 0
    without: int = 0


@attrs.frozen
class Subscription:
    """One subscription of a connection. Its filter is unknown here; the broadcaster has it under the group's number.

    Attributes:
        group: whose live frames it gets. cursor: where the next page begins; once live, where it joined.
        live: it is a member of its group. on_gap: what it asked for. snap: what is to be sent before pages.
        min_ms: of `mode` `latest`; 0 for `all`. on_slow: what happens when its client reads too slowly.
        slow: that has happened, and it is not live until its client has caught up with reading.
    """

    group: int
    cursor: int
    live: bool = False
    on_gap: OnGap = "fail"
    snap: Snapping | None = None
    min_ms: int = 0
    on_slow: OnSlow = "close"
    slow: bool = False

    @property
    def groups(self) -> tuple[int, ...]:
        """The groups that the broadcaster must know for it."""
        return (self.group, self.snap.without) if self.snap is not None and self.snap.without else (self.group,)


@attrs.frozen(kw_only=True)
class Remembered:
    """What a connection is, besides its socket.

    Attributes:
        principal: who its client is, once that is known. peer: its address.
        counted: the limits of rates and counts apply to it. session: "" until it was welcomed.
        number: which socket of its session it is. replaces: older ones of that are to be ended.
        moves: it knows what to do about `goaway`. notice_at: when to say that its token expires, until that was said.
        was_reset: its subscriptions were forgotten once; what it asked for before it heard of that may still come.
        encoding: what its frames are. sdk: what its client says it is. opened: seconds since the Unix epoch.
    """

    principal: Principal | None = None
    peer: str = ""
    counted: bool = False
    session: str = ""
    number: int = 1
    replaces: bool = False
    moves: bool = False
    subs: Mapping[str, Subscription] = attrs.field(factory=dict)
    was_reset: bool = False
    notice_at: float | None = None
    encoding: EncodingName = "json"
    sdk: str = ""
    opened: float = 0.0

    def with_subs(self, subs: Mapping[str, Subscription]) -> Remembered:
        """The same with other subscriptions; `attrs.evolve`, which is slow, would be a part of every subscription."""
        return Remembered(
            principal=self.principal,
            peer=self.peer,
            counted=self.counted,
            session=self.session,
            number=self.number,
            replaces=self.replaces,
            moves=self.moves,
            subs=subs,
            was_reset=self.was_reset,
            notice_at=self.notice_at,
            encoding=self.encoding,
            sdk=self.sdk,
            opened=self.opened,
        )

    @property
    def user(self) -> str:
        """The name of its user; "" for nobody."""
        return "" if self.principal is None else self.principal.user

    @property
    def expires(self) -> float | None:
        """Until when its client is let in."""
        return None if self.principal is None else self.principal.expires

    @property
    def capability(self) -> Capability:
        """What its client may do; nothing before it is known who that is."""
        return Capability() if self.principal is None else self.principal.capability

    @property
    def is_careful(self) -> bool:
        """It is not to be closed for reading slowly: every subscription says what else to do."""
        return bool(self.subs) and all(sub.on_slow != "close" for sub in self.subs.values())
