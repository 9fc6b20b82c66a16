"""The live side of a shard: takes the groups' frames, flushes them to members, and reads again what was missed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from actors.groups import GroupFrame, Page
from actors.protocol.codes import CloseCode
from actors.protocol.messages import encode_sig
from actors.protocol.server import Remembered, Subscription
from actors.reach import StreamReach
from actors.session import Connection, LocalGroup
from runtime import ActorError, Context, PreparedMessage

SAVE_S = 1.0
HEAL_AGAIN_S = 1.0
_CURSOR = "cursor/"


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
    _dirty: dict[int, LocalGroup] = attrs.field(factory=dict, init=False)
    _gone: set[int] = attrs.field(factory=set, init=False)  # groups whose saved places are to be removed
    _flushing: bool = attrs.field(default=False, init=False)
    _saving: bool = attrs.field(default=False, init=False)

    def __getitem__(self, number: int) -> LocalGroup:
        return self._groups[number]

    # Subscribers.

    def restore(self, states: Iterable[Remembered]) -> None:
        """Build the groups again, without members, from what the sockets' attachments say."""
        rows = self.ctx.storage.list(int, prefix=_CURSOR)
        places = {int(key.removeprefix(_CURSOR), 16): cursor for key, cursor in rows.items()}
        for sub in [sub for state in states for sub in state.subs.values()]:
            group = self._groups.setdefault(sub.group, LocalGroup.at(sub.group, places.get(sub.group, sub.cursor)))
            group.subscribers += 1
            if sub.group not in places:
                group.cursor = group.flushed = min(group.cursor, sub.cursor)
        self._forget(places.keys() - self._groups.keys())

    def add_subscriber(self, number: int, head: int) -> None:
        """One more subscription of a group, which stands at `head` in the broadcaster."""
        group = self._groups.get(number)
        if group is None:
            group = self._groups[number] = LocalGroup.at(number, head)
            self._store(group)
        group.subscribers += 1
        if group.cursor < head:
            self.heal_soon(group)

    def drop(self, connection: Connection, subs: Iterable[Subscription]) -> None:
        """Subscriptions of a connection have ended."""
        empty: list[int] = []
        for sub in subs:
            group = self._groups[sub.group]
            if sub.live:
                group.remove(connection)
            group.subscribers -= 1
            if not group.subscribers:
                del self._groups[sub.group]
                self._dirty.pop(sub.group, None)
                empty.append(sub.group)
        if empty:
            self._gone.update(empty)
            self._save_soon()
            self.stream.leave(empty)

    # Frames.

    def take(self, frames: Iterable[GroupFrame]) -> None:
        """Live frames have come."""
        unknown: list[int] = []
        for frame in frames:
            group = self._groups.get(frame.group)
            if group is None:
                unknown.append(frame.group)
            elif frame.after > group.cursor:
                self.heal_soon(group)
            elif frame.upto > group.cursor and not group.healing:
                self._extend(group, frame.upto, frame.message)
        self.stream.leave(unknown)

    def compare(self, positions: Mapping[int, int]) -> None:
        """Where the broadcaster's groups stand."""
        for number, cursor in positions.items():
            if number in self._groups and self._groups[number].cursor < cursor:
                self.heal_soon(self._groups[number])
        self.stream.leave([number for number in positions if number not in self._groups])

    def _extend(self, group: LocalGroup, upto: int, message: PreparedMessage) -> None:
        group.cursor = upto
        group.pending.append(message.frame)
        self._dirty[group.number] = group
        if not self._flushing:
            self._flushing = True
            self.ctx.start_soon(self._flush)  # behind the frames that wait in the mailbox already

    async def _flush(self) -> None:
        """Give every dirty group's frames to its members: one push for each socket and group."""
        self._flushing = False
        dirty, self._dirty = self._dirty, {}
        for group in dirty.values():
            message, chunks = group.take()
            for chunk in chunks:
                self.ctx.send_all(chunk, message)
                await self.ctx.checkpoint()  # keeps the turn
        self._save_soon()

    # What was missed.

    def heal_soon(self, group: LocalGroup) -> None:
        """Read what a group's members missed; live frames are left out meanwhile, the last page contains them."""
        if not group.healing:
            group.healing = True
            self.ctx.start_soon(self._heal, group)

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
            for member in group.members:
                member.send("\n".join(member.machine.missed(group.number, page.asked, page.after)))
            group.cursor = page.after
        if page.upto > page.after:
            text = encode_sig(g=group.number, a=page.after, b=page.upto, signals=(page.signals,))
            self._extend(group, page.upto, PreparedMessage.of(text))

    # Places.

    def _save_soon(self) -> None:
        if not self._saving:
            self._saving = True
            self.ctx.set_timeout(SAVE_S, self._save)

    async def _save(self) -> None:
        self._saving = False
        gone, self._gone = self._gone, set()
        self._forget(gone - self._groups.keys())
        for group in self._groups.values():
            if group.stored != group.flushed:
                self._store(group)

    def _store(self, group: LocalGroup) -> None:
        # Unconfirmed: it stalls nobody, and a crash takes the sockets along.
        group.stored = group.flushed
        self.ctx.storage.put(_key(group.number), group.flushed, allow_unconfirmed=True)

    def _forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.ctx.storage.delete(_key(number))


def _key(number: int) -> str:
    return f"{_CURSOR}{number:08x}"
