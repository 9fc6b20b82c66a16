"""Some real runtimes at work at a time, for some programs end theirs with all that runs on it.

What is cut off so is run anew on one of its own. Only a program that ends that one too has no outcome.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import attrs
import trio

from tests.conformance.live.recorder import ServerEnded, record_run
from tests.conformance.live.workerd import Workerd

SERVERS = 4
ALONE = 8  # servers for one program each, at a time
Start = Callable[[], AbstractAsyncContextManager[Workerd]]


@attrs.define(eq=False)
class Shared:
    """A real runtime that many programs run on at a time; it is started again when it has ended."""

    server: Workerd
    _running: set[trio.CancelScope] = attrs.field(factory=set)
    _reviving: trio.Lock = attrs.field(factory=trio.Lock)

    @property
    def programs(self) -> int:
        """How many run on it."""
        return len(self._running)

    async def record(self, program: Mapping[str, Any]) -> dict[str, Any] | None:
        """The trace of a program; None when the server ended meanwhile, or does not answer."""
        with trio.CancelScope() as scope:
            self._running.add(scope)
            try:
                async with self._reviving:
                    await self.server.revive()
                return await record_run(self.server, program)
            except (ServerEnded, trio.TooSlowError):
                if await self.server.has_ended():
                    self._cut_all_off()
            finally:
                self._running.discard(scope)
        return None

    def _cut_all_off(self) -> None:
        # Without the server they would only wait out their own pauses and requests.
        for scope in self._running:
            scope.cancel()


@attrs.define(eq=False)
class Servers:
    """Several of them, and more for single programs.

    Args:
        start: starts one, and ends it afterwards.
    """

    start: Start
    shared: list[Shared]
    _alone: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(ALONE))

    async def record(self, program: Mapping[str, Any]) -> dict[str, Any]:
        """The trace of a program.

        Raises:
            ServerEnded: the program ends a server, or gets no answer from it.
        """
        least = min(self.shared, key=lambda one: one.programs)
        trace = await least.record(program)
        if trace is None:
            async with self._alone, self.start() as server:
                with suppress(ServerEnded, trio.TooSlowError):
                    trace = await record_run(server, program)
        if trace is None:
            raise ServerEnded
        return trace


@asynccontextmanager
async def servers(start: Start, count: int = SERVERS) -> AsyncGenerator[Servers]:
    """Running servers that are ended afterwards."""
    async with trio.open_nursery() as nursery:
        shared = [Shared(await nursery.start(_hold, start)) for _ in range(count)]
        try:
            yield Servers(start, shared)
        finally:
            nursery.cancel_scope.cancel()


async def _hold(start: Start, task_status: trio.TaskStatus[Workerd] = trio.TASK_STATUS_IGNORED) -> None:
    async with start() as server:
        task_status.started(server)
        await trio.sleep_forever()
