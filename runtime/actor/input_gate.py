"""The input gate: an actor has one turn, and it goes round first come, first served.

Who holds the turn runs. It is let go only in the runtime's own waits and at the end of a handler; what comes back from
a wait (a reply, a timer) queues in the same FIFO as new events. Order is data here: one deque, one holder, and trio's
scheduler never chooses, because at most one task of an actor is ever runnable through its gate.

A critical section gets a gate of its own below the one it was started in. The outer turn stays taken while it runs,
so nothing from outside gets in; what the section itself waits for comes back through the inner gate.
(Durable Objects: input gates and `blockConcurrencyWhile`.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import trio

from runtime.actor.result import DONE, Error, Result
from runtime.meter import Meter

if TYPE_CHECKING:
    from runtime.actor.cell import Cell
    from runtime.actor.due_timers import DueTimers
    from runtime.actor.frame import Frame

_LAST = Meter.TURNS - 1


class Work:
    """An event that has not run yet: what to run with the turn, and whom to tell how it ended.

    `done` is called once: through the output gate when the handler ended (at once for a job that is not `gated`,
    because it stays inside the actor), at once when the instance broke. Errors of a job that nobody waits for
    (`logs`) are logged by the cell. After `timeout_s` seconds it is cut off: that is an error of this event, not the
    end of the instance. `caller` is the handler that waits for it, if any. `gate` is where it was given the turn.
    """

    __slots__ = ("gate", "result")

    gate: InputGate
    result: Result  # how it ended, while that is held by the output gate
    caller: Frame | None = None
    gated: bool = True
    logs: bool = False
    timeout_s: float | None = None

    @property
    def label(self) -> str:
        """What it is called in logs and errors."""
        raise NotImplementedError

    def never_waits(self, actor: Any) -> bool:
        """What `run` returns is a coroutine that is known to run to its end without a wait."""
        return False

    def queue_again(self, cell: Cell) -> bool:
        """Its turn has come, and others wait behind it: whether it lets them go first, once."""
        return False

    def run(self, actor: Any) -> Awaitable[Any]:
        """Begin; what is returned is awaited with the turn."""
        raise NotImplementedError

    def carry(self, value: Any) -> Any:
        """The value of the handler as it leaves the actor; still with the turn."""
        return value

    def explain(self, error: Exception) -> Exception:
        """The error of the handler, or of `carry`, as it leaves the actor."""
        return error

    def take(self) -> None:
        """It leaves the mailbox: it runs now, or never will."""

    def done(self, result: Result) -> None:
        """Tell the one who waits; only the first call counts."""

    def leave(self) -> None:
        """The output gate lets the held result out."""
        self.done(self.result)

    def dropped(self, error: Exception) -> None:
        """The held result never leaves."""
        self.done(Error(error))


class Job(Work):
    """A job made of functions; `logs` by default when there is no `done`."""

    __slots__ = ("_done", "_label", "_run", "_taken", "gated", "logs", "timeout_s")

    def __init__(
        self,
        label: str,
        run: Callable[[Any], Awaitable[Any]],
        done: Callable[[Result], None] | None = None,
        *,
        taken: Callable[[], None] | None = None,
        logs: bool | None = None,
        gated: bool = True,
        timeout_s: float | None = None,
    ) -> None:
        self._label = label
        self._run = run
        self._taken = taken
        self._done = done
        self.logs = done is None if logs is None else logs
        self.gated = gated
        self.timeout_s = timeout_s

    @property
    def label(self) -> str:
        """What it is called in logs and errors."""
        return self._label

    def run(self, actor: Any) -> Awaitable[Any]:
        """Begin."""
        return self._run(actor)

    def take(self) -> None:
        """It leaves the mailbox."""
        taken, self._taken = self._taken, None
        if taken is not None:
            taken()

    def done(self, result: Result) -> None:
        """Tell the one who waits."""
        done, self._done = self._done, None
        if done is not None:
            done(result)


class Waiter:
    """A handler (or a task of nobody's) that is in a wait: it runs on when it has been granted the turn again."""

    __slots__ = ("_disarm", "_frame", "_granted", "_parked", "_result", "_task")

    def __init__(self, frame: Frame | None) -> None:
        self._frame = frame
        self._task = trio.lowlevel.current_task() if frame is None else frame.task
        self._result: Result | None = None
        self._disarm: Callable[[], None] | None = None
        self._granted = False
        self._parked = False

    def wake(self, result: Result) -> None:
        """Queue for the turn with the result of the wait; later calls are ignored."""
        if self._result is None:
            assert self._frame is not None
            self._result = result
            self._frame.gate.enter(self)

    def wake_first(self, queue: deque[Entry]) -> None:
        """Queue for the turn before everybody else."""
        assert self._result is None
        self._result = DONE
        queue.appendleft(self)

    def grant(self) -> bool:
        """It has the turn, and takes it."""
        self._granted = True
        if self._parked:
            trio.lowlevel.reschedule(self._task)
        return True

    def resume(self, result: Result) -> None:
        """Give it the turn that somebody already holds on its behalf."""
        assert self._result is None
        self._result = result
        self.grant()

    async def wait(self, arm: Callable[[Callable[[Result], None]], Callable[[], None] | None]) -> Any:
        """Let the turn go until `arm`'s argument is called, then queue for it and return the result."""
        assert self._frame is not None
        gate = self._frame.gate.outermost_open()
        self._disarm = arm(self.wake)
        gate.leave()
        workers = self._frame.cell.services.workers
        while not self._granted and workers.run_at_once():
            pass
        return await self.park(self._stop)

    def _stop(self, raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        # A cancelled wait also comes back through the queue.
        assert self._frame is not None
        if self._disarm is not None:
            self._disarm()
        if self._frame.cell.broken is not None:
            return trio.lowlevel.Abort.SUCCEEDED
        self.wake(Error.of(raise_cancel))
        return trio.lowlevel.Abort.FAILED

    async def park(self, abort: Callable[[trio.lowlevel.RaiseCancelT], trio.lowlevel.Abort]) -> Any:
        """Wait for the grant and return the wait's result."""
        if not self._granted:
            self._parked = True
            self._task.custom_sleep_data = self  # says that this is no foreign wait
            await trio.lowlevel.wait_task_rescheduled(abort)
        assert self._result is not None
        return self._result.unwrap()


class Arrival:
    """A reply that came before anybody awaited it: it has its place in the queue, like every other.

    Attributes:
        arrived: its place was reached; awaiting it is no wait any more.
        waiter: who awaits it meanwhile.
    """

    __slots__ = ("arrived", "gate", "waiter")

    def __init__(self, gate: InputGate) -> None:
        self.gate = gate
        self.arrived = False
        self.waiter: Waiter | None = None

    def grant(self) -> bool:
        """Its place is reached; whether somebody takes the turn."""
        self.arrived = True
        if self.waiter is None:
            return False
        self.waiter.resume(DONE)
        return True


Entry = Work | Waiter | Arrival


class Section(Protocol):
    """A critical section that waits for the turn to be let go."""

    def begin(self) -> None:
        """Run now; the turn is its own until it ends."""
        ...


class InputGate:
    """One turn and its FIFO.

    Args:
        cell: whose turn it is; it starts a job that has been given the turn.
        parent: the gate whose turn is kept meanwhile (critical sections).

    Attributes:
        due: its timers that are due and have not had their turn; None when there are none.
    """

    __slots__ = ("_began", "_next", "_queue", "_sections", "cell", "closed", "depth", "due", "held", "parent", "turns")

    def __init__(self, cell: Cell, parent: InputGate | None = None) -> None:
        self.cell = cell
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.closed = False
        self.held = False
        meter = cell.services.platform.meter
        self.turns = 0 if meter is None else meter.first_turn()  # and how often it was let go
        self._began = 0.0  # of a turn that is measured
        self.due: DueTimers | None = None
        # None while empty: most actors are idle most of the time.
        self._next: deque[Entry] | None = None  # goes before sections and queue
        self._queue: deque[Entry] | None = None
        self._sections: deque[Section] | None = None

    def __len__(self) -> int:
        return 0 if self._queue is None else len(self._queue)

    def enter(self, entry: Entry) -> None:
        """Take the turn when it is free, else queue for it."""
        gate = self.outermost_open() if self.closed else self
        if gate.held:
            if gate._queue is None:
                gate._queue = deque()
            gate._queue.append(entry)
        else:
            gate.held = True
            if not gate.turns & _LAST:
                gate._began = trio.current_time()
            if isinstance(entry, Work):
                gate.cell.start_job(gate, entry)
            elif not entry.grant():
                gate.held = False

    def leave(self) -> None:
        """Let the turn go: to a section that waits, else to the first in the queue."""
        assert self.held, "the turn was let go twice"
        self.turns = turns = self.turns + 1
        if turns & _LAST < 2:  # the next one is measured, or this one was
            self._measure(turns & _LAST)
        while self._next:
            entry = self._next.popleft()
            if self._give(entry):
                return
        if self._sections:
            self._sections.popleft().begin()
            return
        while self._queue:
            entry = self._queue.popleft()
            if isinstance(entry, Work) and self._queue and entry.queue_again(self.cell):
                self._queue.append(entry)
                continue
            if self._give(entry):
                return
        self._next = self._queue = None
        self.held = False

    def _measure(self, ended: int) -> None:
        now = trio.current_time()
        meter = self.cell.services.platform.meter
        if ended and meter is not None:
            meter.turn(self.cell.actor_class.__name__, now - self._began, len(self))
        self._began = now  # of the next one, if it begins at once

    def _give(self, entry: Entry) -> bool:
        if not isinstance(entry, Work):
            return entry.grant()
        self.cell.start_job(self, entry)
        return True

    def leave_and_be_next(self, waiter: Waiter) -> None:
        """Let the turn go to the sections that wait; the waiter has it after them, before everything in the queue."""
        if self._queue is None:
            self._queue = deque()
        waiter.wake_first(self._queue)
        self.leave()

    @property
    def sections_wait(self) -> bool:
        """Somebody asked for a critical section that has not begun."""
        return bool(self._sections)

    def add_section(self, section: Section) -> None:
        """A section goes before everything that waits, as soon as the holder lets the turn go."""
        if self._sections is None:
            self._sections = deque()
        self._sections.append(section)

    def close(self) -> InputGate:
        """End of a section's gate: what still waits here waits in the outer gate from now on, which is returned.

        The first of it has been given the turn that the section let go, and goes before everything there.
        (Durable Objects: the lock of a section's last turn is released before the section has ended.)
        """
        assert self.parent is not None
        self.closed = True
        outer = self.parent.outermost_open()
        if not self._next and self._queue:
            self._next = deque((self._queue.popleft(),))
        if self._next:
            outer._next = outer._next or deque()
            outer._next.extend(self._next)
        if self._queue:
            outer._queue = outer._queue or deque()
            outer._queue.extend(self._queue)
        if self._sections:
            outer._sections = outer._sections or deque()
            outer._sections.extend(self._sections)
        if self.due is not None:
            if outer.due is None:
                outer.due = self.due
            else:
                outer.due.join(self.due)
        self._next = self._queue = self._sections = self.due = None
        return outer

    def outermost_open(self) -> InputGate:
        """This gate, or the nearest enclosing one whose section has not ended."""
        gate = self
        while gate.closed and gate.parent is not None:
            gate = gate.parent
        return gate

    def drain(self) -> list[Work]:
        """Take every job that has not begun (the instance is broken)."""
        jobs = [entry for entry in (*(self._next or ()), *(self._queue or ())) if isinstance(entry, Work)]
        self._next = self._queue = self._sections = None
        return jobs


async def plain_wait(arm: Callable[[Callable[[Result], None]], Any]) -> Any:
    """The wait of a task that holds no turn: a route, a test, or a handler that is outside."""
    waiter = Waiter(None)
    results: list[Result] = []

    def wake(result: Result) -> None:
        if not results:
            results.append(result)
            waiter.resume(result)

    disarm = arm(wake)

    def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        if results:
            return trio.lowlevel.Abort.FAILED
        results.append(DONE)
        if disarm is not None:
            disarm()
        return trio.lowlevel.Abort.SUCCEEDED

    return await waiter.park(abort)
