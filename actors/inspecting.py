"""What an operator sees of the single connections of a shard, and does to them."""

from __future__ import annotations

from collections.abc import Callable
from heapq import nlargest
from typing import Literal

import attrs
import trio

from actors.flight_recorder import Event, FlightRecorder
from actors.observing import AT_ONCE, is_slow
from actors.parting import Parting, Words
from actors.protocol.requests import OnSlow
from actors.session import Connection, LocalGroup, Passed
from actors.shard_connections import ShardConnections
from runtime import Context

LOOK_S = 60.0  # a flight recorder runs on for so long after the last look
GROUPS = 10_000  # that are shown of a shard
RECORDERS = 16  # at a time: some 2 MiB

ConnectionState = Literal["hello", "open", "slow", "leaving"]
Sort = Literal[
    "age_ms", "rtt_ms", "lag", "backlog_bytes", "sent", "sent_bytes", "dropped", "conflated", "subs", "user", "sdk"
]


@attrs.frozen(kw_only=True)
class ConnectionWish:
    """Which connections are looked for, in what order.

    Attributes:
        q: a part, in lower case, of session, user, SDK or address; "" for any. state: "" for any.
    """

    q: str = ""
    state: ConnectionState | Literal[""] = ""
    sort: Sort = "age_ms"


@attrs.frozen
class Places:
    """Connections that are looked for: the value of each that decides the order, and its number in its shard.

    Of one kind each, because what passes between actors is copied, and there may be many.
    """

    values: tuple[float | str | None, ...]
    numbers: tuple[int, ...]


@attrs.frozen(kw_only=True)
class ConnectionView:
    """One connection.

    Attributes:
        session: "~shard-number" of one that has not said hello. age_s: since it was taken. rtt_s: of its TCP
            connection; None where nobody knows, and of server-sent events. lag: in offsets, as its client says; None
            before it has. passed: live signals, since the shard's instance knows it.
        dropped: live signals that it did not get because it reads too slowly. subs: how many it has.
    """

    session: str
    user: str
    sdk: str
    peer: str
    encoding: str
    age_s: float
    rtt_s: float | None
    lag: int | None
    backlog_bytes: int
    passed: Passed
    dropped: int
    subs: int
    state: ConnectionState


@attrs.frozen(kw_only=True)
class SubscriptionView:
    """One subscription of a connection; `matched`: live signals since it joined its group, 0 while it is not live."""

    s: str
    group: int
    min_ms: int
    state: Literal["live", "catchup", "snapshot", "slow"]
    position: int
    on_slow: OnSlow
    matched: int


@attrs.frozen(kw_only=True)
class GroupView:
    """A filter group as a shard sees it, since that is in memory.

    Attributes:
        members: subscriptions. evaluated: signals of the stream since it knows the group. matched: those of them that
            were for it. known_s: for how long it knows it. nbytes: of what it sent to each member, as JSON.
    """

    number: int
    members: int
    evaluated: int
    matched: int
    known_s: float
    nbytes: int

    def joined(self, other: GroupView) -> GroupView:
        """Seen by two shards: figures of the one that knows it longer, members of both."""
        longer = max(self, other, key=lambda one: one.known_s)
        return attrs.evolve(longer, members=self.members + other.members)

    @property
    def match_rate(self) -> float | None:
        """Which part of the signals was for it; None before there are any."""
        return self.matched / self.evaluated if self.evaluated else None

    @property
    def bytes_per_s(self) -> float | None:
        """For each member; None within the first second."""
        return self.nbytes / self.known_s if self.known_s >= 1 else None


@attrs.frozen
class Opened:
    """What is shown of one connection."""

    view: ConnectionView
    subs: tuple[SubscriptionView, ...]
    events: tuple[Event, ...]


_VALUES: dict[Sort, Callable[[ShardConnections, Connection, float], float | str | None]] = {
    "age_ms": lambda _, one, now: max(0.0, now - one.machine.state.opened),
    "rtt_ms": lambda _, one, now: _rtt_s(one),
    "lag": lambda shard, one, _: shard.groups.lag(one),
    "backlog_bytes": lambda _, one, now: one.ws.backlog_bytes,
    "sent": lambda shard, one, _: shard.groups.passed(one).signals,
    "sent_bytes": lambda shard, one, _: shard.groups.passed(one).nbytes,
    "dropped": lambda _, one, now: one.dropped,
    "conflated": lambda shard, one, _: shard.groups.passed(one).left_out,
    "subs": lambda _, one, now: len(one.machine.state.subs),
    "user": lambda _, one, now: one.machine.state.user or None,
    "sdk": lambda _, one, now: one.machine.state.sdk or None,
}


