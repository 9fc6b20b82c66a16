"""Ingest: asks one source when its schedule says so, and publishes what it found exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import trio

from actors.ingest.deliveries import Answer, Deliveries
from actors.ingest.kinds import find_kind
from actors.ingest.schedule import Schedule
from actors.ingest.source import BATCH_SIGNALS, Batch, Source, SourceFailed, World
from actors.ingest.sources.webhook import UNSIGNED, Refused, Webhook
from actors.settings import SourceSettings
from actors.stream import Ingested
from runtime import Actor, AlarmInfo, Context, durable

if TYPE_CHECKING:
    from actors.env import Env

RETRY_S = 1.0  # doubling with every failure in a row, up to RETRY_S_MAX
RETRY_S_MAX = 300.0
RETRY_ON_SCHEDULE_S = 60.0  # a due time that is no further away is waited for
PAUSE_S_MAX = 86_400.0
RUN_S = 10.0  # how long one run goes on fetching when there is more
REFUSALS = 3
ERROR_CHARACTERS = 500
REJECTED_LOGGED = 10


class TooManySignals(Exception):
    """A source gave more signals at once than a batch may have."""


class AnotherPublisher(Exception):
    """Somebody else moves the cursor of this source."""


@attrs.frozen(kw_only=True)
class IngestState:
    """What an ingest remembers.

    Attributes:
        cursor: up to where the source was published.
        plan: the schedule that `due` was computed by. due: of the next run, or of the one that failed; wall clock, s.
        failures: in a row. error: of the last failure, "" after a success.
        produced, duplicates: signals published, and those among them that had been published before.
        rejected: what was offered and is no signal. rejection: the last such.
        last_success, last_failure: wall clock, seconds. failing_since: of the first failure in a row.
        took_s: how long the last run took. paused: an operator wants no runs.
        succeeded, failed: runs, in total.
    """

    cursor: str | None = None
    plan: str = ""
    due: float = 0.0
    failures: int = 0
    error: str = ""
    produced: int = 0
    duplicates: int = 0
    rejected: int = 0
    rejection: str = ""
    last_success: float | None = None
    last_failure: float | None = None
    failing_since: float | None = None
    took_s: float | None = None
    paused: bool = False
    succeeded: int = 0
    failed: int = 0


@attrs.frozen(kw_only=True)
class IngestStatus:
    """What operators see of one source; `next` is when it is asked again, None when never, `running`: it is now."""

    name: str
    kind: str
    stream: str
    schedule: str
    timezone: str
    state: IngestState
    next: float | None
    running: bool


class Ingest(Actor["Env"]):
    """One source. Its alarm runs one fetch at a time, so runs never overlap."""

    memory = durable(IngestState)

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self._made: Source | Webhook | None = None
        self._deliveries = Deliveries(ctx.storage)
        self._running = False
        self._in_step = False  # whether this instance has compared its cursor with the stream's

    @property
    def _settings(self) -> SourceSettings | None:
        """What is configured under this name; None when it is not, any more."""
        return next((one for one in self.env.settings.active_sources() if one.name == self.ctx.id.name), None)

    async def begin(self) -> None:
        """The server has started: plan the first run, or go on with the plan that there is."""
        settings = self._settings
        if settings is None:
            return
        if not settings.is_asked:
            self.ctx.storage.delete_alarm()
            return
        if self.memory.paused:
            return
        plan = f"{settings.schedule} {settings.timezone}"
        if self.memory.plan != plan:
            schedule, now = self._schedule(settings), self.ctx.now()
            self._plan(settings, now if schedule.every_s is not None else schedule.after(now), plan)
        elif self.ctx.storage.get_alarm() is None:
            # It is about to run, or runs, and then plans the next one; else it was given up.
            self.ctx.storage.set_alarm(self.memory.due)
        elif self.memory.failures:
            self.ctx.storage.set_alarm(self.ctx.now())  # a restart may be what it was waiting for

    async def status(self) -> IngestStatus | None:
        """How it is doing; None when it is not configured."""
        settings = self._settings
        if settings is None:
            return None
        return IngestStatus(
            name=settings.name,
            kind=settings.kind,
            stream=settings.stream,
            schedule=settings.schedule if settings.is_asked else "",
            timezone=settings.timezone,
            state=self.memory,
            next=self.ctx.storage.get_alarm(),
            running=self._running,
        )

    async def pause(self) -> bool:
        """No more runs until `resume`, restarts included; False when nobody asks this source."""
        settings = self._settings
        if settings is None or not settings.is_asked:
            return False
        self.memory = attrs.evolve(self.memory, paused=True)
        self.ctx.storage.delete_alarm()
        return True

    async def resume(self) -> bool:
        """Go on with the schedule; False when nobody asks this source."""
        settings = self._settings
        if settings is None or not settings.is_asked:
            return False
        if self.memory.paused:
            self.memory = attrs.evolve(self.memory, paused=False, plan="")
            await self.begin()
        return True

    async def run_now(self) -> bool:
        """Make the next run now; False when nobody asks this source, or it is paused."""
        settings = self._settings
        if settings is None or not settings.is_asked or self.memory.paused:
            return False
        if not self._running:
            self.memory = attrs.evolve(self.memory, due=self.ctx.now())
            self.ctx.storage.set_alarm(self.ctx.now())
        return True

    # Sources that are asked.

    async def alarm(self, info: AlarmInfo) -> None:
        """Make the run that is due, publish, and plan the next one; a failure is recorded and tried again."""
        settings = self._settings
        if settings is None or not settings.is_asked or self.memory.paused:
            return
        schedule = self._schedule(settings)
        planned = self.memory.due or info.scheduled_time
        due = schedule.due_run(planned, max(planned, self.ctx.now() - settings.jitter_s), settings.missed)
        if self.memory.failures and due is None:
            due = planned  # it was begun in time
        if due is None:
            self.ctx.log.info("missed run skipped", source=settings.name, due=planned)
            self._plan(settings, schedule.after(planned, self.ctx.now()))
            return
        self.memory = attrs.evolve(self.memory, due=due)
        self._running, begun = True, trio.current_time()
        try:
            pause_s = await self._run(settings)
        except Exception as error:  # noqa: BLE001 - sources are other people's code; the next run must be planned
            self._failed(settings, schedule, error)
        else:
            now = self.ctx.now()
            self.memory = attrs.evolve(
                self.memory,
                failures=0,
                error="",
                last_success=now,
                failing_since=None,
                succeeded=self.memory.succeeded + 1,
            )
            self._plan(settings, schedule.after(due), earliest=now + pause_s if pause_s else 0.0)
        finally:
            self._running = False
            self.memory = attrs.evolve(self.memory, took_s=trio.current_time() - begun)

    def _plan(self, settings: SourceSettings, due: float, plan: str | None = None, earliest: float = 0.0) -> None:
        if self.memory.paused:  # while it ran
            return
        self.memory = attrs.evolve(self.memory, due=due, plan=self.memory.plan if plan is None else plan)
        self.ctx.storage.set_alarm(max(due + settings.jitter_s * self.ctx.random.random(), earliest))

    def _failed(self, settings: SourceSettings, schedule: Schedule, error: Exception) -> None:
        failures, now = self.memory.failures + 1, self.ctx.now()
        text = f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]
        since = self.memory.failing_since or now
        self.memory = attrs.evolve(
            self.memory,
            failures=failures,
            error=text,
            last_failure=now,
            failing_since=since,
            failed=self.memory.failed + 1,
        )
        if self.memory.paused:
            return
        pause_s = min(RETRY_S * 2 ** min(failures - 1, 20), RETRY_S_MAX) * (1 + 0.25 * self.ctx.random.random())
        if isinstance(error, SourceFailed) and error.retry_s is not None:
            pause_s = min(max(error.retry_s, 0.0), PAUSE_S_MAX)
        following = schedule.after(self.memory.due, now)
        retry = now + pause_s
        if following - now <= RETRY_ON_SCHEDULE_S:
            retry = max(retry, following)
        self.ctx.storage.set_alarm(retry)
        self.ctx.log.warning(
            "source failed", source=settings.name, failures=failures, error=text, retry_s=round(retry - now, 1)
        )

    async def _run(self, settings: SourceSettings) -> float:
        """Fetch and publish until there is no more, or for some seconds; how long to leave the source alone then."""
        source = self._source(settings)
        assert not isinstance(source, Webhook)
        if not self._in_step:
            await self._get_in_step(settings)
        until = self.ctx.now() + RUN_S
        refusals = 0
        while True:
            batch = await self.ctx.outside(self._fetch, source, self.memory.cursor, settings.timeout_s)
            if len(batch.signals) > BATCH_SIGNALS:
                raise TooManySignals(
                    f"the source gave {len(batch.signals):,} signals at once; at most {BATCH_SIGNALS:,}"
                )
            if not await self._publish(settings, batch):
                refusals += 1
                if refusals == REFUSALS:
                    raise AnotherPublisher(f"the cursor of {settings.name!r} moves by itself; is its name used twice?")
            elif not batch.more or self.ctx.now() >= until:
                return min(batch.pause_s, PAUSE_S_MAX)

    async def _get_in_step(self, settings: SourceSettings) -> None:
        """Compare cursors before the first fetch: what was published just before a crash need not be asked again."""
        ours = self.memory.cursor or ""
        stream = self.env.broadcasters.get_by_name(settings.stream)
        answer: Ingested = await stream.ingest(settings.name, ours, ours, ())
        if not answer.accepted:
            self.memory = attrs.evolve(self.memory, cursor=answer.cursor)
        self._in_step = True

    async def _publish(self, settings: SourceSettings, batch: Batch) -> bool:
        """Hand a batch to the stream, and its cursor with it; False when the stream is not where we believed."""
        if (batch.cursor, batch.signals, batch.rejected) == (self.memory.cursor, (), ()):
            return True
        stream = self.env.broadcasters.get_by_name(settings.stream)
        answer: Ingested = await stream.ingest(settings.name, self.memory.cursor, batch.cursor, batch.signals)
        if not answer.accepted:
            # A crash came between a publication and this cursor: continue from where the stream says it is.
            self.memory = attrs.evolve(self.memory, cursor=answer.cursor)
            return False
        for rejected in batch.rejected[:REJECTED_LOGGED]:
            self.ctx.log.warning(
                "no signal", source=settings.name, where=rejected.where, reason=rejected.reason[:ERROR_CHARACTERS]
            )
        self.memory = attrs.evolve(
            self.memory,
            cursor=answer.cursor,
            produced=self.memory.produced + len(batch.signals) - answer.duplicates,
            duplicates=self.memory.duplicates + answer.duplicates,
            rejected=self.memory.rejected + len(batch.rejected),
            rejection=str(batch.rejected[-1])[:ERROR_CHARACTERS] if batch.rejected else self.memory.rejection,
        )
        return True

    async def _fetch(self, source: Source, cursor: str | None, timeout_s: float) -> Batch:
        with trio.move_on_after(timeout_s) as scope:
            return await source.fetch(cursor)
        assert scope.cancelled_caught
        raise trio.TooSlowError(f"no answer within {timeout_s:g} s (timeout_s)")

    # Sources that come by themselves.

    async def receive(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Publish what a webhook was sent, once, however often it is sent."""
        settings = self._settings
        source = None if settings is None else self._source(settings)
        if settings is None or not isinstance(source, Webhook):
            return Answer(404, f"no webhook named {self.ctx.id.name!r} is configured")
        try:
            return await self._receive(settings, source, headers, body)
        except Refused as refused:
            now = self.ctx.now()
            if refused.status != UNSIGNED:  # anybody can send those
                text = str(refused)[:ERROR_CHARACTERS]
                failures = self.memory.failures + 1
                self.memory = attrs.evolve(self.memory, failures=failures, error=text, last_failure=now)
            self.ctx.log.warning("delivery refused", source=settings.name, status=refused.status, error=str(refused))
            return Answer(refused.status, str(refused))

    async def _receive(
        self, settings: SourceSettings, source: Webhook, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        if len(body) > source.body_bytes:
            raise Refused(413, f"the body has {len(body):,} bytes; at most {source.body_bytes:,}")
        delivery = source.delivery(headers, body)
        stream = self.env.broadcasters.get_by_name(settings.stream)
        now = self.ctx.now()
        while (answer := self._deliveries.recognise(delivery)) is None:
            if (wait_s := self._deliveries.full(source.deliveries, 2 * source.tolerance_s, now)) > 0:
                return Answer(
                    429, f"{source.deliveries:,} deliveries came lately; no more are taken", retry_after_s=wait_s
                )
            ingested: Ingested = await stream.ingest(
                settings.name, self.memory.cursor, delivery.cursor, delivery.drafts
            )
            assert ingested.cursor is not None
            # Refused: a crash came between a publication and its record. Its cursor says all that is to be recorded.
            self._deliveries.record(ingested.cursor, now, most=source.deliveries, remember_s=source.remember_s)
            self.memory = attrs.evolve(self.memory, cursor=ingested.cursor)
            if ingested.accepted:
                self.memory = attrs.evolve(
                    self.memory,
                    produced=self.memory.produced + len(delivery.drafts) - ingested.duplicates,
                    duplicates=self.memory.duplicates + ingested.duplicates,
                    failures=0,
                    error="",
                    last_success=now,
                )
        return answer

    # Small steps.

    def _source(self, settings: SourceSettings) -> Source | Webhook:
        if self._made is None:
            world = World(
                name=settings.name,
                now=self.ctx.now,
                run_blocking=self.ctx.run_blocking,
                due=lambda: self.memory.due,
                random=self.ctx.random.random,
            )
            made: Source | Webhook = find_kind(settings.kind, self.env.settings.kinds)(world, settings.options)
            self._made = made
            return made
        return self._made

    def _schedule(self, settings: SourceSettings) -> Schedule:
        return Schedule.parse(settings.schedule, settings.timezone)
