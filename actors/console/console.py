"""The actor behind the console: sessions, the audit log, and the overview that it publishes while somebody looks."""

from __future__ import annotations

import math
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from actors.console.access import OperatorName
from actors.console.asking import Asking
from actors.console.audit import AuditLog, Entry
from actors.console.failed_tries import MINUTE_S, FailedTries
from actors.console.lights import OVERDUE_S, SourceFacts
from actors.console.overview import Overview, Sample
from actors.console.sessions import NotSignedIn, Sessions, SignedIn
from actors.ingest.ingest import IngestStatus
from actors.observing import ShardView
from actors.protocol.rate import TokenBucket
from actors.signals import Draft
from actors.stream import CONSOLE_STREAM, StreamView, shard_name
from runtime import Actor, ActorError, Context, Timeout

if TYPE_CHECKING:
    from actors.env import Env

STEP_S = 1.0
QUIET_STEPS = 5  # nobody has looked for so long: stop
ACTORS_AT_ONCE = 256
BROKEN_S = 60.0
HIBERNATED_STEPS = 10  # those that sleep are counted so seldom: there may be very many
FAILURES_WRITTEN_A_MINUTE = 60  # of all addresses: more would take the place of what operators did
_STATUS = Path("/proc/self/statm")


class Console(Actor["Env"]):
    """Serves the operators of a node.

    The overview is in memory only, and made once a second from the first `watch` until nobody is connected to the
    console's stream any more.
    """

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        settings = env.settings.console
        passwords = [one.value for one in settings.passwords]
        self._sessions = Sessions(ctx.storage, ctx.token, settings.session_s, passwords)
        self._failed = FailedTries()
        self._written = TokenBucket(FAILURES_WRITTEN_A_MINUTE / MINUTE_S, FAILURES_WRITTEN_A_MINUTE)
        self._unwritten = 0
        self._forgetting: Timeout | None = None
        self._audit = AuditLog(ctx.storage)
        self._overview = Overview()
        self._watching = False
        self._sources: dict[str, dict[str, Any]] = {}
        self._hibernated = self._steps = 0
        self._sources_asked: Asking[IngestStatus | None] = Asking(env.operator, "status")
        self._streams_asked: Asking[StreamView] = Asking(env.operator, "observe")
        self._shards_asked: Asking[ShardView] = Asking(env.operator, "observe", _rests)
        self._settled = False

    # Who is in.

    async def sign_in(self, password: str, peer: str) -> SignedIn | NotSignedIn:
        """A session for who knows the password. One is checked at a time, and none of who has to wait."""
        clock = trio.current_time()
        if wait_s := self._failed.wait_s(peer, clock):
            return NotSignedIn(math.ceil(wait_s))
        if not self._sessions.accepts(password):
            self._failed.wrong(peer, clock)
            self._remember_failures()
            if self._written.take(clock):
                self._write("nobody", peer, "wrong password")
            else:
                self._unwritten += 1
            return NotSignedIn()
        self._failed.right(peer)
        now = self.ctx.now()
        answer = self._sessions.open(now)
        self._write(f"password {self._sessions.name(answer.session, now)}", peer, "signed in")
        return answer

    def _remember_failures(self) -> None:
        """Nobody evicts this instance while there is somebody to remember."""
        if self._forgetting is None and not self._settled:
            self._forgetting = self.ctx.set_timeout(MINUTE_S, self._forget)

    async def _forget(self) -> None:
        self._forgetting = None
        self._failed.forget(trio.current_time())
        self._write_the_rest()
        if len(self._failed):
            self._remember_failures()

    def _write_the_rest(self) -> None:
        unwritten, self._unwritten = self._unwritten, 0
        if unwritten:
            self._write("nobody", "", f"{unwritten:,} wrong passwords more than are written down one by one")

    def _write(self, who: str, peer: str, result: str) -> None:
        self._audit.add(Entry(at=self.ctx.now(), who=who, peer=peer, what="sign in", target="", result=result))

    async def sign_out(self, session: str) -> None:
        """The session ends."""
        self._sessions.sign_out(session)

    async def session_name(self, session: str) -> str | None:
        """What a session is called; None when it lets nobody in."""
        return self._sessions.name(session, self.ctx.now())

    # What they did.

    async def note(self, who: OperatorName, what: str, target: str, result: str) -> None:
        """Write down what an operator did; durable when this returns."""
        self._audit.add(Entry(at=self.ctx.now(), who=str(who), peer=who.peer, what=what, target=target, result=result))

    async def entries(self, offset: int, limit: int) -> tuple[int, tuple[Entry, ...]]:
        """How many entries the audit log has, and some of them, the newest first."""
        return len(self._audit), tuple(self._audit.newest(offset, limit))

    # What the server does.

    async def watch(self) -> None:
        """Somebody looks: make the overview from now on."""
        if not self._watching:
            self._watching = True
            self.ctx.start_soon(self._observe)

    async def settle(self) -> None:
        """The server goes down: nobody is shown anything any more, and failures are forgotten."""
        self._settled = True
        self._write_the_rest()
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None

    async def series(self, minutes: int) -> dict[str, Any]:
        """The last minutes of the overview, as JSON."""
        return self._overview.series(minutes)

    async def _observe(self) -> None:
        quiet = 0
        lag_s = 0.0
        try:
            while quiet < QUIET_STEPS and not self._settled:
                begun = trio.current_time()
                quiet = 0 if await self._looked_at() else quiet + 1
                try:
                    await self._publish(lag_s)
                except ActorError as error:
                    self.ctx.log.warning("no overview", reason=str(error))
                due = begun + STEP_S
                await self.ctx.sleep(max(0.0, due - trio.current_time()))
                lag_s = max(0.0, trio.current_time() - max(due, begun))
        finally:
            self._watching = False

    async def _looked_at(self) -> bool:
        try:
            shard = await self.env.shards.get_by_name(shard_name(0, CONSOLE_STREAM)).observe()
        except ActorError:
            return False
        return shard.connections > 0

    async def _publish(self, lag_s: float) -> None:
        statuses = await self._statuses()
        overview = self._overview.add(await self._sample(statuses, lag_s))
        drafts = [_draft("console.overview", "node", overview)]
        for status in statuses:
            shown = source_json(status)
            if self._sources.get(status.name) != shown:
                self._sources[status.name] = shown
                drafts.append(_draft("console.ingest", status.name, shown))
        await self.env.broadcasters.get_by_name(CONSOLE_STREAM).publish(tuple(drafts))

    async def _statuses(self) -> list[IngestStatus]:
        names = [one.name for one in self.env.settings.active_sources()]
        asked, ingests = self._sources_asked, self.env.ingests
        found = [await asked.answer("ingests", name, ingests.get_by_name(name).status) for name in names]
        return [status for status in found if status is not None]

    async def _sample(self, statuses: Sequence[IngestStatus], lag_s: float) -> Sample:
        settings, env = self.env.settings, self.env
        names = settings.stream_names
        shards = [shard_name(number, name) for name in names for number in range(settings.shards)]
        asked, broadcasters = self._streams_asked, env.broadcasters
        seen_streams = [await asked.answer("broadcasters", one, broadcasters.get_by_name(one).observe) for one in names]
        seen_shards = [
            await self._shards_asked.answer("shards", one, env.shards.get_by_name(one).observe) for one in shards
        ]
        if self._steps % HIBERNATED_STEPS == 0:
            self._hibernated = await self._count_hibernated()
        self._steps += 1
        now = self.ctx.now()
        broken = [failure for failure in env.operator.failures() if failure.at >= now - BROKEN_S]
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return Sample(
            at=now,
            clock=trio.current_time(),
            streams=tuple(seen_streams),
            shards=tuple(seen_shards),
            sources=tuple(facts(status, now) for status in statuses),
            live=env.operator.live,
            hibernated=self._hibernated,
            failing={repr(actor): why for actor, why in env.operator.failing().items()},
            broken=len(broken),
            unstored=sum("StorageFailed" in failure.error for failure in broken),
            memory_bytes=await self.ctx.run_blocking(_resident_bytes),
            cpu_s=usage.ru_utime + usage.ru_stime,
            lag_s=lag_s,
        )

    async def _count_hibernated(self) -> int:
        found = 0
        for n, actor in enumerate(self.env.operator.actors(), 1):
            if n % ACTORS_AT_ONCE == 0:
                await self.ctx.checkpoint()
            found += actor.state == "hibernated"
        return found


