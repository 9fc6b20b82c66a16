"""Signals as OpenTelemetry traces: what is in them, how many there are, and that nothing waits for their receiver."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import attrs
import httpx
import pytest
import structlog
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from actors.app import app, drain, start
from actors.env import Env
from actors.otel import OtlpExporter
from actors.routes import ROUTES
from actors.settings import Settings, TracingSettings
from actors.signal_tracer import BATCH, WAITING, SignalTracer
from actors.signals import Draft
from runtime import App, ConfigError, Namespace, Secret, load_config
from runtime.storage.memory import MemoryStore
from runtime.testing import start_server
from tests.actors.console.test_connection_routes import client
from tests.browser.serving import READY_S, Server

ENDPOINT = "http://collector.test:4318/v1/traces"


class Receiver:
    """An OTLP receiver that answers what it is told to; a request waits for as long."""

    def __init__(self):
        self.requests = []
        self.answers = []
        self.wait_s = 0.0

    async def __call__(self, request):
        self.requests.append(request)
        await trio.sleep(self.wait_s)
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        if status == 0:
            raise httpx.ConnectError("refused")
        return httpx.Response(status, headers=headers)

    def spans(self):
        found = []
        for request in self.requests:
            body = ExportTraceServiceRequest.FromString(request.content)
            for resource in body.resource_spans:
                for scope in resource.scope_spans:
                    found += scope.spans
        return found


@attrs.frozen(kw_only=True)
class TracedSettings(Settings):
    """Settings of a service whose traces go to a receiver in memory."""

    receiver: Any = None


class Tracer(SignalTracer):
    def exporter(self):
        transport = httpx.MockTransport(self.env.settings.receiver)
        return OtlpExporter(self.ctx, self.env.settings.tracing, self._stream, transport)


@attrs.frozen(kw_only=True)
class TracedEnv(Env):
    tracers: Namespace[Tracer]


APP = App(env=TracedEnv, settings=TracedSettings, routes=ROUTES, start=start, drain=drain)


def traced(receiver, sample=1.0):
    """Settings under which that share of all signals is traced."""
    settings = TracingSettings(endpoint=ENDPOINT, sample=sample, service="desk", headers={"x-key": Secret("abc")})
    return TracedSettings(sources_enabled=False, shards=1, tracing=settings, receiver=receiver)


@pytest.fixture
def receiver():
    return Receiver()


def values(span):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


async def publish(server, count=1):
    await server.env.broadcasters.get_by_name("main").publish(tuple(Draft.of("a.b", "e", n) for n in range(count)))


async def test_a_trace_has_a_span_for_each_part_of_the_way(autojump_clock, receiver):
    slow_disk = MemoryStore(delay=0.05)
    async with start_server(APP, settings=traced(receiver), store=slow_disk) as server:
        async with client(server), client(server, subs=({"s": "b", "filter": {"types": ["none.>"]}},)):
            await publish(server)
            await trio.sleep(5)
    (request,) = receiver.requests
    assert str(request.url) == ENDPOINT
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["x-key"] == "abc"
    resource = ExportTraceServiceRequest.FromString(request.content).resource_spans[0].resource
    assert values(resource)["service.name"] == "desk"
    spans = {span.name: span for span in receiver.spans()}
    assert list(spans) == ["signal", "ingest", "commit", "fan-out"]
    root = spans["signal"]
    assert root.parent_span_id == b""
    assert len({span.trace_id for span in spans.values()}) == 1
    assert len({span.span_id for span in spans.values()}) == 4
    assert {span.parent_span_id for name, span in spans.items() if name != "signal"} == {root.span_id}
    assert values(root) == {
        "heliograph.stream": "main",
        "heliograph.offset": 1,
        "heliograph.type": "a.b",
        "heliograph.entity": "e",
        "heliograph.source": "",
        "heliograph.publication.signals": 1,
    }
    took_ms = {name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6 for name, span in spans.items()}
    assert took_ms["commit"] == pytest.approx(50, abs=0.1)
    assert took_ms["signal"] == pytest.approx(sum(took_ms[name] for name in ("ingest", "commit", "fan-out")), abs=0.1)
    assert spans["commit"].start_time_unix_nano == spans["ingest"].end_time_unix_nano
    assert values(spans["fan-out"]) == {
        "heliograph.stream": "main",
        "heliograph.shard": "shard-0",
        "heliograph.subscriptions": 1,
        "heliograph.delivery": "live",
    }
    assert [event.name for event in spans["fan-out"].events] == ["first delivery"]


async def test_traces_of_many_signals_leave_together_and_in_bounded_requests(autojump_clock, receiver):
    async with start_server(APP, settings=traced(receiver)) as server:
        await publish(server, 2 * BATCH + 1)
        await trio.sleep(1)
        assert receiver.requests == []
        await trio.sleep(4)
    offsets = [values(span)["heliograph.offset"] for span in receiver.spans() if span.name == "signal"]
    assert offsets == list(range(1, 2 * BATCH + 2))
    assert len(receiver.requests) == 3


async def test_a_share_is_traced_at_random_and_nothing_of_the_rest(autojump_clock, receiver):
    async with start_server(APP, settings=traced(receiver, sample=0.1)) as server:
        for _ in range(10):
            await publish(server, 100)
        await trio.sleep(5)
    offsets = [values(span)["heliograph.offset"] for span in receiver.spans() if span.name == "signal"]
    assert 50 < len(offsets) < 150
    assert len({offset % 10 for offset in offsets}) == 10


async def test_without_an_endpoint_no_tracer_ever_runs(autojump_clock):
    async with start_server(app, settings=Settings(sources_enabled=False, tracing=TracingSettings(sample=1))) as server:
        await publish(server)
        await trio.sleep(5)
        assert server.live_ids(server.env.tracers) == []


@pytest.mark.parametrize("refusal", [(503, {}), (0, {}), (429, {"retry-after": "7"})])
async def test_a_receiver_that_is_busy_is_asked_again(autojump_clock, receiver, refusal):
    receiver.answers = [refusal]
    async with start_server(APP, settings=traced(receiver)) as server:
        await publish(server)
        await trio.sleep(30)
    assert len(receiver.requests) == 2
    assert receiver.requests[0].content == receiver.requests[1].content


async def test_what_is_refused_for_good_is_lost_and_told_and_the_next_goes_on(autojump_clock, receiver):
    receiver.answers = [(400, {})]
    with structlog.testing.capture_logs() as logs:
        async with start_server(APP, settings=traced(receiver)) as server:
            await publish(server, 3)
            await trio.sleep(5)
            await publish(server)
            await trio.sleep(5)
    assert [values(span)["heliograph.offset"] for span in receiver.spans() if span.name == "signal"] == [1, 2, 3, 4]
    assert [(log["traces"], log["reason"]) for log in logs if log["event"] == "traces were lost"] == [
        (3, "collector.test: it answered 400")
    ]


async def test_what_comes_while_too_many_wait_is_lost_and_told(autojump_clock, receiver):
    receiver.wait_s = 3
    with structlog.testing.capture_logs() as logs:
        async with start_server(APP, settings=traced(receiver)) as server:
            for _ in range(WAITING // 1_000 + 1):
                await publish(server, 1_000)
            await trio.sleep(10)
    assert sum(log["traces"] for log in logs if log["event"] == "traces were lost") >= 5_000 - WAITING


async def test_a_receiver_that_does_not_answer_keeps_nobody_waiting_and_what_waits_for_it_is_bounded(
    autojump_clock, receiver
):
    receiver.wait_s = 3_600
    async with start_server(APP, settings=traced(receiver)) as server:
        async with client(server) as one:
            for _ in range(WAITING // 1_000 + 2):
                begun = trio.current_time()
                await publish(server, 1_000)
                await one.hear("sig")
                assert trio.current_time() - begun < 0.1
            tracer = server.env.tracers.get_by_name("main")
            assert await server.run_in(tracer, lambda actor: len(actor._waiting)) <= WAITING
            begun = trio.current_time()
    assert trio.current_time() - begun < 20


async def test_what_waits_is_sent_when_the_server_goes_down(autojump_clock, receiver):
    async with start_server(APP, settings=traced(receiver)) as server:
        await publish(server, 3)
    assert len(receiver.spans()) == 3 * 3


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ValueError, match="must be empty, or such as http"):
        TracingSettings(endpoint="collector:4318")
    with pytest.raises(ValueError, match="no HTTP header"):
        TracingSettings(headers={"bad name": Secret("x")})


def test_without_the_extra_the_start_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.common.trace_encoder", None)
    path = tmp_path / "heliograph.toml"
    path.write_text('[tracing]\nendpoint = "http://127.0.0.1:4318/v1/traces"\n')
    with pytest.raises(ConfigError, match=r"pip install 'heliograph\[otel\]'"):
        load_config(path, Settings)


class Collector(BaseHTTPRequestHandler):
    """A receiver of OTLP over a real socket; its server keeps what it `got`."""

    def do_POST(self):
        self.server.got = (self.path, self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.real
def test_a_server_process_sends_its_traces_to_a_receiver_on_a_socket(tmp_path):
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        collector.timeout = READY_S
        endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
        config = tmp_path / "heliograph.toml"
        config.write_text(f'[tracing]\nendpoint = "{endpoint}"\nsample = 1\n')
        server = Server(tmp_path / "data", "--config", str(config))
        try:
            server.start()
            server.post({"type": "a.b", "entity": "e", "data": 1})
            collector.handle_request()
        finally:
            server.kill()
    path, body = collector.got
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert [span.name for span in resource.scope_spans[0].spans] == ["signal", "ingest", "commit"]
