"""The tasks that run handlers: a few, used again and again, so that neither an idle actor nor an event costs a task.

An event that has been given its actor's turn is ready; ready events run first come, first served. Events of actors
that have to be constructed first wait apart, the namespaces taking turns, so that a storm of activations delays
nobody who is in memory by more than one construction.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import trio

from runtime.actor.frame import Frame, current_frame
from runtime.actor.input_gate import Work

IDLE_WORKERS = 64  # kept; more of them end
STEP_S = 0.0005  # of the loop at a time, while events wait
STEP_EVENTS = 100
READY_PER_ACTIVATION = 16
AT_ONCE = 32  # events in a row that others' tasks run, before the loop gets its turn


class Worker:
    """A task that runs handlers, and the one it runs now.

    Attributes:
        scope: cancelled when the instance that it works for is destroyed; it ends then.
    """

    __slots__ = ("frame", "scope", "task")

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.scope = trio.CancelScope()
        self.frame: Frame | None = None


class Workers:
    """The tasks of one server that run handlers.

    While an event is ready, a worker is running events or has been woken to do so: a handler that waits, for whatever
    it may be, never keeps the others waiting.

    Args:
        start_soon: starts a task in the server's nursery of actors.
        woken: is told that there is something to do.
        rest: is told that the events that were there have run.
    """

    def __init__(self, start_soon: Callable[..., None], woken: Callable[[], None], rest: Callable[[], None]) -> None:
        self._start_soon = start_soon
        self._woken = woken
        self.rest = rest
        self._context = contextvars.copy_context()  # what every handler begins with, whoever made the worker start
        self._ready: deque[Work] = deque()
        self._asleep: dict[str, deque[Work]] = {}  # by namespace, the one whose turn is next first
        self._ready_in_row = 0
        self._workers: dict[Worker, None] = {}
        self._idle: list[Worker] = []
        self._coming = False  # a worker was woken and does not run yet
        self._attended = False  # a worker is between two events
        self._at_once = 0

    def start_soon(self, fn: Callable[..., Any], *args: Any) -> None:
        """Start a task of the runtime's own that ends with the server's actors."""
        self._context.run(self._start_soon, fn, *args)

    def start(self, job: Work) -> None:
        """Run a job that has been given its gate's turn."""
        cell = job.gate.cell
        if cell.actor is not None:
            self._ready.append(job)
        else:
            self._asleep.setdefault(cell.id.namespace, deque()).append(job)
        if not self._attended and not self._coming:
            self._wake()

    def attend(self, deliver: Callable[[Work], None], job: Work) -> None:
        """Deliver an event in a task of somebody else's, and run it there if it is its turn and it never waits."""
        attended, self._attended = self._attended, True
        try:
            deliver(job)
            if self._ready and self._ready[0] is job:
                self.run_at_once()
        finally:
            self._attended = attended
            if not attended and not self._coming and (self._ready or self._asleep):
                self._wake()

    def run_at_once(self) -> bool:
        """Run the next event on the stack of a task that is about to wait, if it is ready and known never to wait.

        It spares two turns of the loop where one asks and another has the answer. After some in a row it refuses, so
        that the loop gets its turn.
        """
        if not self._ready or self._at_once >= AT_ONCE:
            return False
        job = self._ready[0]
        if not job.never_waits(job.gate.cell.actor):
            return False
        self._ready.popleft()
        self._at_once += 1
        self._context.copy().run(self._run_at_once, job)
        return True

    def _run_at_once(self, job: Work) -> None:
        cell = job.gate.cell
        frame = cell.begin(job, trio.lowlevel.current_task(), None)
        if frame is not None:
            current_frame.set(frame)
            cell.finish(frame, cell.run_at_once(frame))

    def frames(self) -> Iterator[Frame]:
        """The handlers that run or wait in tasks of their own."""
        for worker in list(self._workers):
            if worker.frame is not None:
                yield worker.frame

    def _wake(self) -> None:
        self._coming = True
        self._woken()
        if self._idle:
            trio.lowlevel.reschedule(self._idle.pop().task)
        else:
            self._context.run(self._start_soon, self._work)

    def _next(self) -> Work | None:
        if self._asleep and (not self._ready or self._ready_in_row >= READY_PER_ACTIVATION):
            self._ready_in_row = 0
            namespace = next(iter(self._asleep))
            jobs = self._asleep.pop(namespace)
            job = jobs.popleft()
            if jobs:
                self._asleep[namespace] = jobs
            return job
        if self._ready:
            self._ready_in_row += 1
            return self._ready.popleft()
        return None

    async def _work(self) -> None:
        worker = Worker()
        self._workers[worker] = None
        try:
            with worker.scope:
                await self._run_events(worker)
        finally:
            del self._workers[worker]
            current_frame.set(None)  # it knows the task, whose context knows it: only the cyclic collector would help
        if worker.frame is not None:  # its instance was destroyed while it waited
            worker.frame.cell.finish(worker.frame, None)
        if not self._coming and (self._ready or self._asleep):
            self._wake()

    async def _run_events(self, worker: Worker) -> None:
        current_frame.set(None)
        clean = contextvars.copy_context()

        def leave_idle(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            self._idle.remove(worker)
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            self._coming = False
            self._at_once = 0
            events, until = 0, 0.0
            while (job := self._next()) is not None:
                if not self._coming and (self._ready or self._asleep):
                    self._wake()
                cell = job.gate.cell
                frame = worker.frame = cell.begin(job, worker.task, worker.scope)
                if frame is None:
                    continue
                current_frame.set(frame)
                result = await cell.run(frame)
                current_frame.set(None)
                self._attended = True
                cell.finish(frame, result)
                self._attended = False
                worker.frame = None
                if worker.scope.cancel_called or contextvars.copy_context() != clean:
                    return
                if self._coming:
                    events += 1
                    now = trio.current_time()
                    until = until or now + STEP_S
                    if now >= until or events >= STEP_EVENTS:
                        break
            if len(self._idle) >= IDLE_WORKERS:
                return
            self._idle.append(worker)
            self.rest()
            await trio.lowlevel.wait_task_rescheduled(leave_idle)