def _rests(shard: ShardView) -> bool:
    """Nothing about it changes while nothing runs in it."""
    return not shard.backlog_bytes and not shard.slow


def facts(status: IngestStatus, now: float) -> SourceFacts:
    """What a light looks at."""
    state = status.state
    overdue = status.next is not None and not status.running and now > status.next + OVERDUE_S
    return SourceFacts(name=status.name, failing=bool(state.failures), overdue=overdue, paused=state.paused)


def source_json(status: IngestStatus) -> dict[str, Any]:
    """A source as the console shows it."""
    state = status.state
    runs = [at for at in (state.last_success, state.last_failure) if at is not None]
    return {
        "name": status.name,
        "kind": status.kind,
        "schedule": status.schedule,
        "timezone": status.timezone,
        "stream": status.stream,
        "paused": state.paused,
        "running": status.running,
        "last_run": _ms(max(runs)) if runs else None,
        "duration_ms": None if state.took_s is None else round(1_000 * state.took_s, 1),
        "next": _ms(status.next),
        "produced": state.produced,
        "duplicates": state.duplicates,
        "rejected": state.rejected,
        "failures": state.failures,
        "failing_since": _ms(state.failing_since),
        "last_error": state.error or None,
    }


def _draft(type_: str, entity: str, data: dict[str, Any]) -> Draft:
    return Draft.of(type_, entity, data)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(1_000 * seconds)


def _resident_bytes() -> int:
    """What the process has in memory; as much as it ever had where the system does not say."""
    try:
        return int(_STATUS.read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024
