"""Faults on purpose: the actor that lets something fail for a time, and sees what that does to connections."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import starmap
from operator import add
from typing import TYPE_CHECKING, Any, Literal

import attrs
import trio

from actors.measures import RECOVERY_BOUNDS_S
from actors.observing import ShardView
from actors.stream import shard_name
from runtime import Actor, ActorError, Context

if TYPE_CHECKING:
    from actors.env import Env

NAME = "faults"
OPERATORS = "/console/"  # connections of operators are spared
BEGIN_S = 0.5  # so that the answer to who asked for it has left, and the audit log has it
STEP_S = 1.0
WATCHED_S = 30.0  # for so long after its end it is seen how clients come back
KEPT = 50
PLANNED = frozenset({1000, 1001, 1005, 4200, 4201, 4202})  # ends that a fault did not make
_PREFIX = "runs/"

FaultKind = Literal["drop sockets", "stall sockets", "delay commits", "crash actor", "skew clock", "kill process"]
Values = Mapping[str, float | str]
OF_SOCKETS = frozenset({"drop sockets", "stall sockets"})


@attrs.frozen(kw_only=True)
class Effect:
    """What was seen from its beginning on.

    Attributes:
        connections_lost: that ended in no planned way. recoveries_ok: subscriptions that went on without a loss;
            recoveries_gap: those that were told of one, or began in another epoch.
        signals_lost: offsets that subscriptions were told they will not get.
        recoveries: by how long they took until they were live, see `RECOVERY_BOUNDS_S`.
    """

    connections_lost: int = 0
    recoveries_ok: int = 0
    recoveries_gap: int = 0
    signals_lost: int = 0
    recoveries: tuple[int, ...] = (0,) * (len(RECOVERY_BOUNDS_S) + 1)

    def __add__(self, other: Effect) -> Effect:
        return Effect(
            connections_lost=self.connections_lost + other.connections_lost,
            recoveries_ok=self.recoveries_ok + other.recoveries_ok,
            recoveries_gap=self.recoveries_gap + other.recoveries_gap,
            signals_lost=self.signals_lost + other.signals_lost,
            recoveries=tuple(map(add, self.recoveries, other.recoveries)),
        )


@attrs.frozen(kw_only=True)
class Run:
    """A fault that somebody wanted.

    Attributes:
        values: of its parameters, by name. by: who wanted it.
        since, until: wall clock, seconds. over: nobody watches any more.
        connections: how many there were when it was looked last. node: when the process was started that did that.
    """

    number: int
    kind: FaultKind
    values: dict[str, float | str]
    by: str
    since: float
    until: float
    node: float
    connections: int = 0
    over: bool = False
    effect: Effect = Effect()


@attrs.frozen
class Seen:
    """A shard at a moment, and the last failure of an instance of it until then."""

    view: ShardView
    failure: object


class FaultInjection(Actor["Env"]):
    """Lets one fault run at a time. Nobody wakes it in a server that was not started for that."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self._runs = {run.number: run for run in ctx.storage.list(Run, prefix=_PREFIX).values()}
        self._end = trio.Event()
        if (found := self.running) is not None:
            if found.node != env.operator.started:  # the process has ended, and every connection with it
                lost = Effect(connections_lost=found.connections)
                found = attrs.evolve(found, effect=found.effect + lost, node=env.operator.started, connections=0)
                self._keep(found)
                ctx.start_soon(self._watch, found.number, {})
            else:
                ctx.start_soon(self._watch, found.number, None)

    async def begin(self) -> None:
        """The server is up: what was running when it went down is watched on."""

    async def settle(self) -> None:
        """The server goes down in order: everything is as it should be, and nobody watches any more."""
        await self.end(None)

    @property
    def running(self) -> Run | None:
        """The one that is not over."""
        return next((run for run in self._runs.values() if not run.over), None)

    async def runs(self) -> tuple[Run, ...]:
        """The newest first."""
        return tuple(sorted(self._runs.values(), key=lambda run: -run.number))

    async def inject(self, kind: FaultKind, values: dict[str, float | str], by: str) -> int | None:
        """Let something fail, half a second from now; None when something does already."""
        if self.running is not None:
            return None
        now = self.ctx.now() + BEGIN_S
        number = max(self._runs, default=0) + 1
        until = now + float(values.get("seconds", 0.0))
        started = self.env.operator.started
        self._end = trio.Event()
        self._keep(Run(number=number, kind=kind, values=values, by=by, since=now, until=until, node=started))
        self.ctx.start_soon(self._carry_out, number)
        return number

    async def end(self, number: int | None) -> bool:
        """End it before its time; False when it does not run. None means whichever runs."""
        run = self.running
        if run is None or number not in (run.number, None):
            return False
        if self.env.operator.faults is not None:
            self.env.operator.faults.end()
        self._keep(attrs.evolve(run, over=True, until=min(run.until, self.ctx.now())))
        self._end.set()
        return True

    async def _carry_out(self, number: int) -> None:
        before = await self._look()
        self._count(number, before, before)
        await self.ctx.sleep(BEGIN_S)
        run = self._runs[number]
        if run.over:
            return
        try:
            await self._apply(run)
        except ActorError as error:
            self.ctx.log.warning("no fault", kind=run.kind, reason=str(error))
        await self._watch(number, before)

    async def _apply(self, run: Run) -> None:
        faults, operator = self.env.operator.faults, self.env.operator
        if faults is None:
            return
        seconds = float(run.values.get("seconds", 0.0))
        match run.kind:
            case "drop sockets" | "stall sockets":
                chosen = await self._chosen(faults.connections(OPERATORS), run.values)
                if run.kind == "drop sockets":
                    await self.ctx.outside(faults.drop, chosen)
                else:
                    faults.stall(chosen, seconds)
            case "delay commits":
                faults.delay_commits(float(run.values["delay_ms"]) / 1_000, seconds)
            case "skew clock":
                faults.skew_clock(float(run.values["skew_s"]), seconds)
            case "crash actor":
                namespace, _, name = str(run.values["actor"]).partition("/")
                operator.abort(operator.find(namespace, name), "crashed on purpose")
            case "kill process":
                faults.kill()

    async def _chosen(self, found: list[Any], values: Values) -> list[Any]:
        """The connection of a session, or so many percent of all, and one at least."""
        if "session" in values:
            number = await number_of(self.env, str(values["stream"]), str(values["session"]))
            return [one for one in found if one.number == number]
        share = max(1, round(len(found) * float(values["percent"]) / 100))
        return self.ctx.random.sample(found, min(len(found), share))

    async def _watch(self, number: int, before: dict[str, Seen] | None) -> None:
        seconds = float(self._runs[number].values.get("seconds", 0.0))
        deadline = trio.current_time() + seconds + WATCHED_S
        last = await self._look() if before is None else before
        while trio.current_time() < deadline and not self._runs[number].over:
            with trio.move_on_after(STEP_S):
                await self.ctx.outside(self._end.wait)
            now = await self._look()
            self._count(number, last, now)
            last = now
        self._keep(attrs.evolve(self._runs[number], over=True))

    def _count(self, number: int, before: Mapping[str, Seen], now: Mapping[str, Seen]) -> None:
        run = self._runs[number]
        found = sum(starmap(_difference, ((before.get(name), seen) for name, seen in now.items())), Effect())
        connections = sum(seen.view.connections for seen in now.values())
        changed = attrs.evolve(run, effect=run.effect + found, connections=connections)
        if changed != run:
            self._keep(changed)

    async def _look(self) -> dict[str, Seen]:
        """Every shard that answers."""
        found: dict[str, Seen] = {}
        settings, operator = self.env.settings, self.env.operator
        for stream in settings.stream_names:
            for number in range(settings.shards):
                name = shard_name(number, stream)
                shard = operator.find("shards", name)
                failure = next((one for one in operator.failures() if one.actor == shard), None)
                try:
                    view = await self.env.shards.get_by_name(name).observe()
                except ActorError:
                    continue
                found[name] = Seen(view, failure)
        return found

    def _keep(self, run: Run) -> None:
        self._runs[run.number] = run
        self.ctx.storage.put(f"{_PREFIX}{run.number:08x}", run)
        if len(self._runs) > KEPT:
            oldest = min(self._runs)
            del self._runs[oldest]
            self.ctx.storage.delete(f"{_PREFIX}{oldest:08x}")


