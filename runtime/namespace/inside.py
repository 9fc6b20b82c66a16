"""Events that tests and operators run inside an actor: a function that has its turn, and its alarm early."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from runtime import limits
from runtime.actor.actor import AlarmInfo
from runtime.actor.input_gate import Job
from runtime.actor.result import Result
from runtime.ids import ActorId
from runtime.namespace.router import Router


async def run_in(router: Router, actor_id: ActorId, fn: Callable[[Any], Any]) -> Any:
    """Run a function, plain or async, with the instance as its argument; its value is not copied."""

    async def run(actor: Any) -> Any:
        value = fn(actor)
        return await value if inspect.isawaitable(value) else value

    return await _event(router, actor_id, getattr(fn, "__name__", "run_in"), run)


async def run_alarm(router: Router, actor_id: ActorId) -> bool:
    """Run the pending alarm and wait for its end; False when none is pending."""
    if router.alarms.due(actor_id) is None:
        return False  # without waking it

    async def run(actor: Any) -> bool:
        due = actor.ctx.storage.get_alarm()
        if due is None:
            return False  # it runs already, or was deleted meanwhile
        await actor.ctx._cell.run_alarm(AlarmInfo(retry_count=0, is_retry=False, scheduled_time=due))
        return True

    ran: bool = await _event(router, actor_id, "alarm", run, timeout_s=limits.ALARM_HANDLER_S)
    return ran


async def _event(
    router: Router,
    actor_id: ActorId,
    label: str,
    run: Callable[[Any], Awaitable[Any]],
    timeout_s: float | None = None,
) -> Any:
    ended = trio.Event()
    results: list[Result] = []

    def done(result: Result) -> None:
        results.append(result)
        ended.set()

    router.deliver(actor_id, Job(label, run, done, timeout_s=timeout_s))
    await ended.wait()
    return results[0].unwrap()
