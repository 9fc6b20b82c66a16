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

import outcome
import trio

if TYPE_CHECKING:
    from runtime.actor.frame import Frame

Result = outcome.Outcome[Any]


class Job:
    """An event that has not run yet: what to run with the turn, and whom to tell how it ended.

    `done` is called once: through the output gate when the handler ended (at once for a job that is not `gated`,
    because it stays inside the actor), at once when the instance broke. Errors of a job that nobody waits for
    (`logs`, by default those without `done`) are logged by the cell. After `timeout_s` seconds it is cut off: that is
    an error of this event, not the end of the instance. `caller` is the handler that waits for it, if any.
    """

    __slots__ = ("_done", "_taken", "caller", "gated", "label", "logs", "run", "timeout_s")

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
        caller: Frame | None = None,
    ) -> None:
        self.label = label
        self.run = run
        self._taken = taken
        self.logs = done is None if logs is None else logs
        self.gated = gated
        self.timeout_s = timeout_s
        self.caller = caller
        self._done = done

    def take(self) -> None:
        """It leaves the mailbox: it runs now, or never will."""
        taken, self._taken = self._taken, None
        if taken is not None:
            taken()

    def done(self, result: Result) -> None:
        """Tell the one who waits; only the first call counts."""
        done, self._done = self._done, None
        if done is not None:
            done(result)


class Waiter:
    """A handler that is in a wait: it runs on when it has been granted the turn again."""

    __slots__ = ("_granted", "_parked", "_result", "_task")

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self._task = task
        self._result: Result | None = None
        self._granted = False
        self._parked = False

    def wake(self, gate: InputGate, result: Result) -> None:
        """Queue for the turn with the result of the wait; later calls are ignored."""
        if self._result is None:
            self._result = result
            gate.enter(self)

    def wake_first(self, queue: deque[Entry]) -> None:
        """Queue for the turn before everybody else."""
        assert self._result is None
        self._result = outcome.Value(None)
        queue.appendleft(self)

    def grant(self) -> bool:
        """It has the turn, and takes it."""
        self._granted = True
        if self._parked:
            assert self._result is not None
            trio.lowlevel.reschedule(self._task, self._result)
        return True

    def resume(self, result: Result) -> None:
        """Give it the turn that somebody already holds on its behalf."""
        assert self._result is None
        self._result = result
        self.grant()

    async def park(self, abort: Callable[[trio.lowlevel.RaiseCancelT], trio.lowlevel.Abort]) -> Any:
        """Wait for the grant and return the wait's result."""
        if self._granted:
            assert self._result is not None
            return self._result.unwrap()
        self._parked = True
        self._task.custom_sleep_data = self  # says that this is no foreign wait
        return await trio.lowlevel.wait_task_rescheduled(abort)


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
        self.waiter.resume(outcome.Value(None))
        return True


Entry = Job | Waiter | Arrival


class Section(Protocol):
    """A critical section that waits for the turn to be let go."""

    def begin(self) -> None:
        """Run now; the turn is its own until it ends."""
        ...


class InputGate:
    """One turn and its FIFO.

    Args:
        start: runs a job in a task, with this gate's turn already taken for it.
        parent: the gate whose turn is kept meanwhile (critical sections).
    """

    __slots__ = ("_queue", "_sections", "_start", "closed", "depth", "held", "parent", "turns")

    def __init__(
        self,
        start: Callable[[InputGate, Job], None],
        parent: InputGate | None = None,
    ) -> None:
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.closed = False
        self.held = False
        self.turns = 0  # how often it was let go
        self._start = start
        self._queue: deque[Entry] = deque()
        self._sections: deque[Section] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def enter(self, entry: Entry) -> None:
        """Take the turn when it is free, else queue for it."""
        gate = self.outermost_open()
        if gate.held:
            gate._queue.append(entry)
        else:
            gate.held = True
            if isinstance(entry, Job):
                gate._start(gate, entry)
            elif not entry.grant():
                gate.held = False

    def leave(self) -> None:
        """Let the turn go: to a section that waits, else to the first in the queue."""
        job = self.leave_for_job()
        if job is not None:
            self._start(self, job)

    def leave_for_job(self) -> Job | None:
        """As `leave`, but a job that is next is returned with the turn, to be run by the caller's own task."""
        assert self.held, "the turn was let go twice"
        self.turns += 1
        if self._sections:
            self._sections.popleft().begin()
            return None
        while self._queue:
            entry = self._queue.popleft()
            if isinstance(entry, Job):
                return entry
            if entry.grant():
                return None
        self.held = False
        return None

    def leave_and_be_next(self, waiter: Waiter) -> None:
        """Let the turn go to the sections that wait; the waiter has it after them, before everything in the queue."""
        waiter.wake_first(self._queue)
        self.leave()

    @property
    def sections_wait(self) -> bool:
        """Somebody asked for a critical section that has not begun."""
        return bool(self._sections)

    def add_section(self, section: Section) -> None:
        """A section goes before everything that waits, as soon as the holder lets the turn go."""
        self._sections.append(section)

    def close(self) -> InputGate:
        """End of a section's gate: what still waits here waits in the outer gate from now on, which is returned."""
        assert self.parent is not None
        self.closed = True
        outer = self.parent.outermost_open()
        outer._queue.extend(self._queue)
        outer._sections.extend(self._sections)
        self._queue.clear()
        self._sections.clear()
        return outer

    def outermost_open(self) -> InputGate:
        """This gate, or the nearest enclosing one whose section has not ended."""
        gate = self
        while gate.closed and gate.parent is not None:
            gate = gate.parent
        return gate

    def drain(self) -> list[Job]:
        """Take every job that has not begun (the instance is broken)."""
        jobs = [entry for entry in self._queue if isinstance(entry, Job)]
        self._queue.clear()
        self._sections.clear()
        return jobs


async def plain_wait(arm: Callable[[Callable[[Result], None]], Any]) -> Any:
    """The wait of a task that holds no turn: a route, a test, or a handler that is outside."""
    task = trio.lowlevel.current_task()
    waiter = Waiter(task)
    results: list[Result] = []

    def wake(result: Result) -> None:
        if not results:
            results.append(result)
            waiter.resume(result)

    disarm = arm(wake)

    def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        if results:
            return trio.lowlevel.Abort.FAILED
        results.append(outcome.Value(None))
        if disarm is not None:
            disarm()
        return trio.lowlevel.Abort.SUCCEEDED

    return await waiter.park(abort)
