"""Alarms as on the real runtime: one that was deleted or moved runs all the same until that is on the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import trio

from runtime.actor.actor import Actor
from runtime.actor.cell import Cell
from runtime.ids import ActorId
from runtime.namespace.alarms import AlarmJob, AlarmScheduler
from runtime.storage.store import KEEP
from tests.conformance.latency import everything_ready


@contextmanager
def unconfirmed_alarms() -> Generator[None]:
    """Meanwhile, an alarm that comes to its turn before its change is durable runs, and the change stays."""
    queue_again, ring, changed = AlarmJob.queue_again, AlarmJob._ring, AlarmScheduler.changed
    under_way: deque[tuple[AlarmScheduler, ActorId, float | None]] = deque()

    async def confirm() -> None:
        await everything_ready()
        changed(*under_way.popleft())

    def changed_late(scheduler: AlarmScheduler, actor_id: ActorId, due: float | None) -> None:
        under_way.append((scheduler, actor_id, due))  # in memory, a commit takes no time
        trio.lowlevel.spawn_system_task(confirm)

    def at_once_when_unconfirmed(job: AlarmJob, cell: Cell) -> bool:
        if queue_again(job, cell):
            return True
        job._armed = job._armed or (cell.actor is not None and job._alarm.changed is KEEP)
        return False

    async def ring_until_confirmed(job: AlarmJob, actor: Actor[Any]) -> None:
        if not job._armed:
            job._armed = actor.ctx._cell.arm_alarm(job._info) or job._alarm.changed is KEEP
        await ring(job, actor)

    with (
        patch.object(AlarmJob, "queue_again", at_once_when_unconfirmed),
        patch.object(AlarmJob, "_ring", ring_until_confirmed),
        patch.object(AlarmScheduler, "changed", changed_late),
    ):
        yield
