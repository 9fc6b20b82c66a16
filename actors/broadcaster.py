"""The stream: numbers signals, keeps them, and tells the connection managers what each filter group gets."""

from __future__ import annotations

import base64
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio

from actors.fanout import Fanout
from actors.filters import Filter
from actors.groups import SCAN_ENTRIES, Group, Groups, Page, TooManyGroups
from actors.history import HistoryPage, Unreadable, Wish, cut
from actors.log import RecentIds, SignalLog, StreamState
from actors.protocol.cursor import Ago, Cursor, Last, Since
from actors.resume import SECRET_BYTES, Session, Sessions
from actors.signals import Draft, Signal
from actors.snapshots import Snapshots, conflate
from actors.stream import (
    PUBLISH_BYTES,
    PUBLISH_SIGNALS,
    Bounds,
    Change,
    Changed,
    Granted,
    Greeted,
    Ingested,
    Joined,
    Published,
    Receipt,
    SnapPart,
    StreamView,
    Wanted,
    shard_name,
)
from actors.tracing import PublicationTraces
from runtime import Actor, ActorError, ActorId, AlarmInfo, Context, LimitExceeded, durable

if TYPE_CHECKING:
    from actors.env import Env

MOVED_AT_ONCE = 500  # quiet groups; more are moved in as many pieces, spread over `position_s`
_DRAFTS_AT_ONCE = 128  # numbered and stored before others get a moment
_RESTORED = "restored"  # kept until every shard has heard of it
_TELL_AGAIN_S = 1.0
_BEHIND_S = 0.25  # a shard whose mailbox was full is told where the groups stand after this time


