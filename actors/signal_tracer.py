"""The actor that keeps the traces of a stream's newest signals, and exports a share of them."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import trio

from actors.tracing import Flushed, Publication, Trace, TraceView
from runtime import Actor, Context

if TYPE_CHECKING:
    from actors.env import Env
    from actors.otel import OtlpExporter

TRACES = 4_096  # that are kept, while somebody looks
FLUSHES = 1_024  # of one trace: a client that often catches up does not make it grow for ever
WATCH_S = 5.0  # the stream traces on for so long after the last `watch`
TOLD_S = 2.0
SETTLE_S = 2.0  # a trace is exported so long after its signal was stored: by then its deliveries are known
WAITING = 4_096  # traces that are to be exported; more are lost, and counted
BATCH = 256  # of one request: some 1,000 spans
LAST_S = 5.0  # for the last request when the server goes down


class SignalTracer(Actor["Env"]):
    """Of one stream, by its name. All of it is in memory only."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self._traces: dict[int, Trace] = {}
        self._told_at = -math.inf
        self._exporter: OtlpExporter | None = None
        self._waiting: deque[Trace] = deque()
        self._exporting = False
        self._scope = trio.CancelScope()  # of the request that is on its way
        self._last = math.inf  # no request goes on for longer
        self._lost = 0

    async def watch(self) -> None:
        """Somebody looks: every signal is traced for 5 s from now."""
        now = trio.current_time()
        if now >= self._told_at + TOLD_S:
            self._told_at = now
            self.ctx.notify(self.env.broadcasters.get_by_name(self._stream).trace, WATCH_S)

    async def published(self, publication: Publication) -> None:
        """Signals are durable."""
        stored = trio.current_time()
        for signal in publication.signals:
            trace = self._traces[signal.offset] = Trace(signal, publication, stored)
            if signal.exported:
                if len(self._waiting) < WAITING:
                    self._waiting.append(trace)
                else:
                    self._lost += 1
        while len(self._traces) > TRACES:
            del self._traces[next(iter(self._traces))]
        self._export_soon()

    async def flushed(self, flushed: Flushed) -> None:
        """A shard has handed signals to its sockets."""
        for one in flushed.delivered:
            trace = self._traces.get(one.offset)
            if trace is not None and len(trace.flushes) < FLUSHES:
                trace.flushes.append((flushed, one))

    async def find(self, offset: int) -> TraceView | None:
        """The way of a signal; None when it was not traced, or too many were since."""
        trace = self._traces.get(offset)
        if trace is None:
            return None
        return TraceView(trace.signal, trace.steps(self.ctx.now() - trio.current_time()))

    # Exports.

    async def settle(self) -> None:
        """The server goes down: export what waits, as far as 5 s are enough."""
        self._last = self._scope.deadline = trio.current_time() + LAST_S
        while self._waiting and trio.current_time() < self._last:
            await self._send(len(self._waiting))

    def _export_soon(self) -> None:
        if self._waiting and not self._exporting:
            self._exporting = True
            oldest = self._waiting[0].stored
            self.ctx.set_timeout(max(0.0, oldest + SETTLE_S - trio.current_time()), self._export, oldest)

    async def _export(self, oldest: float) -> None:
        try:
            settled = max(oldest, trio.current_time() - SETTLE_S)
            await self._send(sum(trace.stored <= settled for trace in self._waiting))
        finally:
            self._exporting = False
        self._export_soon()  # not when the instance ends

    async def _send(self, most: int) -> None:
        """Export the oldest that wait; those that cannot be sent are lost, so that nothing piles up."""
        from actors.otel import ExportFailed  # it needs an extra, which is there when there is an endpoint

        batch = [self._waiting.popleft() for _ in range(min(most, BATCH))]
        if not batch:
            return
        if self._exporter is None:
            self._exporter = self.exporter()
        reason = f"more than {WAITING:,} waited for their receiver"
        with trio.CancelScope(deadline=self._last) as scope:
            self._scope = scope
            try:
                await self._exporter.export(batch)
            except ExportFailed as error:
                self._lost += len(batch)
                reason = str(error)
        if self._lost:
            self.ctx.log.warning("traces were lost", traces=self._lost, reason=reason)
            self._lost = 0

    def exporter(self) -> OtlpExporter:
        """Where traces go."""
        from actors.otel import OtlpExporter

        return OtlpExporter(self.ctx, self.env.settings.tracing, self._stream)

    @property
    def _stream(self) -> str:
        name = self.ctx.id.name
        assert name is not None, "a tracer is reached by the name of its stream"
        return name
