"""How what a shard counts reaches the analytics."""

from __future__ import annotations

import attrs

from actors.analytics.analytics import NAME, Analytics
from actors.analytics.tally import Tally
from actors.measures import ShardMeasures
from runtime import ActorError, Context, Namespace, Timeout

REPORT_S = 5.0  # so much is lost at most when the process is killed


@attrs.define(eq=False)
class Reporter:
    """Tells what a shard has counted, 5 s after there is something to tell.

    Nothing is counted for it: it reports by how much the totals of the shard's instance have grown. While something is
    not told yet, a timer keeps the instance in memory.
    """

    ctx: Context
    shard: str
    measures: ShardMeasures
    namespace: Namespace[Analytics] | None
    _told: Tally = attrs.field(init=False)
    _timeout: Timeout | None = attrs.field(default=None, init=False)
    _settled: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._told = Tally.of(self.measures)  # the sockets that an instance finds were counted by an earlier one

    def soon(self) -> None:
        """Something was counted."""
        if self._timeout is None and not self._settled and self.namespace is not None:
            self._timeout = self.ctx.set_timeout(REPORT_S, self._tell)

    async def settle(self) -> None:
        """Tell it now, and after that only when this is called again: a server that goes down waits for timers."""
        self._settled = True
        if self._timeout is not None:
            self._timeout.cancel()
        await self._tell()

    async def _tell(self) -> None:
        self._timeout = None
        told = Tally.of(self.measures)
        if self.namespace is None or told == self._told:
            return
        try:
            report = self.namespace.get_by_name(NAME).report
            await report(self.shard, self.measures.event_sources, told - self._told)
        except ActorError as error:
            self.ctx.log.warning("the analytics do not answer", reason=str(error))
            self.soon()  # the same again, and what has come by then
        else:
            self._told = told
