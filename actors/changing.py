"""How a live subscription goes over to another filter or mode, exactly where it is."""

from __future__ import annotations

import attrs

from actors.catching_up import DRAIN_S, CatchingUp
from actors.protocol.codes import CloseCode
from actors.protocol.cursor import Cursor
from actors.protocol.requests import Mod
from actors.reach import StreamReach
from actors.session import Connection
from actors.shard_connections import ShardConnections
from actors.shard_groups import ShardGroups
from actors.stream import Change, Changed
from runtime import ActorError, Context


@attrs.frozen(eq=False)
class Changing:
    """Carries out `mod`.

    Args:
        ctx: the shard's. stream: the way to the broadcaster. groups, connections: those of the shard.
        catching_up: how subscriptions reach their groups.
    """

    ctx: Context
    stream: StreamReach
    groups: ShardGroups
    connections: ShardConnections
    catching_up: CatchingUp

    async def modify(self, connection: Connection, mod: Mod) -> None:
        """Let a subscription go over to the group of its new filter, exactly where it is."""
        before = connection.machine.state.subs[mod.s]
        filter_ = None if mod.change.filter is None else mod.change.filter.canonical
        min_ms = before.min_ms if mod.change.min_ms is None else mod.change.min_ms
        change = Change(before.group, filter_, min_ms, mod.change.backfill, None if before.live else before.cursor)
        resets = connection.resets
        connection.changing = mod.s  # while it catches up, it stays where it is
        self.stream.asking += 1
        try:
            changed = await self.stream.ask(lambda stream: stream.modify(self.stream.shard, change))
            if isinstance(changed, Changed):
                self.connections.enter(changed.bounds)
                self.groups.add_subscriber(changed.group, changed.bounds.head, min_ms)
        except ActorError as error:
            changed = str(error)
        finally:
            self.stream.asking -= 1
        try:
            if isinstance(changed, Changed):
                await self._change(connection, mod, changed, resets)
            elif changed is None:
                connection.close(CloseCode.INSUFFICIENT_STATE, "the group is not known any more")
            elif connection.resets == resets:
                self.connections.answer(connection, [connection.machine.unavailable(mod, changed).encode()])
        finally:
            connection.changing = None
            self.catching_up.soon(connection)

    async def _change(self, connection: Connection, mod: Mod, changed: Changed, resets: int) -> None:
        head = changed.bounds.head
        while True:
            if connection.closed or connection.resets != resets:
                self.groups.release([changed.group])
                return
            sub = connection.machine.state.subs[mod.s]
            group = self.groups[sub.group]
            if not sub.live or (group.cursor >= head and not group.healing):
                break
            # Frames were missed: it is only known where its client is when those have been sent.
            self.groups.heal_soon(group)
            await self.ctx.sleep(DRAIN_S)
        texts: list[str] = []
        cursor = sub.cursor
        if sub.live:
            texts += group.rest(mod.s)
            cursor = group.cursor
        answer = connection.machine.modified(
            mod,
            group=changed.group,
            since=Cursor(changed.bounds.epoch, cursor),
            head=head,
            filter_=changed.filter,
            backfill=changed.backfill,
        )
        after = connection.machine.state.subs[mod.s]
        for number in after.groups[1:]:
            self.groups.add_subscriber(number, 0)
        self.groups.drop(connection, [sub])
        connection.changing = None
        self.connections.answer(connection, [*texts, answer.encode()])
