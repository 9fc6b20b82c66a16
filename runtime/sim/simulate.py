"""One run of a scenario from one seed: everything that happens follows from it."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

import attrs
import trio

from runtime.sim.claim import Claim, Violation
from runtime.sim.claims import CLAIMS, make_claims
from runtime.sim.disk import SimulatedDisk
from runtime.sim.faults import Fault, Faults
from runtime.sim.scheduling import ORDERS, TaskOrder, VirtualClock, drawn_order, repeatable, uncollected
from runtime.sim.trace import Event
from runtime.sim.world import World

Play = Callable[[World], Awaitable[None]]
Order = Literal["drawn", "shuffle", "delaying", "pct"]

_DEFAULT_FAULTS = Faults.swarm()
_MEMORY = Path("/dev/shm")  # noqa: S108 -- tmpfs: the simulated disk needs no real one
_SHOWN = 30


class SimulationFailed(AssertionError):
    """A run did not do what it must; the text says which, and how to see it again."""


@attrs.frozen
class Scenario:
    """Clients of an app, and what must hold.

    Attributes:
        run: `async def name(w: World) -> None`; what it asserts is a claim of its own.
        name: for commands and reports.
        claims: that are watched.
        points: rare branches that it is there to reach: `sim run --coverage` fails when no seed did.
        spared: kinds of faults that it is not given; say why where it is written.
        virtual_s, steps: a run that takes longer has failed.
    """

    run: Play
    name: str
    claims: Sequence[type[Claim]] = CLAIMS
    points: Sequence[str] = ()
    spared: Sequence[str] = attrs.field(default=(), kw_only=True)
    virtual_s: float = 3_600.0
    steps: int = 2_000_000


@overload
def scenario(run: Play, /) -> Scenario: ...
@overload
def scenario(
    *,
    claims: Sequence[type[Claim]] = (),
    points: Sequence[str] = (),
    spared: Sequence[str] = (),
    virtual_s: float = 3_600.0,
    steps: int = 2_000_000,
) -> Callable[[Play], Scenario]: ...
def scenario(
    run: Play | None = None,
    /,
    *,
    claims: Sequence[type[Claim]] = (),
    points: Sequence[str] = (),
    spared: Sequence[str] = (),
    virtual_s: float = 3_600.0,
    steps: int = 2_000_000,
) -> Scenario | Callable[[Play], Scenario]:
    """Decorate `async def name(w: World)` as a scenario.

    Args:
        claims: of the scenario's own, beside those that hold of every app.
        points, spared, virtual_s, steps: see `Scenario`.
    """

    def decorate(fn: Play) -> Scenario:
        name = getattr(fn, "__name__", "scenario")
        return Scenario(fn, name, (*CLAIMS, *claims), tuple(points), virtual_s, steps, spared=tuple(spared))

    return decorate if run is None else decorate(run)


@attrs.frozen
class Result:
    """How a run ended.

    Attributes:
        failure: what did not hold, or None. plan: what went wrong on purpose. order: the strategy of the tasks' order.
        digest: the same for two runs in which the same happened.
        longest: how many operations its longest loop is meant to have.
        steps, virtual_s: of the run. fired: how often each kind of event happened. checked: the same for each claim.
        events: the newest 50,000.
    """

    scenario: str
    seed: int
    plan: Sequence[Fault]
    operations: int | None
    order: str
    failure: Violation | None
    digest: str
    steps: int
    virtual_s: float
    count: int
    longest: int
    fired: Mapping[str, int]
    checked: Mapping[str, int]
    events: Sequence[Event] = attrs.field(repr=False)

    @property
    def ok(self) -> bool:
        """Everything held."""
        return self.failure is None

    def explain(self, shown: int = _SHOWN) -> str:
        """For people: the seed, what was drawn, the claim, the two events, and what happened last.

        Args:
            shown: how many of the last events; those that repeat each other count as one.
        """
        if self.failure is None:
            return f"{self.scenario}, seed {self.seed}: everything held ({self.count:,} events)"
        failure = self.failure
        lines = [f"{self.scenario}, seed {self.seed}: {failure.claim}", f"  {failure.text}", ""]
        by_number = {event.number: event for event in self.events}
        pair = [by_number[number] for number in dict.fromkeys((failure.first, failure.second)) if number in by_number]
        if failure.first:
            lines += ["These contradict each other:", *(f"  {event}" for event in pair), ""]
        lines += [f"Drawn from the seed (order of tasks: {self.order}):", *(f"  {fault}" for fault in self.plan)]
        lines += [] if self.plan else ["  no faults"]
        last = [event for event in self.events if not failure.second or event.number <= failure.second]
        lines += ["", f"What happened last, of {self.count:,} events:", *_last(last, shown)]
        return "\n".join(lines)

    def raise_if_failed(self) -> None:
        """Raises: SimulationFailed."""
        if self.failure is not None:
            raise SimulationFailed(self.explain())


def simulate(
    what: Scenario | Play,
    *,
    seed: int = 0,
    faults: Faults = _DEFAULT_FAULTS,
    plan: Sequence[Fault] | None = None,
    operations: int | None = None,
    order: Order = "drawn",
) -> Result:
    """Run a scenario once. Not to be called from within trio.

    Args:
        seed: of everything.
        faults: to draw the plan from. plan: instead of a drawn one.
        operations: at most so many in each of the scenario's loops (`World.times`).
        order: of the tasks that are ready at the same time: any (`shuffle`), with one that is late for long
            (`delaying`), by priorities that change at a few steps (`pct`), or one of these, drawn from the seed.
    """
    chosen = what if isinstance(what, Scenario) else Scenario(what, getattr(what, "__name__", "scenario"))
    drawn = [one for one in faults.draw(seed) if one.kind not in chosen.spared] if plan is None else plan
    strategy = drawn_order(seed) if order == "drawn" else order
    memory = _MEMORY if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="heliograph-sim-", dir=memory) as folder, uncollected():
        return _run(chosen, seed, drawn, operations, strategy, Path(folder))


def _run(
    chosen: Scenario, seed: int, plan: Sequence[Fault], operations: int | None, strategy: str, folder: Path
) -> Result:
    disk = SimulatedDisk(folder, random.Random(f"{seed}/disk"))  # noqa: S311 -- reproducible on purpose
    ready = ORDERS[strategy](f"{seed}/order")
    with repeatable(str(seed), ready), disk.mounted():
        return _Run(chosen, seed, plan, operations, strategy, disk, ready).result()


class _Run:
    def __init__(
        self,
        chosen: Scenario,
        seed: int,
        plan: Sequence[Fault],
        operations: int | None,
        strategy: str,
        disk: SimulatedDisk,
        order: TaskOrder,
    ) -> None:
        self._scenario = chosen
        self._seed = seed
        self._plan = plan
        self._operations = operations
        self._strategy = strategy
        self._disk = disk
        self._order = order
        self._failure: Violation | None = None
        self._scope = trio.CancelScope()
        self._over = trio.Event()
        self._world: World | None = None
        self._took = 0.0
        self._at = 0  # the number of the last event when the scenario failed
        self._clock = VirtualClock(order, chosen.steps, self._over.set)

    async def _main(self) -> None:
        claims = make_claims(self._scenario.claims, self._broken)
        world = self._world = World(self._seed, self._disk, self._plan, self._operations, self._clock, claims)
        self._clock.until = self._scenario.virtual_s
        with world.probes.watching():
            try:
                with self._scope:
                    async with trio.open_nursery() as nursery:
                        world.nursery = nursery
                        nursery.start_soon(self._end_early, world)
                        nursery.start_soon(world.nemesis)
                        nursery.start_soon(world.restart_dead)
                        await self._play(world)
                        await self._finish(world)
                        nursery.cancel_scope.cancel()
            except Exception as error:  # noqa: BLE001 -- whatever a scenario raises is its verdict
                leaf = _leaf(error)
                self._fail(Violation("scenario", _words(leaf), second=self._at))
        if self._clock.stuck is not None:
            self._fail(Violation("liveness", self._clock.stuck, second=world.trace.count))
        self._took = world.now()

    async def _play(self, world: World) -> None:
        try:
            await self._scenario.run(world)
        except Exception:
            self._at = world.trace.count
            self._unwind(world)
            raise

    async def _end_early(self, world: World) -> None:
        await self._over.wait()
        self._unwind(world)
        self._scope.cancel()

    def _unwind(self, world: World) -> None:
        for node in world.nodes.values():
            if node.life is not None:
                node.life.scope.cancel()

    async def _finish(self, world: World) -> None:
        await world.quiesce()
        now = max((node.now() for node in world.nodes.values()), default=0.0)
        await trio.sleep(max((claim.patience_s(now) for claim in world.claims), default=0.0))
        now = max((node.now() for node in world.nodes.values()), default=0.0)
        event = world.trace.note("finished", "world")
        for claim in world.claims:
            claim.finished(now, event)
        for node in world.nodes.values():
            await node.stop()

    def _broken(self, claim: Claim, text: str, first: int, second: int) -> None:
        self._fail(Violation(claim.name, text, first, second))

    def _fail(self, violation: Violation) -> None:
        if self._failure is None:
            self._failure = violation
            self._over.set()

    def result(self) -> Result:
        """Run it."""
        try:
            trio.run(self._main, clock=self._clock)
        except trio.TrioInternalError:  # it could not be ended in order
            if self._clock.stuck is None:
                raise
            self._fail(Violation("liveness", self._clock.stuck))
        world = self._world
        assert world is not None
        return Result(
            self._scenario.name,
            self._seed,
            self._plan,
            self._operations,
            self._strategy,
            self._failure,
            world.trace.digest,
            self._order.steps,
            self._took,
            world.trace.count,
            world.longest,
            dict(world.trace.fired),
            {claim.name: claim.checked for claim in world.claims},
            world.trace.events,
        )


def _last(events: Sequence[Event], shown: int) -> list[str]:
    """The last events as lines; what happened several times in a row, with all of its words, is one."""
    lines: list[str] = []
    at = len(events)
    while at and len(lines) < shown:
        end, at = at, at - 1
        event = events[at]
        while at and events[at - 1].same_as(event):
            at -= 1
        times = f"  ({end - at} times)" if end - at > 1 else ""
        lines.append(f"  {events[at]}{times}")
    return lines[::-1]


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    where = ""
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if "/trio/" not in name and "/runtime/sim/" not in name:
            where = f" ({Path(name).name}:{trace.tb_lineno})"
        trace = trace.tb_next
    notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {error}{notes}{where}"
