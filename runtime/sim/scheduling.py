"""Trio made repeatable: the order of tasks from a seed, a step counter, and an end to runs that would never end.

It uses private names of Trio; `check_private_names` says at the start of every run when one of them is gone.
"""

from __future__ import annotations

import gc
import math
import os
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import trio
import trio._core._run as trio_run
from trio.lowlevel import Task

from runtime.errors import ActorError

_SILENT_MAX = 20


class SchedulerUnknown(ActorError):
    """This version of Trio has other insides than the simulator knows."""


def check_private_names() -> None:
    """Raises: SchedulerUnknown: Trio has changed."""
    known = (
        isinstance(getattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", None), bool),
        isinstance(getattr(trio_run, "_r", None), random.Random),
        hasattr(Task, "_counter"),
        hasattr(trio_run, "GLOBAL_RUN_CONTEXT"),
        hasattr(trio_run.Deadlines, "next_deadline"),
    )
    if not all(known):
        raise SchedulerUnknown(
            f"Trio {trio.__version__} has no _ALLOW_DETERMINISTIC_SCHEDULING, _r, Task._counter or "
            "Deadlines.next_deadline any more, without which a run cannot be repeated; use the version that this "
            "release was tested with"
        )


class Shuffle(random.Random):
    """The order of the tasks that are ready at the same time: any, from the seed."""


class Delaying(random.Random):
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


@contextmanager
def repeatable(seed: str, order: random.Random) -> Generator[None, None, None]:
    """While the block runs, what Trio, `random` and `os.urandom` choose follows from the seed."""
    check_private_names()
    private: Any = trio_run
    system: Any = os
    flag, shuffler, urandom = private._ALLOW_DETERMINISTIC_SCHEDULING, private._r, system.urandom
    state, collecting = random.getstate(), gc.isenabled()
    bytes_of = random.Random(f"{seed}/urandom").randbytes  # noqa: S311 -- reproducible on purpose
    gc.disable()
    gc.freeze()  # what is there already is looked at by none of the collections between runs
    private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = True, order
    system.urandom = bytes_of  # masks of WebSocket frames
    random.seed(f"{seed}/random")
    try:
        yield
    finally:
        private._ALLOW_DETERMINISTIC_SCHEDULING, private._r = flag, shuffler
        system.urandom = urandom
        random.setstate(state)
        gc.unfreeze()
        if collecting:
            gc.enable()


class Watch(trio.abc.Instrument):
    """Counts steps of tasks, acts before a chosen one, and ends a run that cannot end by itself.

    Args:
        steps_max: a run with more is going round in circles.
        stop: ends the run.

    Attributes:
        steps: how many there were.
        until: the trio time at which the run must have ended. stuck: why it ended the run, if it did.
    """

    def __init__(self, steps_max: int, stop: Callable[[], None]) -> None:
        self.steps = 0
        self.until = math.inf
        self.stuck: str | None = None
        self._steps_max = steps_max
        self._stop = stop
        self._then: dict[int, list[Callable[[], None]]] = {}
        self._silent = 0

    def call_before_step(self, steps: int, fn: Callable[[], None]) -> None:
        """Call `fn` right before a task's step, so many steps from now; it must not raise."""
        self._then.setdefault(self.steps + max(steps, 1), []).append(fn)

    def before_task_step(self, task: Task) -> None:
        """A task runs on."""
        self.steps += 1
        self._silent = 0
        if self._then:
            for fn in self._then.pop(self.steps, ()):
                fn()
        if self.steps == self._steps_max:
            self._end(f"{self.steps:,} steps of tasks, more than a run may have; something goes round in circles")

    def before_io_wait(self, timeout: float) -> None:
        """Nothing is ready; when nothing ever will be, say who waits for what."""
        private: Any = trio_run
        runner = private.GLOBAL_RUN_CONTEXT.runner
        if runner.runq or runner.waiting_for_idle:
            return
        following = runner.deadlines.next_deadline()
        if following < math.inf:
            if following > self.until:
                self._end(f"not finished in time:\n  {self._waiting(runner)}")
            return
        self._silent += 1
        if self._silent == _SILENT_MAX:
            # Cancelled, and yet it waits: only an error of Trio's own ends that.
            self.stuck = f"{self.stuck}\n  and cancelled:\n  {self._waiting(runner)}"
            runner.clock._autojump = _give_up
        if self._silent == 2:
            self._end(f"every task waits, and nothing will ever wake one:\n  {self._waiting(runner)}")

    def _waiting(self, runner: Any) -> str:
        return "\n  ".join(_waits(runner.main_task))

    def _end(self, why: str) -> None:
        if self.stuck is None:
            self.stuck = why
            self._stop()


def _give_up() -> None:
    raise RuntimeError("the simulation does not end")


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