async def number_of(env: Env, stream: str, session: str) -> int | None:
    """Which one a session's is of the connections that can be made to fail; 0 if it cannot, None when there is none.

    Raises:
        ActorError: a shard did not answer.
    """
    calls = [
        env.shards.get_by_name(shard_name(n, stream)).connection_number(session) for n in range(env.settings.shards)
    ]
    numbers = [await call for call in calls]
    return next((number for number in numbers if number is not None), None)


def _difference(before: Seen | None, now: Seen) -> Effect:
    """What happened between two looks at a shard; what has become less is of an instance that began at 0."""
    earlier = None if before is None else before.view
    view = now.view
    cut = 0
    if before is not None and now.failure != before.failure:
        cut, earlier = before.view.connections, None
    elif earlier is not None and view.opened < earlier.opened:
        earlier = None
    closes = {} if earlier is None else dict(earlier.closes)
    lost = sum(count - closes.get(code, 0) for code, count in view.closes if code not in PLANNED)
    skipped = sum(count for _, count in view.skipped)
    recoveries = view.recovery.counts
    if earlier is not None:
        skipped -= sum(count for _, count in earlier.skipped)
        recoveries = tuple(new - old for new, old in zip(recoveries, earlier.recovery.counts, strict=True))
    return Effect(
        connections_lost=cut + lost,
        recoveries_ok=view.resumed - (0 if earlier is None else earlier.resumed),
        recoveries_gap=view.gaps + view.failed - (0 if earlier is None else earlier.gaps + earlier.failed),
        signals_lost=skipped,
        recoveries=recoveries,
    )
