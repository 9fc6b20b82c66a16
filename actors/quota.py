"""Who has how many connections: a limit of the whole server, whose connections many shards hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import trio

from actors.handshakes import counted_address
from actors.stream import shard_name
from runtime import Namespace

if TYPE_CHECKING:
    from actors.connections import ConnectionManager
    from actors.protocol.remembered import Remembered
    from actors.settings import Settings


@attrs.frozen(order=True)
class Moment:
    """When a place was taken, and where; no two are the same.

    It is a hybrid logical clock: what is taken in a shard after somebody has asked it is after their moment, also when
    the clock stands still.
    """

    at: float
    shard: str


@attrs.define(eq=False)
class Quota:
    """The places of one shard's connections, and how to find those of the others.

    A connection takes its place before the others are asked, and counts the places that were taken before. So there are
    never too many, and of too many that come together those stay that came first.

    Args:
        shard: the shard's name. shards: all of them. settings: how many there are, and how many places a user has.
    """

    shard: str
    shards: Namespace[ConnectionManager]
    settings: Settings
    _taken: dict[str, dict[object, Moment]] = attrs.field(factory=dict[str, dict[object, Moment]], init=False)
    _holders: dict[object, str] = attrs.field(factory=dict[object, str], init=False)
    _last: float = attrs.field(default=-math.inf, init=False)

    def restore(self, key: object, state: Remembered) -> None:
        """A connection from before this instance has its place."""
        self._take(key, state, Moment(-math.inf, self.shard))

    async def take(self, key: object, state: Remembered) -> bool:
        """Take a place for a connection of a user, or of an address without one; False when there is none.

        Raises: ActorError, when another shard does not answer; the connection has no place then.
        """
        self._last = max(trio.current_time(), math.nextafter(self._last, math.inf))
        now = Moment(self._last, self.shard)
        if (holder := self._take(key, state, now)) is None:
            return True
        free = False
        try:
            answers = [self.shards.get_by_name(name).quota_used(holder, now) for name in self._others()]
            before = self.count(holder, now) + sum([await answer for answer in answers])
            free = before < self.settings.limits.connections_per_user
        finally:
            if not free:
                self.leave(key)
        return free

    def leave(self, key: object) -> None:
        """A connection has ended; harmless without a place."""
        if (holder := self._holders.pop(key, None)) is not None:
            places = self._taken[holder]
            del places[key]
            if not places:
                del self._taken[holder]

    def count(self, holder: str, before: Moment) -> int:
        """How many places somebody has here that were taken before this moment."""
        self._last = max(self._last, before.at)
        return sum(taken < before for taken in self._taken.get(holder, {}).values())

    def _take(self, key: object, state: Remembered, at: Moment) -> str | None:
        if not state.counted:
            return None
        holder = f"user {state.user}" if state.user else f"address {counted_address(state.peer)}"
        self._taken.setdefault(holder, {})[key] = at
        self._holders[key] = holder
        return holder

    def _others(self) -> list[str]:
        names = self.settings.stream_names
        all_ = [shard_name(n, name) for name in names for n in range(self.settings.shards)]
        return [name for name in all_ if name != self.shard]