class SignalBroadcaster(Actor["Env"]):
    """One totally ordered, durable log of signals.

    What it sends leaves it only when the signals are durable, so no offset is seen and later given away again.
    """

    stream = durable(StreamState)

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self._settings = env.settings.stream_settings(ctx.id.name)
        if self.stream.lineage != ctx.lineage:
            # A new log, or one that was brought back: offsets after its head may have been seen with other contents.
            if self.stream.epoch:
                ctx.storage.put(_RESTORED, True)
            self.stream = attrs.evolve(
                self.stream,
                epoch=base64.urlsafe_b64encode(ctx.token(9)).decode(),
                lineage=ctx.lineage,
                secret=ctx.token(SECRET_BYTES),
            )
        self._log = SignalLog(ctx.storage, self._settings)
        self._snapshots = Snapshots(self._log)
        self._ids = RecentIds(self._settings)
        self._groups = Groups(ctx.storage, most=self._settings.groups)
        self._sessions = Sessions(self.stream.secret, self._settings.resume_s)
        self._shards: dict[str, ActorId] = {}
        self._behind: set[str] = set()
        self._asked = self._refused = 0
        self._traces = PublicationTraces(ctx, env.tracers, env.settings.traced_share(ctx.id.name))
        self._restored = ctx.storage.get(_RESTORED, bool, False)
        ctx.block_concurrency_while(self._load)

    async def _load(self) -> None:
        for _ in self._groups.load(self.stream.head):
            await self.ctx.checkpoint()
        if self._restored:
            # At once, so that every shard hears of it before anything else that this instance says.
            told = [self._restored_shard(number) for number in range(self.env.settings.shards)]
            self.ctx.start_soon(self._tell_restored, told)
        elif len(self._groups):
            # What the last instance sent may have been dropped with it: let every shard compare.
            self.ctx.point("a stream goes on with listeners")
            self.ctx.start_soon(self._tell_positions)

    # Publishing.

    async def publish(self, drafts: tuple[Draft, ...]) -> Published:
        """Number and store signals; a repeated id (within `dedup_s`) gets the offset of the first.

        Raises: LimitExceeded, over 1,000 signals or 8 MiB.
        """
        await self._ready(drafts)
        return Published(self.stream.epoch, tuple(await self._append(drafts)))

    async def ingest(self, source: str, after: str | None, upto: str, drafts: tuple[Draft, ...]) -> Ingested:
        """Take a source's batch, and its cursor with it, if the stored cursor of the source is `after`.

        Otherwise nothing is stored and the answer has the cursor to continue from.

        Raises: LimitExceeded, over 1,000 signals or 8 MiB.
        """
        await self._ready(drafts)
        key = f"source/{source}"
        stored = self.ctx.storage.get(key, str)
        if stored != after:
            self.ctx.point("a source goes on from elsewhere")
            return Ingested(stored, accepted=False)
        self.ctx.storage.put(key, upto)
        receipts = await self._append(drafts, source)
        return Ingested(upto, accepted=True, duplicates=sum(receipt.dup for receipt in receipts))

    async def _ready(self, drafts: Sequence[Draft]) -> None:
        _bounded("signals", len(drafts), PUBLISH_SIGNALS)
        _bounded("bytes", sum(draft.size_bytes for draft in drafts), PUBLISH_BYTES)
        if not self._ids.loaded:
            for _ in self._ids.rebuild(self._log, self.stream, self._now_ms()):
                await self.ctx.checkpoint()  # keeps the turn

    async def _append(self, drafts: Iterable[Draft], source: str = "") -> list[Receipt]:
        """Number, store and send; others of the server run in between, but no other event of this actor."""
        came = trio.current_time()
        now_ms = max(self._now_ms(), self.stream.last_ts)
        head = self.stream.head
        receipts: list[Receipt] = []
        signals: list[Signal] = []
        for n, draft in enumerate(drafts, 1):
            if n % _DRAFTS_AT_ONCE == 0:
                await self.ctx.checkpoint()
            id_ = draft.id or self.ctx.token(12).hex()
            first = self._ids.find(id_, now_ms)
            if first is not None:
                self.ctx.point("a signal is published again")
            else:
                head += 1
                signals.append(draft.signal(o=head, ts=now_ms, id=id_))
                self._ids.add(id_, head, now_ms)
            receipts.append(Receipt(head if first is None else first, first is not None))
        if signals:
            self.stream = self._log.trim(self._log.append(self.stream, signals), now_ms)
            fanout = Fanout()
            for _ in fanout.publish(self._groups, signals):
                await self.ctx.checkpoint()
            self._asked += fanout.asked
            self._refused += fanout.refused
            traced = self._traces.chosen(signals)
            if traced:
                self._traces.note(traced, source, len(signals), came, fanout)
            self._send(fanout, tuple(one.offset for one in traced))
            self._wake_by(self.ctx.now() + self._moving_s)
        return receipts

    # Subscribing.

    async def hello(self, shard: str, resume: str | None, user: str, wanted: tuple[Wanted, ...]) -> Greeted:
        """Begin or continue a session, and subscribe."""
        now = self.ctx.now()
        kept = None if resume is None else self._sessions.resumed(resume, user, now)
        session = kept or Session(f"s_{self.ctx.token(9).hex()}")
        return Greeted(session, self._sessions.token(session, user, now), await self.subscribe(shard, wanted))

    async def subscribe(self, shard: str, wanted: tuple[Wanted, ...]) -> Joined:
        """Record the shard as a listener of each filter's group, and say where each subscriber begins.

        The answer and every later frame reach the shard in the order they leave here, so nothing is in between.
        """
        places = [await self._place(one.filter, one.since) for one in wanted]
        # From here on no other event gets in.
        answers: list[Granted | str] = []
        for one, place in zip(wanted, places, strict=True):
            try:
                answers.append(self._grant(shard, one, place))
            except TooManyGroups as error:
                answers.append(str(error))
        return Joined(self._bounds(), tuple(answers))

    def _grant(self, shard: str, wanted: Wanted, place: int) -> Granted:
        state = self.stream
        group = self._groups.open(wanted.filter, state.head, wanted.min_ms)
        self._to_head(group)  # whoever joins at the head must not be ahead of the group
        self._groups.listen(group, shard)

        def at(offset: int, recovered: bool | None = None, lost: tuple[int, int] | None = None) -> Granted:
            return Granted(group.number, Cursor(state.epoch, offset), recovered, lost)

        skip = wanted.on_gap == "skip"
        match wanted.since:
            case "now" | "snapshot":
                return at(state.head)
            case "earliest":
                return at(state.oldest - 1)
            case Last() | Ago():
                return at(place)
            case Cursor(epoch, offset) if epoch == state.epoch and offset <= state.head:
                if offset >= state.oldest - 1:
                    return at(offset, recovered=True)
                self.ctx.point("a subscriber comes back too late")
                return at(offset if skip else state.head, recovered=False, lost=(offset, state.oldest - 1))
            case Cursor(epoch, offset):
                if epoch == state.epoch:
                    self.ctx.log.error("a cursor is beyond the head of its epoch", cursor=offset, head=state.head)
                return at(state.oldest - 1 if skip else state.head, recovered=False)

    def _to_head(self, group: Group) -> None:
        """Flush a group whose cursor is behind."""
        if group.cursor < self.stream.head:
            fanout = Fanout()
            fanout.move([group], self.stream.head)
            self._send(fanout)

    async def _place(self, filter_: str, since: Since) -> int:
        """The offset after which a subscription begins that asked for the newest ones; 0 for any other."""
        match since:
            case Last(count):
                return await self._look_back(Filter.from_canonical(filter_).matches, count, self.stream.head)
            case Ago(ms):
                return self._log.before(self.stream, self._now_ms() - ms)
            case _:
                return 0

    async def _look_back(self, matches: Callable[[dict[str, Any]], bool], count: int, upto: int) -> int:
        """The offset after which the newest `count` matching signals come; others run between the pieces."""
        while True:
            stop = max(self.stream.oldest - 1, upto - SCAN_ENTRIES)
            for entry in self._log.entries_back(upto, stop):
                count -= matches(entry.value)
                if count == 0:
                    return entry.offset - 1
            if stop <= self.stream.oldest - 1:
                return self.stream.oldest - 1
            upto = stop
            await self.ctx.sleep(0)

    async def modify(self, shard: str, change: Change) -> Changed | str | None:
        """Record the shard as a listener of a subscription's new group; None when the one before is not known.

        Both groups are at the head then, so the subscription can go over from one to the other without a hole.
        A text says why there is no room for the new one.
        """
        before = self._groups.get(change.group)
        if before is None:
            return None
        filter_ = before.filter.canonical if change.filter is None else change.filter
        backfill = await self._backfill(before.filter, Filter.from_canonical(filter_), change)
        # From here on no other event gets in.
        if self._groups.get(change.group) is not before:
            return None
        self._to_head(before)
        try:
            granted = self._grant(shard, Wanted(filter_, "now", "fail", change.min_ms), 0)
        except TooManyGroups as error:
            return str(error)
        return Changed(self._bounds(), granted.group, filter_, backfill)

    async def _backfill(self, before: Filter, after: Filter, change: Change) -> int | None:
        upto = self.stream.head if change.upto is None else change.upto
        match change.backfill:
            case Last(count):
                return await self._look_back(lambda v: after.matches(v) and not before.matches(v), count, upto)
            case Ago(ms):
                return min(upto, self._log.before(self.stream, self._now_ms() - ms))
            case None:
                return None

    async def snap(self, group: int, upto: int, after: int, without: int) -> SnapPart | None:
        """A bounded part of a snapshot as of `upto`, or of a backfill of what another group does not have.

        None when there is no such group.
        """
        found, other = self._groups.get(group), self._groups.get(without)
        if found is None or (without and other is None):
            return None
        if other is not None:
            return self._snapshots.backfill(found.filter, other.filter, max(after, self.stream.oldest - 1), upto)
        while (part := self._snapshots.part(group, upto, after)) is None:
            for _ in self._snapshots.find(group, found.filter, self.stream.oldest, upto):
                await self.ctx.sleep(0)
        return part

    async def page(self, group: int, after: int) -> Page | None:
        """A bounded piece of what a group's filter lets through after an offset; None when there is no such group."""
        found = self._groups.get(group)
        if found is not None and found.cursor < after:
            self._to_head(found)
        return None if found is None else self._groups.page(found, self._log, after, self.stream.oldest)

    async def conflated(self, group: int, after: int) -> Page | None:
        """Of each type and entity the newest signal that a group's filter lets through after an offset.

        Up to the group's cursor if that fits a frame of 256 KiB; others run between the pieces. None when there is no
        such group.
        """
        found = self._groups.get(group)
        if found is None:
            return None
        self._to_head(found)
        pieces = conflate(self._log, found, after, self.stream.oldest)
        while True:
            try:
                next(pieces)
            except StopIteration as done:
                page: Page = done.value
                break
            await self.ctx.sleep(0)
        # What retention removed meanwhile may have been looked at or not.
        return page if page.after >= self.stream.oldest - 1 else await self.conflated(group, after)

    async def read(self, wish: Wish) -> HistoryPage | Unreadable:
        """A bounded page of what is stored: at most 500 signals, 64 KiB, 500 entries read."""
        place = await self._place(wish.filter, wish.since) if isinstance(wish.since, Last | Ago) else None
        return cut(self._log, self.stream, wish, place)

    async def leave(self, shard: str, groups: tuple[int, ...]) -> None:
        """A shard has no subscriber of these groups any more."""
        for number in groups:
            self._groups.leave(number, shard)

    async def trace(self, seconds: float) -> None:
        """Tell the stream's tracer of every signal, for so long."""
        self._traces.watch(seconds)

    async def observe(self) -> StreamView:
        """What an operator sees of the stream."""
        state = self.stream
        return StreamView(
            state.head,
            state.head - state.oldest + 1,
            state.size_bytes,
            len(self._groups),
            self._asked,
            self._refused,
        )

    async def filters(self, numbers: tuple[int, ...]) -> tuple[str | None, ...]:
        """The canonical filters of groups; None of one that is not known any more."""
        groups = map(self._groups.get, numbers)
        return tuple(None if group is None else group.filter.canonical for group in groups)

    async def bounds(self) -> Bounds:
        """Where the stream stands."""
        return self._bounds()

    def _bounds(self) -> Bounds:
        state = self.stream
        window_ms = round(self._settings.retention_s * 1000)
        if state.cut_ts:
            window_ms = min(window_ms, max(0, self._now_ms() - state.cut_ts))
        return Bounds(state.epoch, state.head, state.oldest, window_ms)

    # Quiet groups and retention.

    async def alarm(self, info: AlarmInfo) -> None:
        """Move the cursors of some quiet groups to the head, and trim the log by age."""
        state = self.stream = self._log.trim(self.stream, self._now_ms())
        fanout = Fanout()
        fanout.move([group for group in self._groups.visit(MOVED_AT_ONCE) if group.cursor < state.head], state.head)
        self._send(fanout)
        now = self.ctx.now()
        if any(group.cursor < state.head for group in self._groups):
            self._wake_by(now + self._moving_s)
        if state.oldest < state.head:
            ends = self._log.oldest_ts(state) / 1000 + self._settings.retention_max_s
            self._wake_by(max(ends, now + self._settings.position_s))

    async def settle(self, groups: tuple[int, ...] | None = None) -> None:
        """Move quiet groups, of these or all, to the head, so that whoever leaves now takes the newest cursor along."""
        found = self._groups if groups is None else map(self._groups.get, groups)
        quiet = [group for group in found if group is not None and group.cursor < self.stream.head]
        for at in range(0, len(quiet), MOVED_AT_ONCE):
            fanout = Fanout()
            fanout.move(quiet[at : at + MOVED_AT_ONCE], self.stream.head)
            self._send(fanout)
            await self.ctx.checkpoint()  # keeps the turn

    @property
    def _moving_s(self) -> float:
        """Between two pieces of the groups, so that every group has its turn within `position_s`."""
        return self._settings.position_s / max(1, math.ceil(len(self._groups) / MOVED_AT_ONCE))

    def _wake_by(self, due: float) -> None:
        pending = self.ctx.storage.get_alarm()
        if pending is None or pending > due:
            self.ctx.storage.set_alarm(due)

    # Shards.

    def _send(self, fanout: Fanout, traced: tuple[int, ...] = ()) -> None:
        """Send every shard its part in one message; all of one publication leave in this turn."""
        if self._restored:
            return  # to clients that know another log; whoever comes from now on is told where its group stands
        now = trio.current_time()
        for shard, deliveries in fanout.shards.items():
            try:
                self.ctx.notify(self.env.shards.get(self._shard(shard)).deliver, tuple(deliveries), now, traced)
            except ActorError:
                self._fell_behind(shard)
        for shard in fanout.behind:
            self._fell_behind(shard)

    def _fell_behind(self, shard: str) -> None:
        # The frames are in the log, and the shard reads them there once it knows that it missed some.
        if not self._behind:
            self.ctx.set_timeout(_BEHIND_S, self._tell_positions_behind)
        self._behind.add(shard)

    async def _tell_positions_behind(self) -> None:
        behind, self._behind = self._behind, set()
        self._tell(behind)

    def _restored_shard(self, number: int) -> Awaitable[None]:
        assert self.ctx.id.name is not None, "a stream is reached by name"
        return self.env.shards.get_by_name(shard_name(number, self.ctx.id.name)).enter(self._bounds())

    async def _tell_restored(self, told: list[Awaitable[None]]) -> None:
        """Let every shard tell its clients, who know another log, that their epoch is over."""
        for number, answer in enumerate(told):
            while True:
                try:
                    await answer
                    break
                except ActorError:
                    await self.ctx.sleep(_TELL_AGAIN_S)
                    answer = self._restored_shard(number)
        self.ctx.storage.delete(_RESTORED)
        self._restored = False
        self._tell(None)

    async def _tell_positions(self) -> None:
        self._tell(None)

    def _tell(self, shards: set[str] | None) -> None:
        """Tell these shards, or all, where their groups stand."""
        if self._restored:
            return
        positions: dict[str, list[int]] = {}
        for group in self._groups:
            for shard in group.shards:
                if shards is None or shard in shards:
                    positions.setdefault(shard, []).extend((group.number, group.cursor))
        for shard, flat in sorted(positions.items()):
            try:
                self.ctx.notify(self.env.shards.get(self._shard(shard)).compare, tuple(flat[::2]), tuple(flat[1::2]))
            except ActorError:
                self._fell_behind(shard)

    def _shard(self, name: str) -> ActorId:
        found = self._shards.get(name)
        if found is None:
            found = self._shards[name] = self.env.shards.id_from_name(name)
        return found

    def _now_ms(self) -> int:
        return round(self.ctx.now() * 1000)


def _bounded(what: str, actual: int, limit: int) -> None:
    if actual > limit:
        raise LimitExceeded(f"{actual:,} {what} in one publication; at most {limit:,}", limit=limit, actual=actual)
