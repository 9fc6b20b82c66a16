"""How long a call and a reply are on their way between two actors.

No rule says, but for their order. Here an idle actor begins a call at once. On the real runtime some turns of its loop
pass, and meanwhile the actors go on with what is ready; what destroys the callee then takes a reply away that has not
arrived. (workerd, `api/worker-rpc.c++`: a call begins with a `kj::yield()`, a session ends with the context's abort.)
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import attrs
import trio

from runtime.actor.breaking import copy_error
from runtime.actor.frame import Frame
from runtime.actor.input_gate import Work
from runtime.actor.result import Error, Result
from runtime.namespace.call_job import CallJob
from runtime.namespace.container import Container

_STEPS = 50  # of the loop: more than what is ready needs to come to its next wait for the time
_DRAWN = (0, 0, 1, 2)


@attrs.define(eq=False)
class _Message:
    arrive: Callable[[], None]
    ready: bool = False


class _Lines:
    """Messages under way; those from one actor to another, or to one caller of the driver, keep their order."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[_Message]] = {}

    def send(self, line: Hashable, rounds: int, arrive: Callable[[], None], start_soon: Callable[..., None]) -> None:
        """Let a message arrive after everything that is ready has come to its next wait, so many times."""
        queue = self._lines.setdefault(line, deque())
        if rounds or queue:
            message = _Message(arrive)
            queue.append(message)
            start_soon(self._travel, queue, message, rounds)
        else:
            arrive()

    async def _travel(self, queue: deque[_Message], message: _Message, rounds: int) -> None:
        for _ in range(rounds):
            await everything_ready()
        message.ready = True
        while queue and queue[0].ready:
            queue.popleft().arrive()


@contextmanager
def latency(scenario: Mapping[str, Any]) -> Generator[None]:
    """Meanwhile, messages take as long as a scenario says.

    With `lateCalls` every call of an actor arrives late, with `lateReplies` every reply; with `lateSeed` each of them
    does or does not.
    """
    draw = random.Random(scenario["lateSeed"]) if "lateSeed" in scenario else None
    calls, replies = bool(scenario.get("lateCalls")), bool(scenario.get("lateReplies"))
    if draw is None and not calls and not replies:
        yield
        return
    deliver, done, lines = Container.deliver, CallJob.done, _Lines()

    def rounds(late: bool) -> int:
        return int(late) if draw is None else draw.choice(_DRAWN)

    def deliver_late(container: Container, job: Work) -> None:
        caller = job.caller
        if caller is None or (_is_driver(caller) and draw is None):
            deliver(container, job)
        else:
            line = ("to", _end(caller), container.id)
            start_soon = container.keeper.services.workers.start_soon
            lines.send(line, rounds(calls), lambda: deliver(container, job), start_soon)

    def done_late(job: CallJob, result: Result) -> None:
        gate = getattr(job, "gate", None)
        if gate is None or (draw is None and gate.cell.incarnation.error is not None):
            done(job, result)  # refused, or the end of the instance, which is no reply
            return

        def arrive() -> None:
            ended = gate.cell.incarnation.error
            done(job, result if ended is None else Error(copy_error(ended)))

        line = ("from", gate.cell.id, id(job) if job.caller is None else _end(job.caller))
        lines.send(line, rounds(replies), arrive, gate.cell.services.workers.start_soon)

    with patch.object(Container, "deliver", deliver_late), patch.object(CallJob, "done", done_late):
        yield


def _end(caller: Frame) -> Hashable:
    """Who sends or gets a message: an actor; the outside world's callers are one each."""
    return id(caller) if _is_driver(caller) else caller.cell.id


def _is_driver(caller: Frame) -> bool:
    return caller.cell.id.namespace == "driver"


async def everything_ready() -> None:
    """Wait until everything that is ready has come to its next wait."""
    for _ in range(_STEPS):
        await trio.lowlevel.checkpoint()