@attrs.define(eq=False)
class Inspector:
    """Looks at connections with the shard's turn; of many at some at a time, between which others run.

    Args:
        ctx: the shard's. number: of the shard. connections: those of the shard. parting: how one ends.
    """

    ctx: Context
    number: int
    connections: ShardConnections
    parting: Parting
    _timed: bool = attrs.field(default=False, init=False)

    async def find(self, wish: ConnectionWish) -> Places:
        """Every connection that is looked for."""
        value, now = _VALUES[wish.sort], self.ctx.now()
        values: list[float | str | None] = []
        numbers: list[int] = []
        for n, one in enumerate(list(self.connections), 1):
            if n % AT_ONCE == 0:
                await self.ctx.checkpoint()
            if self._is_wanted(one, wish):
                values.append(value(self.connections, one, now))
                numbers.append(one.number)
        return Places(tuple(values), tuple(numbers))

    def _is_wanted(self, one: Connection, wish: ConnectionWish) -> bool:
        state, q = one.machine.state, wish.q
        if q and not any(q in text.lower() for text in (state.session, state.user, state.sdk, state.peer)):
            return False
        return not wish.state or wish.state == self._state(one)

    def views(self, numbers: frozenset[int]) -> dict[int, ConnectionView]:
        """Those of these numbers that are still there."""
        return {one.number: self._view(one) for one in self.connections if one.number in numbers}

    async def groups(self, head: int) -> tuple[GroupView, ...]:
        """The groups of the shard, whose stream is at `head`; of more than 10,000 those with the most members."""
        found: list[GroupView] = []
        for n, one in enumerate(nlargest(GROUPS, self.connections.groups, key=lambda one: one.subscribers), 1):
            if n % AT_ONCE == 0:
                await self.ctx.checkpoint()
            found.append(_group(one, head, trio.current_time()))
        return tuple(found)

    def look(self, session: str) -> Opened | None:
        """One connection; what is said from now on is recorded until 60 s after the last look at it."""
        one = self._named(session)
        if one is None:
            return None
        recorded = self.connections.groups.recorded
        if one.recorder is None:
            one.recorder = FlightRecorder(self.ctx.now)
            one.recorder.note("recording", "begins now")
        recorded.pop(one, None)
        recorded[one] = trio.current_time() + LOOK_S  # the longest unseen is the first
        self._end_looks_after(LOOK_S)
        if len(recorded) > RECORDERS:
            self._end_look(next(iter(recorded)))
        subs = tuple(self._sub(one, s) for s in one.machine.state.subs)
        return Opened(self._view(one), subs, one.recorder.events)

    def _end_looks_after(self, seconds: float) -> None:
        if not self._timed:
            self._timed = True
            self.ctx.set_timeout(seconds, self._end_looks)

    async def _end_looks(self) -> None:
        self._timed = False
        recorded, now = self.connections.groups.recorded, trio.current_time()
        for one in [one for one, until in recorded.items() if until <= now]:
            self._end_look(one)
        if recorded:
            self._end_looks_after(next(iter(recorded.values())) - now)

    def _end_look(self, one: Connection) -> None:
        one.recorder = None
        del self.connections.groups.recorded[one]

    def close(self, session: str, code: int, reason: str) -> bool:
        """Close a connection; False when there is none."""
        one = self._named(session)
        if one is None or one.closed:
            return False
        self.ctx.start_soon(self.parting.close, {one: Words(code, reason)})
        return True

    def connection_number(self, session: str) -> int | None:
        """Which one it is of the connections that can be made to fail; 0 if it cannot, None when there is none."""
        one = self._named(session)
        if one is None or one.closed:
            return None
        return (one.socket.connection_number if one.socket is not None else None) or 0

    def send_away(self, session: str) -> bool:
        """Let a client connect anew, without a loss where it knows how; False when there is none."""
        one = self._named(session)
        if one is None or one.closed:
            return False
        if not one.leaving:
            one.leaving = True
            self.ctx.start_soon(self.parting.send_away, (one,))
        return True

    def _named(self, session: str) -> Connection | None:
        """The newest of a session: one that moves has two for a moment."""
        return next((one for one in reversed(list(self.connections)) if self._name(one) == session), None)

    def _name(self, one: Connection) -> str:
        return one.machine.state.session or f"~{self.number}-{one.number}"

    def _view(self, one: Connection) -> ConnectionView:
        state, groups = one.machine.state, self.connections.groups
        return ConnectionView(
            session=self._name(one),
            user=state.user,
            sdk=state.sdk,
            peer=state.peer,
            encoding=one.frames,
            age_s=max(0.0, self.ctx.now() - state.opened),
            rtt_s=_rtt_s(one),
            lag=groups.lag(one),
            backlog_bytes=one.ws.backlog_bytes,
            passed=groups.passed(one),
            dropped=one.dropped,
            subs=len(state.subs),
            state=self._state(one),
        )

    def _state(self, one: Connection) -> ConnectionState:
        if one.closed or one.leaving or self.connections.departure is not None:
            return "leaving"
        if not one.machine.is_welcomed:
            return "hello"
        return "slow" if is_slow(one, self.connections.limits) else "open"

    def _sub(self, one: Connection, s: str) -> SubscriptionView:
        sub = one.machine.state.subs[s]
        group = self.connections.groups[sub.group]
        return SubscriptionView(
            s=s,
            group=sub.group,
            min_ms=sub.min_ms,
            state="live" if sub.live else "slow" if sub.slow else "catchup" if sub.snap is None else "snapshot",
            position=group.flushed if sub.live else sub.cursor,
            on_slow=sub.on_slow,
            matched=(group.passed - one.begins[sub.group]).signals if sub.live else 0,
        )


def _rtt_s(one: Connection) -> float | None:
    return None if one.socket is None else one.socket.round_trip_s


def _group(one: LocalGroup, head: int, now: float) -> GroupView:
    return GroupView(
        number=one.number,
        members=one.subscribers,
        evaluated=max(one.flushed, head) - one.begun,
        matched=one.passed.signals + one.passed.left_out,
        known_s=now - one.since,
        nbytes=one.passed.nbytes,
    )
