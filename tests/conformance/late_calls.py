"""Calls that arrive as late as on the real runtime: some turns of its loop pass, and the caller's actor goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import trio

from runtime.actor.input_gate import Work
from runtime.namespace.container import Container

_STEPS = 50  # of the loop: more than what is ready needs to come to its next wait for the time


@contextmanager
def late_calls() -> Generator[None]:
    """Meanwhile, a call of an actor arrives after everything that is ready has come to its next wait."""
    deliver = Container.deliver
    under_way: deque[tuple[Container, Work]] = deque()

    async def arrive() -> None:
        for _ in range(_STEPS):
            await trio.lowlevel.checkpoint()
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
