"""Ingest: asks one source when its schedule says so, and publishes what it found exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import trio

from actors.ingest.kinds import KINDS
from actors.ingest.schedule import Schedule
from actors.ingest.source import BATCH_SIGNALS, Batch, Kind, Source, World
from actors.settings import SourceSettings
from actors.stream import STREAM, Ingested
from runtime import Actor, AlarmInfo, Context, durable

if TYPE_CHECKING:
    from actors.env import Env

RETRY_S = 1.0  # doubling with every failure in a row, up to RETRY_S_MAX, never sooner than the schedule
RETRY_S_MAX = 300.0
ERROR_CHARACTERS = 500


class TooManySignals(Exception):
    """A source gave more signals at once than a batch may have."""


@attrs.frozen(kw_only=True)
class IngestState:
    """What an ingest remembers.

    Attributes:
        cursor: up to where the source was published.
        failures: in a row. error: of the last failure, "" after a success.
        produced, duplicates: signals published, and those among them that had been published before.
        last_success, last_failure: wall clock, seconds.
    """

    cursor: str | None = None
    failures: int = 0
    error: str = ""
    produced: int = 0
    duplicates: int = 0
    last_success: float | None = None
    last_failure: float | None = None


@attrs.frozen(kw_only=True)
class IngestStatus:
    """What `/v1/sources` shows of one source; `next` is when it is asked again, None when never."""

    name: str
    kind: str
    schedule: str
    state: IngestState
    next: float | None


class Ingest(Actor["Env"]):
    """One source. Its alarm runs one fetch at a time, so runs never overlap."""

    memory = durable(IngestState)
    kinds: Mapping[str, Kind] = KINDS

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self._source: Source | None = None

    @property
    def _settings(self) -> SourceSettings | None:
        """What is configured under this name; None when it is not, any more."""
        return next((one for one in self.env.settings.active_sources() if one.name == self.ctx.id.name), None)

    async def begin(self) -> None:
        """The server has started: plan the first run, or an earlier one when the schedule has become shorter."""
        settings = self._settings
        if settings is None:
            return
        schedule, now = Schedule.parse(settings.schedule), self.ctx.now()
        due = now if schedule.every_s is not None else schedule.after(now, now)
        planned = self.ctx.storage.get_alarm()
        if planned is None or planned > due:
            self.ctx.storage.set_alarm(due)

    async def status(self) -> IngestStatus | None:
        """How it is doing; None when it is not configured."""
        settings = self._settings
        if settings is None:
            return None
        return IngestStatus(
            name=settings.name,
            kind=settings.kind,
            schedule=settings.schedule,
            state=self.memory,
            next=self.ctx.storage.get_alarm(),
        )

    async def alarm(self, info: AlarmInfo) -> None:
        """Ask the source once, publish, and plan the next time; a failure is recorded and tried again."""
        settings = self._settings
        if settings is None:
            return
        schedule = Schedule.parse(settings.schedule)
        try:
            await self._run(settings)
        except Exception as error:  # noqa: BLE001 - sources are other people's code; the next run must be planned
            failures = self.memory.failures + 1
            text = f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]
            self.ctx.log.warning("source failed", source=settings.name, failures=failures, error=text)
            now = self.ctx.now()
            self.memory = attrs.evolve(self.memory, failures=failures, error=text, last_failure=now)
            pause = min(RETRY_S * 2 ** min(failures - 1, 20), RETRY_S_MAX)
            earliest = now + pause * (1 + 0.25 * self.ctx.random.random())
            self.ctx.storage.set_alarm(max(earliest, schedule.after(info.scheduled_time, now)))
        else:
            now = self.ctx.now()
            self.memory = attrs.evolve(self.memory, failures=0, error="", last_success=now)
            self.ctx.storage.set_alarm(schedule.after(info.scheduled_time, now))

    async def _run(self, settings: SourceSettings) -> None:
        if self._source is None:
            world = World(name=settings.name, now=self.ctx.now, run_blocking=self.ctx.run_blocking)
            self._source = self.kinds[settings.kind](world, settings.options)
        batch = await self.ctx.outside(self._fetch, self._source, self.memory.cursor, settings.timeout_s)
        if len(batch.signals) > BATCH_SIGNALS:
            raise TooManySignals(f"the source gave {len(batch.signals):,} signals at once; at most {BATCH_SIGNALS:,}")
        stream = self.env.broadcasters.get_by_name(STREAM)
        answer: Ingested = await stream.ingest(settings.name, self.memory.cursor, batch.cursor, batch.signals)
        if answer.accepted:
            self.memory = attrs.evolve(
                self.memory,
                cursor=answer.cursor,
                produced=self.memory.produced + len(batch.signals) - answer.duplicates,
                duplicates=self.memory.duplicates + answer.duplicates,
            )
        else:
            # A crash came between a publication and this cursor: what was fetched is published already, in part or
            # in whole. Continue from where the stream says it is.
            self.memory = attrs.evolve(self.memory, cursor=answer.cursor)

    async def _fetch(self, source: Source, cursor: str | None, timeout_s: float) -> Batch:
        with trio.fail_after(timeout_s):
            return await source.fetch(cursor)
