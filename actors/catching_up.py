"""How the subscriptions of a connection catch up: by snapshots, by pages of the log, and then with their group."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from actors.protocol.codes import CloseCode
from actors.protocol.remembered import Subscription
from actors.reach import StreamReach
from actors.session import Connection
from actors.shard_groups import ShardGroups
from runtime import ActorError, Context

DRAIN_S = 0.02
DRAIN_S_MAX = 0.5


@attrs.define(eq=False)
class CatchingUp:
    """Sends a connection what was stored before it joined its groups, never more than its socket takes.

    Args:
        ctx: the shard's. stream: the way to the broadcaster. groups: those of the shard.
        when_live: hears of a connection whose subscriptions are all live.
    """

    ctx: Context
    stream: StreamReach
    groups: ShardGroups
    when_live: Callable[[Connection], None]

    def __attrs_post_init__(self) -> None:
        self.groups.when_held = self.soon

    def soon(self, connection: Connection) -> None:
        """Begin, if there is a subscription that is not live."""
        if not connection.behind:
            self.when_live(connection)
        elif not connection.catching_up:
            connection.catching_up = True
            self.ctx.start_soon(self._catch_up, connection)

    async def _catch_up(self, connection: Connection) -> None:
        wait_s = DRAIN_S
        try:
            while not connection.closed and (behind := connection.behind):
                ready = [s for s in behind if connection.has_room(s, self.groups.limits)]
                if not ready:
                    await self.ctx.sleep(wait_s)
                    wait_s = min(2 * wait_s, DRAIN_S_MAX)
                    continue
                wait_s = DRAIN_S
                for s in ready:
                    sub = connection.machine.state.subs.get(s)
                    if sub is not None and not sub.live:
                        await self._send_piece(connection, s, sub)
        finally:
            connection.catching_up = False
        if not connection.closed and not connection.behind:
            self.when_live(connection)

    async def _send_piece(self, connection: Connection, s: str, sub: Subscription) -> None:
        try:
            if sub.slow and sub.on_slow == "skip":
                texts = await self._skip(connection, s, sub)
            elif sub.snap is None:
                texts = await self._page(connection, s, sub)
            else:
                texts = await self._snap_part(connection, s, sub)
        except ActorError:
            connection.close(CloseCode.OVERLOADED, "the stream does not answer")
            return
        if texts:
            connection.send("\n".join(texts))
            connection.remember()

    async def _page(self, connection: Connection, s: str, sub: Subscription) -> list[str]:
        if sub.slow:
            page = await self.stream.ask(lambda stream: stream.conflated(sub.group, sub.cursor))
        else:
            page = await self.stream.page(sub.group, sub.cursor)
        if not _is_wanted(connection, s, sub):
            return []
        if page is None:
            connection.close(CloseCode.INSUFFICIENT_STATE, "the group is not known any more")
            return []
        measures = self.groups.measures
        measures.conflated += page.left_out
        if page.after > sub.cursor:
            measures.skipped["retention"] += page.after - sub.cursor
        self.groups.traces.caught_up(page.after, page.upto, page.signals)
        texts = connection.machine.page(s, page.after, page.upto, page.signals, page.left_out) + self.join(connection)
        if not texts and page.complete:
            if self.groups[sub.group].cursor < sub.cursor:
                # At the broadcaster's cursor, but this shard's group is not: frames were missed.
                self.groups.heal_soon(self.groups[sub.group])
            await self.ctx.sleep(DRAIN_S)
        return texts

    async def _skip(self, connection: Connection, s: str, sub: Subscription) -> list[str]:
        group = self.groups[sub.group]
        if group.healing:
            await self.ctx.sleep(DRAIN_S)
            return []
        connection.skipped(s, group.passed)
        if group.flushed > sub.cursor:
            self.groups.measures.skipped["slow"] += group.flushed - sub.cursor
        texts = connection.machine.skipped(s, group.flushed) + self.join(connection)
        if not texts and connection.machine.state.subs[s].slow:
            await self.ctx.sleep(DRAIN_S)  # another one of its group is not there yet
        return texts

    async def _snap_part(self, connection: Connection, s: str, sub: Subscription) -> list[str]:
        snap = sub.snap
        assert snap is not None
        part = await self.stream.ask(lambda stream: stream.snap(sub.group, sub.cursor, snap.after, snap.without))
        if not _is_wanted(connection, s, sub):
            return []
        if part is None:
            connection.close(CloseCode.INSUFFICIENT_STATE, "the group is not known any more")
            return []
        texts = connection.machine.snapped(s, part.upto, part.signals, more=part.more)
        if not part.more and snap.without:
            self.groups.release([snap.without])
        connection.remember()  # even without a text it is further now
        return texts + self.join(connection)

    def join(self, connection: Connection) -> list[str]:
        """Make members of the subscriptions that have reached their group's cursor; what to tell their client."""
        texts: list[str] = []
        waiting = self._waiting(connection)
        for s in connection.behind:
            sub = connection.machine.state.subs[s]
            group = self.groups[sub.group]
            if sub.snap is not None or group.healing or sub.group in waiting:
                continue
            if sub.slow:
                connection.machine.rejoined(s)
                if connection.recorder is not None:
                    connection.recorder.note("live", f"{s} reads again")
                connection.queued_at = None
                self.groups.join(connection, sub.group)
                connection.remember()
            elif sub.cursor == group.cursor:
                texts.append(connection.machine.joined(s))
                self.groups.join(connection, sub.group)
                if (since := connection.recovering.pop(s, None)) is not None:
                    self.groups.measures.recovery.note(trio.current_time() - since)
        return texts

    def _waiting(self, connection: Connection) -> set[int]:
        """Groups that wait for a subscription which was read too slowly, and cannot be a member again yet.

        Its client has never heard that it was not live and counts every frame of the group for it, so none may come,
        for another subscription of the same group either, before it can be a member. What is pending comes to it as
        to every member.
        """
        waiting: set[int] = set()
        for s, sub in connection.machine.state.subs.items():
            if sub.slow:
                group = self.groups[sub.group]
                is_there = group.flushed <= sub.cursor <= group.cursor and s != connection.changing
                if not (is_there and connection.has_room(s, self.groups.limits)):
                    waiting.add(sub.group)
        return waiting


def _is_wanted(connection: Connection, s: str, sub: Subscription) -> bool:
    """Nothing has happened to a subscription while a piece for it was on its way."""
    state = connection.machine.state
    return not connection.closed and state.subs.get(s) is sub and connection.changing != s
