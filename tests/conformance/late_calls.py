"""Calls and replies as late as on the real runtime: some turns of its loop pass, and the actors go on meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import trio

from runtime.actor.breaking import copy_error
from runtime.actor.input_gate import Work
from runtime.actor.result import Error, Result
from runtime.namespace.call_job import CallJob
from runtime.namespace.container import Container

_STEPS = 50  # of the loop: more than what is ready needs to come to its next wait for the time


@contextmanager
def late_calls() -> Generator[None]:
    """Meanwhile, a call of an actor arrives after everything that is ready has come to its next wait."""
    deliver = Container.deliver
    under_way: deque[tuple[Container, Work]] = deque()

    async def arrive() -> None:
        await everything_ready()
        deliver(*under_way.popleft())  # the first, whichever task comes first: calls keep their order

    def deliver_late(container: Container, job: Work) -> None:
        if job.caller is None:
            deliver(container, job)
        else:
            under_way.append((container, job))
            container.keeper.services.workers.start_soon(arrive)

    Container.deliver = deliver_late  # type: ignore[method-assign]
    try:
        yield
    finally:
        Container.deliver = deliver  # type: ignore[method-assign]


@contextmanager
def late_replies() -> Generator[None]:
    """Meanwhile, a reply leaves after everything that is ready; the end of its instance before that takes it away."""
    done = CallJob.done
    under_way: deque[tuple[CallJob, Result]] = deque()

    async def leave() -> None:
        await everything_ready()
        job, result = under_way.popleft()
        broken = job.gate.cell.broken
        done(job, result if broken is None else Error(copy_error(broken)))

    def done_late(job: CallJob, result: Result) -> None:
        if isinstance(result, Error):
            done(job, result)
        else:
            under_way.append((job, result))
            job.gate.cell.services.workers.start_soon(leave)

    CallJob.done = done_late  # type: ignore[method-assign]
    try:
        yield
    finally:
        CallJob.done = done  # type: ignore[method-assign]


async def everything_ready() -> None:
    """Wait until everything that is ready has come to its next wait."""
    for _ in range(_STEPS):
        await trio.lowlevel.checkpoint()
