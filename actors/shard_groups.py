"""The live side of a shard: takes the groups' frames, flushes them to members, and reads again what was missed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs
import trio

from actors.fanout import Delivery
from actors.groups import Page
from actors.measures import ShardMeasures
from actors.protocol.codes import CloseCode
from actors.protocol.limits import Limits
from actors.protocol.remembered import Remembered, Subscription
from actors.reach import StreamReach
from actors.session import CHUNK_SOCKETS, EVENTS, Connection, Frames, LocalGroup, Passed, Team
from actors.signals import SignalTexts, offset_of
from actors.tracing import DeliveryTraces, FlushTrace
from runtime import ActorError, Context, PreparedMessage

SAVE_S = 1.0
HEALERS = 8  # groups that are read from the log at a time
HEAL_AGAIN_S = 1.0
FLUSH_GROUPS = 256  # of one piece of a flush; effects that wait for storage are bounded
FLUSH_BYTES = 8 * 1_048_576  # frames encoded for one piece
_PLACES = "places/"
_ROW_GROUPS = 256  # places in one stored row: at most 3 KiB

_TeamKey = tuple[bool, Frames, tuple[int, ...]]


@attrs.define(eq=False)
class ShardGroups:
    """The groups that connections of one shard listen to.

    Each has a cursor: how far its members were given everything. It follows the broadcaster's frames; a frame that
    begins beyond it says that some were missed, and they are read from the log. It is saved soon after it moved, so
    that an instance after an eviction knows it, or an older place: members ignore what they have already.

    Args:
        ctx: the shard's. stream: the way to the broadcaster. limits: of a connection. traces: of single signals.

    Attributes:
        epoch: of the stream, as every welcomed client here knows it.
        when_held: told of a connection whose subscriptions are not live any more, because it reads too slowly.
        measures: what this shard has counted. when_counted: told that it has counted something.
        recorded: connections that an operator looks at, with the time on trio's clock until which they are.
    """

    ctx: Context
    stream: StreamReach
    limits: Limits
    traces: DeliveryTraces
    epoch: str = attrs.field(default="", init=False)
    when_held: Callable[[Connection], None] = attrs.field(default=lambda _: None, init=False)
    when_counted: Callable[[], None] = attrs.field(default=lambda: None, init=False)
    measures: ShardMeasures = attrs.field(factory=ShardMeasures, init=False)
    recorded: dict[Connection, float] = attrs.field(factory=dict, init=False)
    _groups: dict[int, LocalGroup] = attrs.field(factory=dict, init=False)
    _numbered_at: float | None = attrs.field(default=None, init=False)  # the oldest signal that waits for a flush
    _teams: dict[_TeamKey, Team] = attrs.field(factory=dict, init=False)
    _dirty: dict[int, LocalGroup] = attrs.field(factory=dict, init=False)
    _missing: deque[LocalGroup] = attrs.field(factory=deque, init=False)
    _healers: int = attrs.field(default=0, init=False)
    _changed_rows: set[int] = attrs.field(factory=set, init=False)
    _flushing: bool = attrs.field(default=False, init=False)
    _saving: bool = attrs.field(default=False, init=False)

    def __iter__(self) -> Iterator[LocalGroup]:
        return iter(self._groups.values())

    def __getitem__(self, number: int) -> LocalGroup:
        return self._groups[number]

    # Subscribers.

    def restore(self, states: Iterable[Remembered]) -> None:
        """Build the groups again, without members, from what the sockets' attachments say."""
        rows = self.ctx.storage.list(dict[int, int], prefix=_PLACES)
        places = {number: cursor for row in rows.values() for number, cursor in row.items()}
        for sub in [sub for state in states for sub in state.subs.values()]:
            for number in sub.groups:
                group = self._groups.setdefault(number, LocalGroup.at(number, places.get(number, sub.cursor)))
                group.subscribers += 1
                if number not in places:
                    group.cursor = group.flushed = group.begun = min(group.cursor, sub.cursor)
            if sub.min_ms:
                # What the last instance held back is in the log.
                self._groups[sub.group].conflate(sub.min_ms)
                self.heal_soon(self._groups[sub.group])
        self._changed_rows.update(number // _ROW_GROUPS for number in places.keys() - self._groups.keys())

    def add_subscriber(self, number: int, head: int, min_ms: int | None = None) -> None:
        """One more subscription of a group, which stands at `head` in the broadcaster; None: whatever its mode is."""
        group = self._groups.get(number)
        if group is None:
            group = self._groups[number] = LocalGroup.at(number, head)
            self._save_soon()
        if min_ms is not None:
            group.conflate(min_ms)
        group.subscribers += 1
        if group.cursor < head:
            self.heal_soon(group)

    def join(self, connection: Connection, number: int) -> None:
        """A subscription has reached its group's cursor: it gets live frames from now on."""
        groups = connection.groups
        if number in groups:
            groups[number] += 1
        else:
            self._leave_team(connection)
            groups[number] = 1
            connection.joined(number, self._groups[number].passed)
            self._join_team(connection)
        group = self._groups[number]
        if group.flushed != group.cursor:
            connection.overlaps(group.cursor)

    def tune(self, connection: Connection) -> None:
        """Its subscriptions may say something else about slow reading now."""
        careful = connection.machine.state.is_careful
        if careful != connection.careful:
            self._leave_team(connection)
            connection.careful = careful
            self._join_team(connection)
            patience_s = math.inf if careful else self.limits.backlog_ms / 1000
            if connection.socket is not None:
                connection.socket.limit_backlog(self.limits.backlog_bytes, patience_s, CloseCode.SLOW_CONSUMER)

    def drop(self, connection: Connection, subs: Iterable[Subscription]) -> None:
        """Subscriptions of a connection have ended."""
        ended = tuple(subs)
        self._leave_team(connection)
        for sub in ended:
            if sub.live:
                connection.groups[sub.group] -= 1
                if not connection.groups[sub.group]:
                    del connection.groups[sub.group]
                    connection.left(sub.group, self._groups[sub.group].passed)
        self._join_team(connection)
        self.release(number for sub in ended for number in sub.groups)

    def release(self, numbers: Iterable[int]) -> None:
        """One subscription less for each of these groups."""
        empty: list[int] = []
        for number in numbers:
            group = self._groups[number]
            group.subscribers -= 1
            if not group.subscribers:
                del self._groups[number]
                self._dirty.pop(number, None)
                self.traces.forget(number)
                empty.append(number)
        if empty:
            self._changed_rows.update(number // _ROW_GROUPS for number in empty)
            self._save_soon()
            self.stream.leave(empty)

    def _join_team(self, connection: Connection) -> None:
        numbers = tuple(sorted(connection.groups))
        if not numbers:
            return
        key = (connection.careful, connection.frames, numbers)
        team = self._teams.get(key)
        if team is None:
            team = self._teams[key] = Team(numbers, connection.frames, connection.careful)
            for number in numbers:
                self._groups[number].teams[team] = None
        team.add(connection)

    def _leave_team(self, connection: Connection) -> None:
        numbers = tuple(sorted(connection.groups))
        if not numbers:
            return
        key = (connection.careful, connection.frames, numbers)
        team = self._teams[key]
        team.remove(connection)
        if not team.members:
            del self._teams[key]
            for number in numbers:
                del self._groups[number].teams[team]

    def acknowledge(self, connection: Connection, offsets: Mapping[str, int]) -> None:
        """A client has said how far its subscriptions are."""
        before = connection.acked
        if connection.acknowledge(offsets):
            if (lag := self.lag(connection)) is not None:
                self.measures.lag.note(lag)
            moved = [offset for s, offset in offsets.items() if offset > before.get(s, 0)]
            if moved:
                self.measures.has_it(max(moved), trio.current_time())

    def lag(self, connection: Connection) -> int | None:
        """By how many offsets a connection's slowest subscription is behind; None before its client has said."""
        lags = [
            self._groups[sub.group].cursor - connection.acked[s]
            for s, sub in connection.machine.state.subs.items()
            if s in connection.acked
        ]
        return max(0, *lags) if lags else None

    def passed(self, connection: Connection) -> Passed:
        """What a connection was sent live."""
        now = (self._groups[number].passed - begun for number, begun in connection.begins.items())
        return sum(now, connection.passed)

    # Frames.

    def take(
        self, deliveries: Iterable[Delivery], numbered_at: float | None = None, traced: Sequence[int] = ()
    ) -> None:
        """Live frames have come; `numbered_at`: when their signals were, on trio's clock. `traced`: some of these."""
        unknown: list[int] = []
        newest = 0
        if traced:
            self.traces.take(traced)
        for delivery in deliveries:
            upto, signals = delivery.upto, delivery.signals
            newest = upto if signals else newest
            for number, after in zip(delivery.groups, delivery.afters, strict=True):
                group = self._groups.get(number)
                if group is None:
                    unknown.append(number)
                elif after > group.cursor:
                    self.ctx.point("a shard missed a frame")
                    self.heal_soon(group)
                elif upto > group.cursor and not group.healing:
                    self._extend(group, after, upto, signals)
                    if traced and group.conflates:
                        self.traces.wait(number, (offset_of(one.json) for one in signals))
                    if self._numbered_at is None and signals and not group.conflates:
                        self._numbered_at = numbered_at
        if newest and numbered_at is not None:
            self.measures.numbered(newest, numbered_at)
        self.stream.leave(unknown)

    def compare(self, numbers: Iterable[int], cursors: Iterable[int]) -> None:
        """Where the broadcaster's groups stand."""
        unknown: list[int] = []
        for number, cursor in zip(numbers, cursors, strict=True):
            group = self._groups.get(number)
            if group is None:
                unknown.append(number)
            elif group.cursor < cursor:
                self.ctx.point("a shard is behind after a restart")
                self.heal_soon(group)
        self.stream.leave(unknown)

    def _extend(
        self, group: LocalGroup, after: int, upto: int, signals: tuple[SignalTexts, ...], left_out: int = 0
    ) -> None:
        group.extend(after, upto, signals, left_out)
        if (due_s := group.due_s) <= 0:
            self._flush_soon(group)
        elif not group.waits:
            group.waits = True
            self.ctx.set_timeout(due_s, self._flush_late, group)

    async def _flush_late(self, group: LocalGroup) -> None:
        """A conflated frame's time has come, unless it has left before for its size."""
        group.waits = False
        if self._groups.get(group.number) is not group or group.flushed == group.cursor:
            return
        if group.due_s <= 0:
            self._flush_soon(group)
        else:
            group.waits = True
            self.ctx.set_timeout(group.due_s, self._flush_late, group)

    def rest(self, connection: Connection) -> list[str]:
        """What is pending for a socket's live subscriptions, for it alone, because it is about to be closed."""
        if connection.closed or connection.socket is None:
            return []
        subs = connection.machine.state.subs.items()
        return [text for s, sub in subs if sub.live for text in self._groups[sub.group].rest(s)]

    async def flush_held_back(self) -> None:
        """Conflated frames leave now, because connections are about to end."""
        held = {group.number: group for group in self._groups.values() if group.flushed != group.cursor}
        if held:
            self._dirty |= held
            await self._flush()

    def _flush_soon(self, group: LocalGroup) -> None:
        self._dirty[group.number] = group
        if not self._flushing:
            self._flushing = True
            self.ctx.start_soon(self._flush)  # behind the frames that wait in the mailbox already

    async def _flush(self) -> None:
        """Give every dirty group's frames to its members; many groups in pieces, between which others run."""
        self._flushing = False
        dirty, self._dirty = self._dirty, {}
        numbered_at, self._numbered_at = self._numbered_at, None
        trace: FlushTrace | None = None
        waiting = deque(dirty.values())
        while waiting:
            messages: dict[Frames, dict[int, PreparedMessage]] = {}
            count = size = 0
            teams: dict[Team, None] = {}
            traced: list[tuple[LocalGroup, set[int]]] = []
            while waiting and count < FLUSH_GROUPS and size < FLUSH_BYTES:
                group = waiting.popleft()
                if wanted := self.traces.between(group.flushed, group.cursor):
                    traced.append((group, group.offsets.intersection(wanted)))
                    trace = trace or self.traces.begin(wanted)
                if not (made := group.take(self.epoch)):
                    continue
                if group.conflates:
                    self.measures.conflated += len(group.members) * (group.passed - group.before).left_out
                teams.update(group.teams)
                for kind, message in made.items():
                    messages.setdefault(kind, {})[group.number] = message
                    count += 1
                    size += len(message.frame)
            await self._push(teams, messages, trace)
            if trace is not None:
                self._count(traced, trace)
            if waiting:
                await self.ctx.storage.sync()
        if numbered_at is not None:
            self.measures.fanout.note(trio.current_time() - numbered_at)
            self.when_counted()
        if trace is not None:
            self.traces.end(trace)
        self._save_soon()

    def _count(self, traced: Iterable[tuple[LocalGroup, set[int]]], trace: FlushTrace) -> None:
        """Who is still a member after the flush has got it."""
        for group, sent in traced:
            subscriptions = sum(member.groups[group.number] for member in group.members)
            if group.conflates:
                trace.count(sent, "latest", subscriptions)
                trace.count(self.traces.replaced(group.number, sent), "replaced", subscriptions)
            else:
                trace.count(sent, "live", subscriptions)

    async def _push(
        self, teams: Iterable[Team], messages: dict[Frames, dict[int, PreparedMessage]], trace: FlushTrace | None
    ) -> None:
        """One push for each socket."""
        pushed = 0
        for team in teams:
            encoded = messages[team.frames]
            message = _joined(team.groups, encoded)
            members = len(team.members)
            self.measures.deliveries += members * sum(self._groups[n].fresh for n in team.groups if n in encoded)
            self.measures.delivered_bytes += members * len(message.frame)
            if team.careful:
                self._push_carefully(team, message, encoded)
                if trace is not None:
                    trace.sent()
                self._record(team, message, encoded)
                continue
            if team.frames == EVENTS:
                for member in team.members:
                    member.push(message)
                pushed += len(team.members)
                if trace is not None:
                    trace.sent()
            for chunk in team.chunks:
                self.ctx.send_all(chunk, message)
                pushed += len(chunk)
                if trace is not None:
                    trace.sent()
                if pushed >= CHUNK_SOCKETS:
                    pushed = 0
                    await self.ctx.checkpoint()  # keeps the turn
            self._record(team, message, encoded)

    def _record(self, team: Team, message: PreparedMessage, messages: Mapping[int, PreparedMessage]) -> None:
        """Tell the flight recorders of those members that an operator looks at."""
        for member in self.recorded:
            if member in team.members and member.recorder is not None:
                groups = [self._groups[number] for number in team.groups if number in messages]
                told = (f"g {one.number}: {_signals(one.fresh)} in {one.began}–{one.flushed}" for one in groups)
                member.recorder.passed(len(message.frame), "; ".join(told))

    def _push_carefully(self, team: Team, message: PreparedMessage, messages: Mapping[int, PreparedMessage]) -> None:
        size = len(message.frame)
        slow: list[Connection] = []
        for member in team.members:
            if member.takes(size, self.limits):
                member.push(message)
            else:
                slow.append(member)
        for member in slow:
            self._hold(member, messages)

    def _hold(self, connection: Connection, messages: Mapping[int, PreparedMessage]) -> None:
        """Nothing more for one that reads too slowly; what it has not got begins where each subscription is."""
        self.ctx.point("a slow client is sent nothing for now")
        self.measures.slow += 1
        self._leave_team(connection)
        if connection.recorder is not None:
            connection.recorder.note("slow", "reads too slowly; its subscriptions wait for it")
        passed = {n: self._groups[n].before if n in messages else self._groups[n].passed for n in connection.groups}
        for number in passed:
            connection.left(number, passed[number])
        connection.groups.clear()
        connection.missed.clear()
        for s, sub in connection.machine.state.subs.items():
            if sub.live:
                group = self._groups[sub.group]
                at = group.began if sub.group in messages else group.flushed
                connection.machine.held(s, max(sub.cursor, at))
                if sub.on_slow == "skip":
                    connection.missed[s] = passed[sub.group]
        connection.slow_bytes = connection.ws.backlog_bytes
        connection.remember()
        self.when_held(connection)

    # What was missed.

    def heal_soon(self, group: LocalGroup) -> None:
        """Read what a group's members missed; live frames are left out meanwhile, the last page contains them."""
        if not group.healing:
            group.healing = True
            self._missing.append(group)
            if self._healers < HEALERS:
                self._healers += 1
                self.ctx.start_soon(self._heal_all)

    async def _heal_all(self) -> None:
        try:
            while self._missing:
                await self._heal(self._missing.popleft())
        finally:
            self._healers -= 1

    async def _heal(self, group: LocalGroup) -> None:
        try:
            while self._groups.get(group.number) is group:
                try:
                    page = await self.stream.page(group.number, group.cursor)
                except ActorError:
                    await self.ctx.sleep(HEAL_AGAIN_S)
                    continue
                if page is None:
                    for member in group.members:
                        member.close(CloseCode.INSUFFICIENT_STATE, "the group is not known any more")
                    return
                self._add_page(group, page)
                if page.complete:
                    return
        finally:
            group.healing = False

    def _add_page(self, group: LocalGroup, page: Page) -> None:
        if page.after > page.asked:
            self.measures.skipped["retention"] += len(group.members) * (page.after - page.asked)
            earlier = group.take(self.epoch)
            for member in group.members:
                if member.frames in earlier:
                    member.push(earlier[member.frames])
                    if member.recorder is not None:
                        member.recorder.passed(len(earlier[member.frames].frame), f"g {group.number}, before a gap")
                member.send("\n".join(member.machine.missed(group.number, page.asked, page.after)))
            group.cursor = group.flushed = page.after
        if page.upto > page.after:
            parts = page.parts if group.conflates else (page.signals,)
            self._extend(group, page.after, page.upto, tuple(map(SignalTexts, parts)), page.left_out)

    # Places.

    def _save_soon(self) -> None:
        if not self._saving:
            self._saving = True
            self.ctx.set_timeout(SAVE_S, self._save)

    async def _save(self) -> None:
        self._saving = False
        rows: dict[int, dict[int, int]] = {}
        changed, self._changed_rows = self._changed_rows, set()
        for number, group in self._groups.items():
            rows.setdefault(number // _ROW_GROUPS, {})[number] = group.flushed
            if group.stored != group.flushed:
                group.stored = group.flushed
                changed.add(number // _ROW_GROUPS)
        for row in sorted(changed):
            key = f"{_PLACES}{row:08x}"
            if row in rows:
                # Unconfirmed: it stalls nobody, and a crash takes the sockets along.
                self.ctx.storage.put(key, rows[row], allow_unconfirmed=True)
            else:
                self.ctx.storage.delete(key)


def _signals(count: int) -> str:
    return f"{count:,} signal" + ("" if count == 1 else "s")


def _joined(groups: tuple[int, ...], messages: dict[int, PreparedMessage]) -> PreparedMessage:
    if len(groups) == 1:
        return messages[groups[0]]
    return PreparedMessage.join([messages[number] for number in groups if number in messages])
