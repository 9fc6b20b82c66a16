"""The live side of a shard: takes the groups' frames, flushes them to members, and reads again what was missed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

from actors.fanout import Delivery
from actors.groups import Page
from actors.protocol.codes import CloseCode
from actors.protocol.server import Remembered, Subscription
from actors.reach import StreamReach
from actors.session import CHUNK_SOCKETS, Connection, LocalGroup, Team
from runtime import ActorError, Context, PreparedMessage

SAVE_S = 1.0
HEALERS = 8  # groups that are read from the log at a time
HEAL_AGAIN_S = 1.0
FLUSH_GROUPS = 256  # of one piece of a flush; effects that wait for storage are bounded
FLUSH_BYTES = 8 * 1_048_576  # frames encoded for one piece
_PLACES = "places/"
_ROW_GROUPS = 256  # places in one stored row: at most 3 KiB


@attrs.define(eq=False)
class ShardGroups:
    """The groups that connections of one shard listen to.

    Each has a cursor: how far its members were given everything. It follows the broadcaster's frames; a frame that
    begins beyond it says that some were missed, and they are read from the log. It is saved soon after it moved, so
    that an instance after an eviction knows it, or an older place: members ignore what they have already.

    Args:
        ctx: the shard's. stream: the way to the broadcaster.
    """

    ctx: Context
    stream: StreamReach
    _groups: dict[int, LocalGroup] = attrs.field(factory=dict, init=False)
    _teams: dict[tuple[int, ...], Team] = attrs.field(factory=dict, init=False)
    _dirty: dict[int, LocalGroup] = attrs.field(factory=dict, init=False)
    _missing: deque[LocalGroup] = attrs.field(factory=deque, init=False)
    _healers: int = attrs.field(default=0, init=False)
    _changed_rows: set[int] = attrs.field(factory=set, init=False)
    _flushing: bool = attrs.field(default=False, init=False)
    _saving: bool = attrs.field(default=False, init=False)

    def __getitem__(self, number: int) -> LocalGroup:
        return self._groups[number]

    # Subscribers.

    def restore(self, states: Iterable[Remembered]) -> None:
        """Build the groups again, without members, from what the sockets' attachments say."""
        rows = self.ctx.storage.list(dict[int, int], prefix=_PLACES)
        places = {number: cursor for row in rows.values() for number, cursor in row.items()}
        for sub in [sub for state in states for sub in state.subs.values()]:
            group = self._groups.setdefault(sub.group, LocalGroup.at(sub.group, places.get(sub.group, sub.cursor)))
            group.subscribers += 1
            if sub.group not in places:
                group.cursor = group.flushed = min(group.cursor, sub.cursor)
        self._changed_rows.update(number // _ROW_GROUPS for number in places.keys() - self._groups.keys())

    def add_subscriber(self, number: int, head: int) -> None:
        """One more subscription of a group, which stands at `head` in the broadcaster."""
        group = self._groups.get(number)
        if group is None:
            group = self._groups[number] = LocalGroup.at(number, head)
            self._save_soon()
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
            self._join_team(connection)

    def drop(self, connection: Connection, subs: Iterable[Subscription]) -> None:
        """Subscriptions of a connection have ended."""
        ended = tuple(subs)
        self._leave_team(connection)
        empty: list[int] = []
        for sub in ended:
            if sub.live:
                connection.groups[sub.group] -= 1
                if not connection.groups[sub.group]:
                    del connection.groups[sub.group]
            group = self._groups[sub.group]
            group.subscribers -= 1
            if not group.subscribers:
                del self._groups[sub.group]
                self._dirty.pop(sub.group, None)
                empty.append(sub.group)
        self._join_team(connection)
        if empty:
            self._changed_rows.update(number // _ROW_GROUPS for number in empty)
            self._save_soon()
            self.stream.leave(empty)

    def _join_team(self, connection: Connection) -> None:
        key = tuple(sorted(connection.groups))
        if not key:
            return
        team = self._teams.get(key)
        if team is None:
            team = self._teams[key] = Team(key)
            for number in key:
                self._groups[number].teams[team] = None
        team.add(connection)

    def _leave_team(self, connection: Connection) -> None:
        key = tuple(sorted(connection.groups))
        if not key:
            return
        team = self._teams[key]
        team.remove(connection)
        if not team.members:
            del self._teams[key]
            for number in key:
                del self._groups[number].teams[team]

    # Frames.

    def take(self, deliveries: Iterable[Delivery]) -> None:
        """Live frames have come."""
        unknown: list[int] = []
        for delivery in deliveries:
            upto, signals = delivery.upto, delivery.signals
            for number, after in zip(delivery.groups, delivery.afters, strict=True):
                group = self._groups.get(number)
                if group is None:
                    unknown.append(number)
                elif after > group.cursor:
                    self.heal_soon(group)
                elif upto > group.cursor and not group.healing:
                    self._extend(group, after, upto, signals)
        self.stream.leave(unknown)

    def compare(self, numbers: Iterable[int], cursors: Iterable[int]) -> None:
        """Where the broadcaster's groups stand."""
        unknown: list[int] = []
        for number, cursor in zip(numbers, cursors, strict=True):
            group = self._groups.get(number)
            if group is None:
                unknown.append(number)
            elif group.cursor < cursor:
                self.heal_soon(group)
        self.stream.leave(unknown)

    def _extend(self, group: LocalGroup, after: int, upto: int, signals: tuple[bytes, ...]) -> None:
        group.extend(after, upto, signals)
        self._dirty[group.number] = group
        if not self._flushing:
            self._flushing = True
            self.ctx.start_soon(self._flush)  # behind the frames that wait in the mailbox already

    async def _flush(self) -> None:
        """Give every dirty group's frames to its members; many groups in pieces, between which others run."""
        self._flushing = False
        dirty, self._dirty = self._dirty, {}
        waiting = deque(dirty.values())
        while waiting:
            frames: dict[int, bytes] = {}
            size = 0
            teams: dict[Team, None] = {}
            while waiting and len(frames) < FLUSH_GROUPS and size < FLUSH_BYTES:
                group = waiting.popleft()
                frame = group.take()
                if frame:
                    frames[group.number] = frame
                    teams.update(group.teams)
                    size += len(frame)
            await self._push(teams, frames)
            if waiting:
                await self.ctx.storage.sync()
        self._save_soon()

    async def _push(self, teams: Iterable[Team], frames: dict[int, bytes]) -> None:
        """One push for each socket."""
        pushed = 0
        for team in teams:
            data = _joined(team.groups, frames)
            message = PreparedMessage(data)
            for chunk in team.chunks:
                self.ctx.send_all(chunk, message)
                pushed += len(chunk)
                if pushed >= CHUNK_SOCKETS:
                    pushed = 0
                    await self.ctx.checkpoint()  # keeps the turn

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
            earlier = group.take()
            for member in group.members:
                if earlier:
                    self.ctx.send_all((member.ws,), PreparedMessage(earlier))
                member.send("\n".join(member.machine.missed(group.number, page.asked, page.after)))
            group.cursor = group.flushed = page.after
        if page.upto > page.after:
            self._extend(group, page.after, page.upto, (page.signals,))

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


def _joined(groups: tuple[int, ...], frames: dict[int, bytes]) -> bytes:
    if len(groups) == 1:
        return frames[groups[0]]
    return b"".join([frames[number] for number in groups if number in frames])
