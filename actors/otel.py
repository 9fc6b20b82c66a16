"""Traces of signals as OpenTelemetry spans, sent by OTLP over HTTP. Needs `heliograph[otel]`.

The SDK's span processors and its exporter have threads of their own, and wait in them. Here a span is made once its
trace is complete; requests are made by httpx in a task of Trio's, and only encoding runs in a thread of the platform's.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import attrs
import httpx
import trio
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status

from actors.settings import TracingSettings
from actors.tracing import Trace
from runtime import Context

logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every request
TRIES = 3
TIMEOUT_S = 10.0  # of each
PAUSE_S = 1.0  # before the second, and twice as long before the third
PAUSE_S_MAX = 30.0  # when the receiver asks for more
RETRYABLE = frozenset({429, 502, 503, 504})  # OTLP 1.x, "Retryable response codes"
_SCOPE = InstrumentationScope("heliograph", version("heliograph"))


class ExportFailed(Exception):
    """The receiver did not take the traces; the message says why."""


@attrs.define(eq=False)
class OtlpExporter:
    """Sends traces of one stream.

    Args:
        ctx: of the actor that exports. settings: where to. stream: its name.
        transport: where requests go; the network when None.
    """

    ctx: Context
    settings: TracingSettings
    stream: str
    transport: httpx.AsyncBaseTransport | None = None
    _ssl: ssl.SSLContext | None = attrs.field(default=None, init=False)

    async def export(self, traces: Sequence[Trace]) -> None:
        """Send them in one request, which is tried three times.

        Raises:
            ExportFailed: they were not taken.
        """
        wall = self.ctx.now() - trio.current_time()
        resource = Resource({"service.name": self.settings.service, "service.version": version("heliograph")})
        spans = [span for trace in traces for span in self._spans(trace, wall, resource)]
        body = await self.ctx.run_blocking(_encoded, spans)
        if self._ssl is None and self.settings.endpoint.startswith("https:"):
            self._ssl = await self.ctx.run_blocking(httpx.create_ssl_context)
        await self.ctx.outside(self._send, body)

    async def _send(self, body: bytes) -> None:
        headers = {name: value.value for name, value in self.settings.headers.items()}
        headers["content-type"] = "application/x-protobuf"
        verify = False if self._ssl is None else self._ssl  # without TLS there is nothing to verify
        pause_s, reason = PAUSE_S, ""
        async with httpx.AsyncClient(transport=self.transport, timeout=TIMEOUT_S, verify=verify) as client:
            for tried in range(TRIES):
                if tried:
                    await trio.sleep(pause_s)
                    pause_s *= 2
                try:
                    answer = await client.post(self.settings.endpoint, content=body, headers=headers)
                except httpx.HTTPError as error:
                    reason = f"{type(error).__name__} {error}".rstrip()
                    continue
                if answer.is_success:
                    return
                reason = f"it answered {answer.status_code}"
                if answer.status_code not in RETRYABLE:
                    break
                pause_s = max(pause_s, _retry_after(answer.headers))
        raise ExportFailed(f"{httpx.URL(self.settings.endpoint).host}: {reason}")

    def _spans(self, trace: Trace, wall: float, resource: Resource) -> list[ReadableSpan]:
        """One for the signal, and below it one for each part of its way."""
        trace_id = int.from_bytes(self.ctx.token(16))
        told, signal = trace.publication, trace.signal

        def context() -> SpanContext:
            return SpanContext(trace_id, int.from_bytes(self.ctx.token(8)), False, TraceFlags(TraceFlags.SAMPLED))

        root = context()

        def span(
            name: str,
            begin: float,
            end: float,
            attributes: Mapping[str, str | int],
            *,
            is_root: bool = False,
            events: Sequence[Event] = (),
        ) -> ReadableSpan:
            return ReadableSpan(
                name,
                context=root if is_root else context(),
                parent=None if is_root else root,
                resource=resource,
                attributes={"heliograph.stream": self.stream, **attributes},
                events=events,
                kind=SpanKind.INTERNAL,
                status=Status(),
                start_time=_ns(wall + begin),
                end_time=_ns(wall + end),
                instrumentation_scope=_SCOPE,
            )

        about: dict[str, str | int] = {
            "heliograph.offset": signal.offset,
            "heliograph.type": signal.type,
            "heliograph.entity": signal.entity,
            "heliograph.source": told.source,
            "heliograph.publication.signals": told.size,
        }
        asked = {"heliograph.filters.asked": told.asked, "heliograph.filters.refused": told.refused}
        end = max([trace.stored, *(flushed.last for flushed, _ in trace.flushes)])
        found = [
            span("signal", told.came, end, about, is_root=True),
            span("ingest", told.came, told.evaluated, asked),
            span("commit", told.evaluated, trace.stored, {}),
        ]
        for flushed, one in trace.flushes:
            counts: dict[str, str | int] = {
                "heliograph.shard": flushed.shard,
                "heliograph.subscriptions": one.subscriptions,
                "heliograph.delivery": one.way,
            }
            first = Event("first delivery", timestamp=_ns(wall + flushed.first))
            found.append(span("fan-out", flushed.came, flushed.last, counts, events=(first,)))
        return found


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _encoded(spans: Sequence[ReadableSpan]) -> bytes:
    body: bytes = encode_spans(spans).SerializeToString()
    return body


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return min(float(text), PAUSE_S_MAX) if text.isascii() and text.isdigit() else 0.0
