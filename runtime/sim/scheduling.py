"""Trio made repeatable: the order of tasks from a seed, a step counter, and an end to runs that would never end.

It uses private names of Trio; `check_private_names` says at the start of every run when one of them is gone.
"""

from __future__ import annotations

import gc
import heapq
import math
import os
import random
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, Final

import attrs
import trio
import trio._core._run as trio_run
from trio.lowlevel import Task

from runtime.errors import ActorError

_SILENT_MAX = 20
_IDLE_FIRST_S = 1.0  # whoever waits until all tasks are blocked waits for less, and goes first


class SchedulerUnknown(ActorError):
    """This version of Trio has other insides than the simulator knows."""


def check_private_names() -> None:
    """Raises: SchedulerUnknown: Trio has changed."""
    known = (
        isinstance(getattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", None), bool),
        isinstance(getattr(trio_run, "_r", None), random.Random),
        hasattr(Task, "_counter"),
        hasattr(trio_run, "GLOBAL_RUN_CONTEXT"),
        hasattr(trio_run.Runner, "waiting_for_idle"),
    )
    if not all(known):
        raise SchedulerUnknown(
            f"Trio {trio.__version__} has no _ALLOW_DETERMINISTIC_SCHEDULING, _r, Task._counter or "
            "Runner.waiting_for_idle any more, without which a run cannot be repeated; use the version that this "
            "release was tested with"
        )


class TaskOrder(random.Random):
    """Decides which of the tasks that are ready runs next, and counts their steps.

    Attributes:
        steps: of tasks that were given a place. steps_max: with so many, `exceeded` is called, once.
    """

    steps = 0
    steps_max: float = math.inf

    def exceeded(self) -> None:
        """There were `steps_max`; to be replaced."""

    def count(self, steps: int) -> None:
        """So many tasks run next."""
        self.steps += steps
        if self.steps >= self.steps_max:
            self.steps_max = math.inf
            self.exceeded()


class Shuffle(TaskOrder):
    """The order of the tasks that are ready at the same time: any, from the seed."""

    def shuffle(self, x: Any) -> None:
        """Order the ready tasks; Trio asks before each of its rounds, often with none."""
        self.count(len(x))
        if len(x) > 1:
            super().shuffle(x)


class Delaying(Shuffle):
    """The same, but a few tasks are always last for a while.

    Some mistakes need one task to be late many times in a row, which a fair shuffle next to never does. (Burckhardt
    and others, "A randomized scheduler with probabilistic guarantees of finding bugs", 2010.)

    Args:
        seed: of the order.
        changes: how often in a run another task becomes the late one.
    """

    def __init__(self, seed: str, changes: int = 8) -> None:
        super().__init__(seed)
        self._late: Task | None = None
        self._batches = 0
        self._period = 2 ** (12 - min(changes, 10))

    def shuffle(self, x: Any) -> None:
        """Order the ready tasks; they run from the end of the list."""
        super().shuffle(x)
        self._batches += 1
        if len(x) > 1:
            if self._late is None or self._batches % self._period == 0:
                self._late = x[int(self.random() * len(x))]
            for at, task in enumerate(x):
                if task is self._late:
                    x[0], x[at] = x[at], x[0]
                    break


class Priorities(TaskOrder):
    """One task at a time: the ready one with the highest priority, which is drawn when it is first seen.

    At a few steps of the run, drawn beforehand, the task that is to run next falls behind all others. A mistake that
    needs n things to happen in one order is found with a probability that has a bound, 1 in (tasks x steps^(n-1)), by
    n-1 such steps. (Burckhardt and others, "A randomized scheduler with probabilistic guarantees of finding bugs",
    2010: PCT.) A task that runs on and on falls behind as well, because the paper's programs wait by blocking.

    Args:
        seed: of the order.
        changes: how many such steps there are.
        steps: among how many they are drawn.
    """

    GREEDY = 200  # steps in a row

    def __init__(self, seed: str, changes: int = 3, steps: int = 20_000) -> None:
        super().__init__(seed)
        self._changes = sorted(self.randrange(1, steps) for _ in range(changes))
        self._priorities: dict[Task, float] = {}
        self._lowest = 0.0
        self._last: Task | None = None
        self._in_a_row = 0

    def shuffle(self, x: Any) -> None:
        """Leave the one that runs next; the others come back with the next batch."""
        if not x:
            return
        priorities = self._priorities
        for task in x:
            if task not in priorities:
                priorities[task] = self.random()
        chosen = max(x, key=priorities.__getitem__)
        self.count(1)
        self._in_a_row = self._in_a_row + 1 if chosen is self._last else 1
        due = bool(self._changes) and self._changes[0] <= self.steps
        if due or (self._in_a_row > self.GREEDY and len(x) > 1):
            if due:
                self._changes.pop(0)
            self._lowest -= 1.0
            priorities[chosen] = self._lowest
            chosen = max(x, key=priorities.__getitem__)
            self._in_a_row = 1
        self._last = chosen
        if len(x) > 1:
            private: Any = trio_run
            private.GLOBAL_RUN_CONTEXT.runner.runq.extend(task for task in x if task is not chosen)
            x[:] = [chosen]


ORDERS: Final[Mapping[str, Callable[[str], TaskOrder]]] = {
    "shuffle": Shuffle,
    "delaying": Delaying,
    "pct": Priorities,
}
"""Every strategy by its name."""


def drawn_order(seed: int) -> str:
    """The name of the strategy of a run that asks for none: every second shuffles."""
    return random.Random(f"{seed}/strategy").choice(("shuffle", "shuffle", "delaying", "pct"))  # noqa: S311 -- repeats


@contextmanager
def repeatable(seed: str, order: random.Random) -> Generator[None, None, None]:
    """While the block runs, what Trio, `random` and `os.urandom` choose follows from the seed."""
    check_private_names()
    private: Any = trio_run
    system: Any = os
    flag, shuffler, urandom = private._ALLOW_DETERMINISTIC_SCHEDULING, private._r, system.urandom
    state = random.getstate()
    bytes_of = random.Random(f"{seed}/urandom").randbytes  # noqa: S311 -- reproducible on purpose
    private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = True, order
    system.urandom = bytes_of  # masks of WebSocket frames
    random.seed(f"{seed}/random")
    try:
        yield
    finally:
        private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = flag, shuffler
        system.urandom = urandom
        random.setstate(state)


@contextmanager
def uncollected() -> Generator[None, None, None]:
    """While the block runs no garbage is collected by chance; after it, what the block made and nobody holds is.

    What was there before is not looked at, which would take longer than many a run.
    """
    collecting = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        if collecting:
            gc.enable()


class VirtualClock(trio.abc.Clock):
    """Time that passes only when no task is ready, and then at once up to the next deadline.

    It also ends runs that cannot end by themselves: Trio asks it how long to sleep exactly when nothing is ready.
    (`trio.testing.MockClock` needs one more round of Trio's loop for each jump, and a look at all statistics.)

    Args:
        order: counts the steps.
        steps_max: a run with more is going round in circles.
        stop: ends the run.

    Attributes:
        now: virtual seconds since the run began.
        until: the time at which the run must have ended. stuck: why it ended the run, if it did.
    """

    def __init__(self, order: TaskOrder, steps_max: int, stop: Callable[[], None]) -> None:
        self.now = 0.0
        self.until = math.inf
        self.stuck: str | None = None
        self._order = order
        self._stop = stop
        order.steps_max = steps_max
        order.exceeded = lambda: self._end(  # type: ignore[method-assign]
            f"{steps_max:,} steps of tasks, more than a run may have; something goes round in circles"
        )
        self._silent = 0
        self._steps_seen = 0
        self._due: list[tuple[float, int]] = []  # a heap: when, and the number of what
        self._calls: dict[int, Callable[[], object]] = {}
        self._numbers = count()

    def start_clock(self) -> None:
        """It needs no start."""

    def current_time(self) -> float:
        """Virtual seconds since the run began."""
        return self.now

    async def sleep(self, seconds: float, *, shielded: bool = False) -> None:
        """`trio.sleep` without a cancel scope, which takes five times as long: a run has thousands of them.

        Args:
            shielded: to the end, whatever is cancelled.
        """
        number = self._call_after(seconds, partial(trio.lowlevel.reschedule, trio.lowlevel.current_task()))

        def abort(_: Any) -> trio.lowlevel.Abort:
            if shielded:
                return trio.lowlevel.Abort.FAILED
            del self._calls[number]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def call_after(self, seconds: float, fn: Callable[[], object]) -> None:
        """Call a function, which must be short and not raise."""
        self._call_after(seconds, fn)

    def _call_after(self, seconds: float, fn: Callable[[], object]) -> int:
        number = next(self._numbers)
        self._calls[number] = fn
        heapq.heappush(self._due, (self.now + seconds, number))
        return number

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Nothing is ready: jump to the next deadline; when there is none, say who waits for what."""
        private: Any = trio_run
        runner = private.GLOBAL_RUN_CONTEXT.runner
        if runner.waiting_for_idle:
            return _IDLE_FIRST_S
        deadline = min(deadline, self._next_call())
        if deadline < math.inf:
            if deadline > self.until and self.stuck is None:
                self._end(f"not finished in time:\n  {_waiting(runner)}")
            else:
                self.now = max(self.now, deadline)
                self._call_due()
            return 0
        if self._order.steps != self._steps_seen:
            self._steps_seen = self._order.steps
            self._silent = 0
        self._silent += 1
        if self._silent == 2:
            self._end(f"every task waits, and nothing will ever wake one:\n  {_waiting(runner)}")
        if self._silent == _SILENT_MAX:
            # Cancelled, and yet it waits: only an error of Trio's own ends that.
            self.stuck = f"{self.stuck}\n  and cancelled:\n  {_waiting(runner)}"
            raise RuntimeError("the simulation does not end")
        return 0

    def _next_call(self) -> float:
        while self._due and self._due[0][1] not in self._calls:  # its task was cancelled
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else math.inf

    def _call_due(self) -> None:
        while self._due and self._due[0][0] <= self.now:
            fn = self._calls.pop(heapq.heappop(self._due)[1], None)
            if fn is not None:
                fn()

    def _end(self, why: str) -> None:
        if self.stuck is None:
            self.stuck = why
            self._stop()


def call_before_step(steps: int, fn: Callable[[], None]) -> None:
    """Call `fn` right before a task's step, so many steps from now; it must not raise."""
    trio.lowlevel.add_instrument(_Countdown(max(steps, 1), fn))


@attrs.define(eq=False)
class _Countdown(trio.abc.Instrument):
    """Is there only while it counts, because asking before every step costs a run a tenth of its time."""

    _left: int
    _fn: Callable[[], None]

    def before_task_step(self, task: Task) -> None:
        """A task runs on."""
        self._left -= 1
        if self._left == 0:
            trio.lowlevel.remove_instrument(self)
            self._fn()


def _waiting(runner: Any) -> str:
    return "\n  ".join(_waits(runner.main_task))


def _waits(root: Task | None) -> list[str]:
    found: list[str] = []
    tasks = [root] if root is not None else []
    while tasks:
        task = tasks.pop()
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        frames = [(frame, line) for frame, line in task.iter_await_frames() if "/trio/" not in frame.f_code.co_filename]
        where = [f"{frame.f_code.co_qualname}:{line}" for frame, line in frames[-2:]]
        found.append(f"{task.name.rpartition('.')[2]} in {' > '.join(where)}")
    return sorted(found)
