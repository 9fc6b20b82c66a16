"""One live actor: construct it, run its events one turn at a time, commit, break, evict.

One function breaks an instance, whatever the reason (`break_`): abort, failed commit, failed or timed-out critical
section, failed constructor. A handler's exception does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import trio

from runtime import limits
from runtime.actor.actor import Actor, AlarmInfo
from runtime.actor.breaking import Aborted, Incarnation, reset_copy
from runtime.actor.critical_section import CriticalSection, SectionJob
from runtime.actor.frame import Frame, current_frame, cycle, release_all
from runtime.actor.holdings import Holdings
from runtime.actor.input_gate import Arrival, InputGate, Waiter, Work, plain_wait
from runtime.actor.output_gate import OutputGate
from runtime.actor.result import DONE, Error, Result, Value
from runtime.actor.services import Owner, Services
from runtime.errors import ActorError, ActorReset
from runtime.ids import ActorId
from runtime.storage.storage import Storage
from runtime.storage.store import KEEP, Keep, WriteBatch

T = TypeVar("T")


class Cell:
    """One instance of an actor while it is in memory."""

    __slots__ = (
        "_construct",
        "_durable_waiters",
        "_pending",
        "_sections",
        "_submit",
        "_uncommitted",
        "_written",
        "actor",
        "actor_class",
        "broken",
        "gate",
        "holdings",
        "id",
        "incarnation",
        "output",
        "owner",
        "running",
        "services",
        "storage",
    )

    def __init__(
        self,
        actor_id: ActorId,
        actor_class: type[Actor[Any]],
        construct: Callable[[Cell], Actor[Any]],
        owner: Owner,
        services: Services,
    ) -> None:
        self.id = actor_id
        self.actor_class = actor_class
        self.owner = owner
        self.services = services
        self.incarnation = Incarnation()
        self.gate = InputGate(self)
        self.output = OutputGate()
        backend = services.backends[actor_class.storage]
        self._submit = backend.submit
        self.storage = Storage(
            backend.attach(actor_id, history=actor_class.history),
            self,
            limits=backend.limits,
            has_alarm_handler=actor_class.alarm is not Actor.alarm,
            now=services.platform.now,
            lineage=services.store.lineage,
            takes_alarms=not actor_id.is_facet,
        )
        self.actor: Actor[Any] | None = None
        self.broken: Exception | None = None
        self.holdings = Holdings(self)
        self._construct = construct
        self.running: dict[Work, Frame | None] = {}  # has the turn, or waits; no frame yet: it is about to run
        # None while empty: most actors are idle most of the time.
        self._sections: dict[CriticalSection, None] | None = None
        self._durable_waiters: list[tuple[int, Callable[[], None]]] | None = None
        self._written = False  # since the last batch was sealed
        self._pending = 0
        self._uncommitted = 0

    # Events.

    def deliver(self, job: Work) -> None:
        """Put an event into the mailbox."""
        if self._sections and (chain := cycle(self, job)) is not None:
            self.services.log.error("a critical section waits for a call of its own actor", chain=chain)
        self.gate.enter(job)

    def start_job(self, gate: InputGate, job: Work) -> None:
        """Let a worker run a job that has been given the turn of `gate`."""
        job.gate = gate
        self.running[job] = None
        self._pending += 1
        self.services.workers.start(job)

    def begin(self, job: Work, task: trio.lowlevel.Task, scope: trio.CancelScope | None) -> Frame | None:
        """A worker has come to a job that was started; None when the instance was destroyed meanwhile.

        Args:
            scope: cancels what the task does from here on.
        """
        if self.broken is not None:
            self.busy(-1)
            return None
        frame = self.running[job] = Frame(self, job, task, scope)
        job.take()
        return frame

    async def run(self, frame: Frame) -> Result | None:
        """Run the handler; None when that has ended with the instance."""
        job = frame.job
        try:
            actor = self.actor
            if actor is None:
                actor = await self._construct_now(frame)
            handler = job.run(actor)
            value = await (handler if job.timeout_s is None else self._cut_off(handler, job))
            return Value(job.carry(value))
        except Aborted:
            return None
        except Exception as error:  # noqa: BLE001 -- whatever it is, it belongs to the one who waits
            return Error(job.explain(error))
        except BaseExceptionGroup as errors:  # of a nursery of the handler's
            if errors.subgroup(Aborted) is None:
                raise
            return None

    def run_at_once(self, frame: Frame) -> Result | None:
        """The same for a handler of a constructed actor that is known never to wait."""
        job = frame.job
        try:
            handler: Any = job.run(self.actor)
            try:
                handler.send(None)
            except StopIteration as end:
                return Value(job.carry(end.value))
            raise AssertionError(f"{job.label} has waited")
        except Aborted:
            return None
        except Exception as error:  # noqa: BLE001 -- as above
            return Error(job.explain(error))

    def finish(self, frame: Frame, result: Result | None) -> None:
        """The handler has ended: seal, answer, let the turn go."""
        if result is not None and self.broken is None:
            self._finish(frame, frame.job, result)
        self.busy(-1)

    async def _cut_off(self, run: Awaitable[T], job: Work) -> T:
        assert job.timeout_s is not None
        with trio.CancelScope() as scope:
            timer = self.services.timers.call_after(job.timeout_s, scope.cancel)
            try:
                return await run
            finally:
                timer.cancel()
        raise TimeoutError(f"{job.label} took longer than {job.timeout_s:g} s and was cut off")

    async def _construct_now(self, frame: Frame) -> Actor[Any]:
        # An error here breaks the instance: every waiting event fails with it, and the next one tries again.
        try:
            alarm = await self.storage.prepare()
            if self.broken is not None:
                raise Aborted
            if not isinstance(alarm, Keep):
                self.services.alarm_changed(self.id, alarm)
            self.actor = actor = self._construct(self)
        except Exception as error:
            self.break_(reset_copy(error))
            raise Aborted from error
        if self.gate.sections_wait:
            # The event that made the instance waits for them like every other, and then comes first.
            self.seal()
            waiter = Waiter(frame)
            self.gate.leave_and_be_next(waiter)
            await waiter.park(self.abort_if_broken)
        return actor

    def _finish(self, frame: Frame, job: Work, result: Result) -> None:
        if frame.calls:
            for call in list(frame.calls):
                call._abandon()
            frame.calls = None
        failed = isinstance(result, Error)
        section = job.section if isinstance(job, SectionJob) else None
        if section is None or not failed:  # else its open batch goes with the instance
            try:
                self.seal()
            except Aborted:
                return  # what it wrote was refused: everyone who waits was told
        if frame.references:
            references, frame.references = frame.references, None
            self.output.emit(partial(release_all, references))
        del self.running[job]
        if section is not None:
            assert self._sections is not None
            del self._sections[section]
            section.end(result)
            return
        if isinstance(result, Error) and job.logs:
            self.services.log.error("handler failed", actor=repr(self.id), handler=job.label, exc_info=result.error)
        if not job.gated or self.output.open:
            job.done(result)
        else:
            job.result = result
            self.output.emit(job.leave, job.dropped)
        gate = frame.gate
        (gate.outermost_open() if gate.closed else gate).leave()

    # Waits.

    def frame(self) -> Frame:
        """The running handler of this instance.

        Raises:
            RuntimeError: the calling task is no handler of this actor, or one that may not take turns.
            Exception: the instance is destroyed.
        """
        frame = current_frame.get()
        if frame is None or frame.cell is not self:
            raise RuntimeError(f"this wait belongs to {self.id!r}; call it from one of its own handlers")
        frame.check_task()
        if self.broken is not None:
            raise Aborted
        return frame

    async def wait(self, arm: Callable[[Callable[[Result], None]], Callable[[], None] | None]) -> Any:
        """Let the turn go until `arm`'s argument is called, then queue for it and return the result.

        `arm` starts the wait and returns what stops it. A cancelled wait also comes back through the queue.
        """
        frame = self.frame()
        if frame.outside:
            return await plain_wait(arm)
        self.seal()
        return await Waiter(frame).wait(arm)

    async def wait_for(self, arrival: Arrival) -> None:
        """Wait until a reply that came already has its turn, so that replies are seen in the order they came."""
        frame = self.frame()
        if arrival.arrived or frame.outside:
            return
        gate = frame.gate.outermost_open()
        if gate is not arrival.gate.outermost_open():
            await self.wait(lambda wake: wake(DONE))
            return
        self.seal()
        arrival.waiter = waiter = Waiter(frame)

        def abort(raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            if self.broken is not None:
                return trio.lowlevel.Abort.SUCCEEDED
            arrival.waiter = None
            waiter.wake(Error.of(raise_cancel))
            return trio.lowlevel.Abort.FAILED

        gate.leave()
        await waiter.park(abort)

    async def outside(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run foreign code without the turn, after everything written so far is durable."""
        frame = self.frame()
        if frame.outside:
            return await fn(*args)
        self.seal()
        frame.outside = True
        frame.gate.outermost_open().leave()
        try:
            if not self.output.open:
                await plain_wait(lambda wake: self.output.emit(lambda: wake(DONE)))
            return await fn(*args)
        finally:
            if self.broken is None:
                waiter = Waiter(frame)
                waiter.wake(DONE)
                await waiter.park(self.abort_if_broken)
            frame.outside = False

    def abort_if_broken(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        """The abort function of a wait that only the end of the instance cuts short."""
        return trio.lowlevel.Abort.FAILED if self.broken is None else trio.lowlevel.Abort.SUCCEEDED

    def emit(self, effect: Callable[[], None], dropped: Callable[[Exception], None] | None = None) -> None:
        """Let an effect of a handler out in order, after the writes made before it are durable.

        Raises:
            Overloaded: too many are held.
        """
        if self.broken is not None:
            raise Aborted
        self.output.check_room()
        if self.gate.held:
            self.output.emit_in_turn(effect, dropped)
        else:
            self.output.emit(effect, dropped)  # from foreign code (`ctx.outside`) while nobody has the turn

    def own_gate(self) -> InputGate:
        """Where work started by the running handler takes turns: its section's gate, or the actor's."""
        frame = current_frame.get()
        return frame.gate if frame is not None and frame.cell is self else self.gate

    def block(self, fn: Callable[[], Awaitable[Any]]) -> CriticalSection:
        """Ask for a critical section; it starts when the turn is let go, before any queued event."""
        gate = self.frame().gate.outermost_open()
        if gate.depth >= limits.CRITICAL_SECTION_DEPTH:
            self.break_(ActorReset("blockConcurrencyWhile() calls are nested too deeply."))
            raise Aborted
        section = CriticalSection(self, fn, gate)
        if self._sections is None:
            self._sections = {}
        self._sections[section] = None
        gate.add_section(section)
        return section

    # Writes (the storage's gate).

    def check(self) -> None:
        """Refuse storage to an instance that was destroyed or evicted."""
        if self.broken is not None:
            raise Aborted

    def wrote(self, *, confirmed: bool) -> None:
        """A write joined the open batch: unless it is unconfirmed, effects wait for it from now on."""
        frame = current_frame.get()
        if frame is None or frame.cell is not self or frame.outside:
            raise RuntimeError(
                f"{self.id!r} was written to without its turn; write from its handlers, not from ctx.outside"
            )
        self._written = True
        if confirmed:
            self.output.shut(self.storage.sequence)

    def clearing(self) -> None:
        """Its facets are deleted with everything else."""
        self.owner.clearing(self)

    async def sync(self) -> None:
        """Wait until everything written so far is durable."""
        await self.wait(self._arm_durable)

    async def critical_section(self, fn: Callable[[], Awaitable[T]]) -> T:
        """Run `fn` with every other event kept out."""
        result: T = await self.block(fn)
        return result

    def seal(self) -> None:
        """The turn is let go: hand the open batch to the store (or break), and let out what waits for no batch."""
        if self.output.turn_has_effects:
            self.output.end_turn()
        if not self._written:
            return
        try:
            batch = self.storage.take_batch()
        except ActorError as error:
            self.break_(error)
            raise Aborted from error
        if batch is not None:
            self._written = False
            self._uncommitted += 1
            self.busy(1)
            self._submit(batch, partial(self._committed, batch))

    def _committed(self, batch: WriteBatch, error: Exception | None) -> None:
        self._uncommitted -= 1
        if error is None:
            if batch.alarm is not KEEP:
                self.services.alarm_changed(self.id, batch.alarm)
            if self.broken is None:
                self.storage.committed(batch.sequence)
                self.output.durable(batch.sequence)
                if self._durable_waiters is not None:
                    self._wake_durable(self._durable_waiters, batch.sequence)
        elif self.broken is None:
            self.services.platform.point("an instance ends with a commit that failed")
            self.services.log.error("commit failed", actor=repr(self.id), error=str(error))
            self.break_(error)
        if self.broken is not None and self._uncommitted == 0:
            self.owner.cell_settled()
        self.busy(-1)

    def _arm_durable(self, wake: Callable[[Result], None]) -> Callable[[], None] | None:
        if self._uncommitted == 0:
            wake(DONE)
            return None
        entry = (self.storage.sequence, partial(wake, DONE))
        waiters = self._durable_waiters = self._durable_waiters or []
        waiters.append(entry)
        return lambda: waiters.remove(entry) if entry in waiters else None

    def _wake_durable(self, waiters: list[tuple[int, Callable[[], None]]], sequence: int) -> None:
        ready = [wake for wanted, wake in waiters if wanted <= sequence]
        waiters[:] = [entry for entry in waiters if entry[0] > sequence]
        for wake in ready:
            wake()

    # Alarm.

    def arm_alarm(self, info: AlarmInfo) -> bool:
        """Put the alarm out of sight; False when it was moved or deleted since, and is not to run."""
        due = self.actor is not None and self.storage.alarm_is_due(info.scheduled_time)
        if due:
            self.storage.begin_alarm()
        return due

    async def run_alarm(self, info: AlarmInfo, *, armed: bool = False) -> None:
        """Run the alarm handler; at success the alarm is deleted in the same batch as the handler's last writes."""
        assert self.actor is not None
        if not armed and not self.arm_alarm(info):
            return  # the index hears of it when that is durable
        try:
            await self.actor.alarm(info)
        except Exception:
            self.storage.end_alarm(success=False)
            raise
        self.storage.end_alarm(success=True)

    # End.

    def busy(self, change: int) -> None:
        """Count what keeps the instance in memory: running handlers, batches, timers, calls it waits for."""
        self._pending += change
        if self._pending == 0 and self.broken is None:
            self.running = {}  # an empty one is a quarter of one that was used
            self.owner.cell_idle()

    @property
    def idle(self) -> bool:
        """Nothing runs, waits or is pending."""
        return self._pending == 0

    def why_awake(self) -> list[str]:
        """What keeps this instance in memory."""
        reasons = [f"{job.label} runs" for job in self.running]
        held = (
            (self.holdings.timers, "timer is pending", "timers are pending"),
            (len(self.owner.sockets.ordinary), "ordinary WebSocket is open", "ordinary WebSockets are open"),
            (self._uncommitted, "batch is not durable yet", "batches are not durable yet"),
        )
        reasons += [f"{count:,} {one if count == 1 else many}" for count, one, many in held if count]
        if self._pending and not reasons:
            reasons.append(f"{self._pending} calls or responses are under way, or references to it are held by others")
        return reasons

    def break_(self, error: Exception) -> None:
        """Destroy the instance: its open batch, held effects, handlers and sockets; everyone who waits gets the error.

        Sealed batches still commit, and no new instance is constructed before they have ended.
        """
        if self.broken is not None:
            return
        self.broken = error
        self.incarnation.error = error
        self.storage.drop_open()
        jobs = list(self.running) + self.gate.drain()
        for section in self._sections or ():
            jobs += section.gate.drain()
        self.owner.cut_sockets()
        self.owner.cell_broken()
        self._stop()
        self.output.break_(error)
        for job in jobs:
            job.take()
            job.done(Error(error))
        if self._uncommitted == 0:
            self.owner.cell_settled()
        else:
            self.services.platform.point("an instance ends with batches on their way")

    def end(self) -> None:
        """Forget the instance without an error (eviction, shutdown); storage and sockets stay."""
        self.broken = ActorReset("Durable Object storage is no longer accessible.")
        self._stop()

    def _stop(self) -> None:
        for frame in self.running.values():
            if frame is not None:
                if frame.scope is not None:
                    frame.scope.cancel()
                release_all(frame.references or ())
        self.holdings.end()
        self._durable_waiters = None
        self.storage.close()
