"""Where the runtime is watched: its own functions, wrapped while a simulation runs, and never elsewhere.

The probes keep a record of their own of what an effect may be based on, so that a mistake in the gates shows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol

import attrs

from runtime.actor.actor import AlarmInfo
from runtime.actor.cell import Cell
from runtime.actor.context import Context
from runtime.actor.input_gate import InputGate, Job, Waiter, Work
from runtime.actor.result import Error
from runtime.actor.services import Services
from runtime.errors import Overloaded
from runtime.namespace.call_job import CallJob
from runtime.namespace.container import Container
from runtime.namespace.stub import Stub, _StubCall
from runtime.sim.claim import Audience
from runtime.sim.trace import Trace
from runtime.storage.storage import Storage
from runtime.storage.transaction import Transaction


class Serves(Protocol):
    """What belongs to a process: an instance, or what keeps containers."""

    services: Services


@attrs.define(eq=False)
class _Seen:
    """What is known of an instance: the newest batch that effects must wait for, and when it was written to."""

    life: int
    name: str
    needed: int = 0
    since: int = 0


@attrs.define(eq=False)
class Probes:
    """Hears what instances do and tells the trace and the claims.

    Args:
        trace: of the run.
        claims: that hear of everything.
        life_of: the number of the process that something belongs to; None: that process is dead.
    """

    trace: Trace
    claims: Audience
    life_of: Callable[[Serves], int | None]
    _seen: dict[Cell, _Seen] = attrs.field(factory=dict, init=False)
    _finishing: dict[Work, _Seen] = attrs.field(factory=dict, init=False)
    _in_transaction: set[Transaction] = attrs.field(factory=set, init=False)

    def died(self) -> None:
        """The process is dead: nothing is known of anybody."""
        self._seen.clear()
        self._finishing.clear()
        self._in_transaction.clear()

    def _of(self, cell: Cell) -> _Seen | None:
        return self._seen.get(cell)

    # What happens.

    def made(self, cell: Cell) -> None:
        """An instance was made."""
        life = self.life_of(cell)
        if life is None:
            return
        seen = self._seen[cell] = _Seen(life, actor_name(cell))
        event = self.trace.note("begin", seen.name)
        self.claims.began(life, cell, event)

    def gone(self, cell: Cell, why: str) -> None:
        """An instance was evicted or destroyed."""
        seen = self._seen.pop(cell, None)
        if seen is not None:
            event = self.trace.note("end", seen.name, why)
            self.claims.ended(seen.life, cell, event)

    def turn(self, cell: Cell, gate: object, label: str, *, taken: bool) -> int:
        """A handler takes a turn, or lets it go; the event."""
        seen = self._of(cell)
        if seen is None:
            return 0
        event = self.trace.note("turn" if taken else "leave", seen.name, label)
        (self.claims.turn_taken if taken else self.claims.turn_let_go)(cell, gate, event)
        return event

    def wrote(self, cell: Cell, *, confirmed: bool) -> None:
        """A handler wrote."""
        seen = self._of(cell)
        if seen is not None and confirmed and cell.storage.sequence > seen.needed:
            seen.needed = cell.storage.sequence
            seen.since = self.trace.note("write", seen.name, f"batch {seen.needed}")
            self.claims.wrote(cell, seen.needed, seen.since)

    def durable(self, cell: Cell, sequence: int) -> None:
        """An instance hears that a batch is durable."""
        seen = self._of(cell)
        if seen is not None:
            event = self.trace.note("durable", seen.name, f"batch {sequence}")
            self.claims.durable(cell, sequence, event)

    def left(self, cell: Cell, needed: int, since: int, what: str) -> None:
        """An effect leaves."""
        seen = self._of(cell)
        if seen is not None:
            event = self.trace.note("effect", seen.name, what)
            self.claims.left(cell, needed, since, event)

    def emission(self, cell: Cell, effect: Callable[[], None]) -> Callable[[], None]:
        """An effect that is watched as it leaves."""
        seen = self._of(cell)
        if seen is None:
            return effect
        needed, since = seen.needed, seen.since

        def leave() -> None:
            self.left(cell, needed, since, "sent")
            effect()

        return leave

    def answers(self, job: Work) -> None:
        """A job tells how it ended."""
        seen = self._finishing.pop(job, None)
        if seen is not None and job.gate.cell.broken is None:
            self.left(job.gate.cell, seen.needed, seen.since, f"answer {job.label}")

    def finishing(self, cell: Cell, job: Work) -> None:
        """A handler has ended."""
        seen = self._of(cell)
        if seen is not None and job.gated:
            self._finishing[job] = _Seen(seen.life, seen.name, seen.needed, seen.since)

    def alarm(self, cell: Cell, info: AlarmInfo, now: float) -> None:
        """An alarm handler begins."""
        seen = self._of(cell)
        if seen is not None:
            event = self.trace.note("alarm", seen.name, f"due {info.scheduled_time:.3f}")
            self.claims.alarm_began(cell.id, info.scheduled_time, info.retry_count, now, event)

    def alarm_over(self, cell: Cell, *, failed: bool) -> None:
        """An alarm handler has ended."""
        if self._of(cell) is not None:
            self.claims.alarm_ended(cell.id, failed, cell.services.platform.now(), self.trace.count)

    def lets_alarm_go(self, cell: Cell) -> None:
        """An actor deletes its alarm, or lets the runtime do it."""
        if self._of(cell) is not None:
            self.claims.alarm_deleted(cell.id, self.trace.count)

    @contextmanager
    def watching(self) -> Generator[None, None, None]:
        """Wrap the runtime's functions while the block runs."""
        taken: list[tuple[type[Any], str, Any]] = []

        def wrap(cls: type[Any], name: str, wrapper: Callable[..., Any]) -> None:
            original = cls.__dict__[name]
            taken.append((cls, name, original))
            setattr(cls, name, _bind(original, wrapper))

        wrap(Cell, "__init__", self._init)
        wrap(Cell, "begin", self._begin)
        wrap(Cell, "_finish", self._finish)
        wrap(Cell, "wrote", self._wrote)
        wrap(Cell, "_committed", self._committed)
        wrap(Cell, "emit", self._emit)
        wrap(Cell, "break_", self._break)
        wrap(Cell, "end", self._end)
        wrap(Cell, "run_alarm", self._run_alarm)
        wrap(Cell, "outside", self._outside)
        wrap(Storage, "_begin", self._begin_write)
        wrap(Storage, "_commit", self._commit)
        wrap(Storage, "delete_alarm", self._delete_alarm)
        wrap(Storage, "delete_all", self._delete_alarm)
        wrap(Context, "abort", self._abort)
        wrap(Container, "reserve_call", self._reserve_call)
        wrap(_StubCall, "__init__", self._call)
        wrap(InputGate, "leave", self._leave)
        wrap(Waiter, "park", self._park)
        wrap(Context, "send_all", self._send_all)
        wrap(Job, "done", self._done)
        wrap(CallJob, "done", self._done)
        wrap(CallJob, "take", self._take)
        try:
            yield
        finally:
            for cls, name, original in reversed(taken):
                setattr(cls, name, original)

    # The wrappers: the original first, then its arguments.

    def _init(self, original: Any, cell: Cell, *args: Any, **kwargs: Any) -> None:
        original(cell, *args, **kwargs)
        self.made(cell)

    def _begin(self, original: Any, cell: Cell, job: Work, *args: Any) -> Any:
        frame = original(cell, job, *args)
        if frame is not None:
            event = self.turn(cell, frame.gate, job.label, taken=True)
            if event and isinstance(job, _StubCall):
                self.claims.call_began(job, job._stub, cell, event)
            elif event and job.label == "drop alarm":
                self.claims.alarm_given_up(cell.id, event)
        return frame

    def _finish(self, original: Any, cell: Cell, frame: Any, job: Work, result: Any) -> None:
        self.finishing(cell, job)
        original(cell, frame, job, result)

    def _wrote(self, original: Any, cell: Cell, *, confirmed: bool) -> None:
        original(cell, confirmed=confirmed)
        self.wrote(cell, confirmed=confirmed)

    def _begin_write(self, original: Any, storage: Storage, *, confirmed: bool) -> None:
        original(storage, confirmed=confirmed)
        if confirmed and storage._transactions:
            self._in_transaction.add(storage._transactions[-1])

    def _commit(self, original: Any, storage: Any, transaction: Transaction) -> None:
        original(storage, transaction)
        if transaction in self._in_transaction and transaction.state == "committed":
            self._in_transaction.discard(transaction)
            if storage._transactions:
                self._in_transaction.add(storage._transactions[-1])
            else:
                self.wrote(storage._gate, confirmed=True)

    def _committed(self, original: Any, cell: Cell, batch: Any, error: Exception | None) -> None:
        if error is None:
            self.durable(cell, batch.sequence)
        original(cell, batch, error)

    def _emit(self, original: Any, cell: Cell, effect: Any, dropped: Any = None) -> None:
        original(cell, self.emission(cell, effect), dropped)

    def _break(self, original: Any, cell: Cell, error: Exception) -> None:
        self.gone(cell, f"{type(error).__name__}: {error}")
        original(cell, error)

    def _end(self, original: Any, cell: Cell) -> None:
        self.gone(cell, "evicted")
        original(cell)

    async def _run_alarm(self, original: Any, cell: Cell, info: AlarmInfo, *, armed: bool = False) -> None:
        if not armed and not cell.storage.alarm_is_due(info.scheduled_time):
            await original(cell, info)
            return
        self.alarm(cell, info, cell.services.platform.now())
        failed = True
        try:
            await original(cell, info, armed=armed)
            failed = False
        finally:
            self.alarm_over(cell, failed=failed)

    async def _outside(self, original: Any, cell: Cell, fn: Callable[..., Any], *args: Any) -> Any:
        seen = self._of(cell)
        if seen is None:
            return await original(cell, fn, *args)
        needed, since = seen.needed, seen.since

        async def watched(*args: Any) -> Any:
            self.left(cell, needed, since, "outside")
            return await fn(*args)

        return await original(cell, watched, *args)

    def _delete_alarm(self, original: Any, storage: Any) -> None:
        self.lets_alarm_go(storage._gate)
        original(storage)

    def _abort(self, original: Any, context: Context, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("retry_alarm") is False:
            self.lets_alarm_go(context._cell)
        original(context, *args, **kwargs)

    def _reserve_call(self, original: Any, container: Container) -> None:
        original(container)
        self._place(container)

    def _take(self, original: Any, job: CallJob) -> None:
        container = job._place
        original(job)
        if container is not None:
            self._place(container)

    def _place(self, container: Container) -> None:
        if self.life_of(container.keeper) is not None:
            self.claims.mailbox(container.id, container.calls, self.trace.count)

    def _call(self, original: Any, call: _StubCall, stub: Stub, name: str, *args: Any) -> None:
        original(call, stub, name, *args)
        event = self.trace.note("calls", "outside" if call.caller is None else actor_name(call.caller.cell), call.where)
        self.claims.call_made(stub, call, event)

    def _leave(self, original: Any, gate: InputGate) -> None:
        self.turn(gate.cell, gate, "", taken=False)
        original(gate)

    async def _park(self, original: Any, waiter: Waiter, abort: Any) -> Any:
        frame = waiter._frame
        try:
            return await original(waiter, abort)
        finally:
            if frame is not None and waiter._granted:
                self.turn(frame.cell, frame.gate.outermost_open(), frame.job.label, taken=True)

    def _send_all(self, original: Any, context: Context, *args: Any) -> None:
        cell = context._cell
        seen = self._of(cell)
        if seen is not None and cell.output.open:
            self.left(cell, seen.needed, seen.since, "sent to all")
        original(context, *args)

    def _done(self, original: Any, job: Any, result: Any) -> None:
        self.answers(job)
        if isinstance(job, _StubCall) and isinstance(result, Error) and isinstance(result.error, Overloaded):
            self.claims.call_refused(job, self.trace.count)
        original(job, result)


def actor_name(cell: Cell) -> str:
    """How an actor is called in the trace."""
    return f"{cell.id.namespace}/{cell.id.name or str(cell.id)[:8]}"


def _bind(original: Any, wrapper: Callable[..., Any]) -> Any:
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return wrapper(original, self, *args, **kwargs)

    return wrapped
