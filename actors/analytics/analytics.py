"""The actor that keeps what became of connections: a row for each minute of a day, and for each hour of some months."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from actors.analytics.tally import Tally
from actors.stream import shard_name
from runtime import Actor, Context

if TYPE_CHECKING:
    from actors.env import Env

NAME = "analytics"
MINUTE_S = 60
HOUR_S = 3_600
DAY_S = 86_400
MINUTES_KEPT_S = 25 * HOUR_S

_COLUMNS = "SELECT at, connections, level, fresh, tally FROM slots WHERE step = ? AND"
_EVENT_SOURCES = "event sources"
_NODE = "node"  # when the process was started that they are of

_TABLE = """
CREATE TABLE IF NOT EXISTS slots (
    step INTEGER, at INTEGER, connections INTEGER NOT NULL, level INTEGER NOT NULL, fresh INTEGER NOT NULL,
    tally TEXT NOT NULL, PRIMARY KEY (step, at)
) WITHOUT ROWID
"""


@attrs.frozen(kw_only=True)
class Slot:
    """A span of time.

    Attributes:
        at: where it begins, seconds since the Unix epoch.
        connections: the most that were seen; seen is it at each report. level: how many there were at the last one.
        fresh: a report was the first one of its process, so that nothing is known of the time before it.
    """

    at: int
    connections: int = 0
    level: int = 0
    fresh: bool = False
    tally: Tally = attrs.field(factory=Tally)

    def __add__(self, later: Slot) -> Slot:
        return Slot(
            at=self.at,
            connections=max(self.connections, later.connections),
            level=later.level,
            fresh=self.fresh or later.fresh,
            tally=self.tally + later.tally,
        )


@attrs.frozen
class Past:
    """Some slots, the oldest first, without those in which nothing was reported.

    Attributes:
        before: the one that comes before them. goes_on: the process that has reported last is this one.
    """

    slots: tuple[Slot, ...]
    before: Slot | None
    goes_on: bool


class Analytics(Actor["Env"]):
    """Adds up what the shards of a node report; it does nothing by itself."""

    storage: ClassVar[Literal["shared", "sql"]] = "sql"

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self._kept = {MINUTE_S: MINUTES_KEPT_S, HOUR_S: env.settings.console.analytics_days * DAY_S}
        ctx.storage.sql.exec(_TABLE)

    async def report(self, shard: str, event_sources: int, tally: Tally) -> None:
        """Count what a shard has counted, and keep how many event sources it has; durable when this returns."""
        known = self._event_sources()
        told = {**(known or {}), shard: event_sources}
        if told != known:
            self.ctx.storage.put(_EVENT_SOURCES, {**told, _NODE: self.env.operator.started})
        connections = self._connections(told)
        at = int(self.ctx.now())
        self._add(Slot(at=at, connections=connections, level=connections, fresh=known is None, tally=tally))

    async def past(self, step_s: int, since: int) -> Past:
        """The slots of so many seconds that begin at `since` or later: 60 or 3,600, or a multiple of one of them."""
        kept = HOUR_S if step_s % HOUR_S == 0 else MINUTE_S
        sql = self.ctx.storage.sql
        rows: Iterator[Any] = sql.exec(f"{_COLUMNS} at >= ? ORDER BY at", kept, since).raw()
        found: dict[int, Slot] = {}
        for begins, *row in rows:
            at = begins // step_s * step_s
            found[at] = found.get(at, Slot(at=at)) + _slot(at, *row)
        earlier: Iterator[Any] = sql.exec(f"{_COLUMNS} at < ? ORDER BY at DESC LIMIT 1", kept, since).raw()
        before = next((_slot(*row) for row in earlier), None)
        return Past(tuple(found.values()), before, self._event_sources() is not None)

    def _connections(self, event_sources: Mapping[str, int]) -> int:
        """Of all shards; none is woken for it."""
        operator, settings = self.env.operator, self.env.settings
        found = 0
        for stream in settings.stream_names:
            for number in range(settings.shards):
                name = shard_name(number, stream)
                seen = operator.actor(operator.find("shards", name))
                found += seen.sockets
                if seen.state in ("active", "idle"):  # who has event sources stays in memory
                    found += event_sources.get(name, 0)
        return found

    def _event_sources(self) -> dict[str, int] | None:
        """As they were reported, by shard; None when this process has not reported yet."""
        known: dict[str, float] = self.ctx.storage.get(_EVENT_SOURCES, dict, {})
        if known.get(_NODE) != self.env.operator.started:
            return None
        return {shard: int(count) for shard, count in known.items() if shard != _NODE}

    def _add(self, seen: Slot) -> None:
        sql = self.ctx.storage.sql
        for step, kept_s in self._kept.items():
            at = seen.at // step * step
            known = list(sql.exec(f"{_COLUMNS} at = ?", step, at).raw())
            if not known:
                sql.exec("DELETE FROM slots WHERE step = ? AND at < ?", step, seen.at - kept_s)
            slot = (_slot(*known[0]) if known else Slot(at=at)) + seen
            values = (slot.connections, slot.level, slot.fresh, json.dumps(slot.tally.to_json()))
            sql.exec("INSERT OR REPLACE INTO slots VALUES (?, ?, ?, ?, ?, ?)", step, at, *values)


def _slot(at: Any, connections: Any, level: Any, fresh: Any, tally: Any) -> Slot:
    """What a row says."""
    counted = Tally.from_json(json.loads(tally))
    return Slot(at=at, connections=connections, level=level, fresh=bool(fresh), tally=counted)
