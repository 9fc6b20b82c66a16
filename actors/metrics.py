"""`GET /metrics`: what the server does, for Prometheus.

A scrape asks those who count anyway, whether somebody scrapes or not. Counters belong to an instance of a shard and
begin at 0 with each, which is what a counter's reset means. A shard that is not in memory is not woken for a scrape: of
it only the number of its sockets is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import accumulate
from typing import Any, TypeVar

import attrs
import trio
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from actors.authentication import bearer, is_one_of
from actors.env import Env
from actors.error_response import error_response
from actors.ingest.ingest import IngestStatus
from actors.loopback import is_local
from actors.measures import Distribution
from actors.observing import ShardView
from actors.protocol.codes import BAD_FILTER, UNAUTHENTICATED, CloseCode, ErrorCode
from actors.routes import only
from actors.stream import StreamView, shard_name
from runtime import ActorError, Meter, Request, Response

T = TypeVar("T")

ANSWER_S = 5.0  # for all actors together; Prometheus gives up after 10
AT_ONCE = 256  # actors that are looked at before others get a moment
_RESULTS = {101: "accepted", 200: "accepted", 401: "unauthenticated", 429: "rate_limited", 503: "unavailable"}
_LOOPBACK_ONLY = ErrorCode(403, "loopback_only")


@attrs.frozen(kw_only=True)
class Figures:
    """Everything at one moment.

    Attributes:
        streams: by their names. shards: by stream, those in memory. asleep: sockets of the others, by stream.
        instances: how many actors there are, by class and state. failing, waiting: those that fail, and events in
            mailboxes, by class.
        destroyed: instances since the start, by class and reason. evicted: those, by reason.
        measured: what the runtime measures; None: nothing. stored: bytes on the disk, by kind of storage and class.
        unanswered: actors that did not answer in time, and are left out.
        now: wall clock, seconds. started: when the node was.
    """

    streams: Sequence[tuple[str, StreamView]]
    shards: Sequence[tuple[str, ShardView]]
    asleep: Counter[str]
    sources: Sequence[IngestStatus]
    instances: Counter[tuple[str, str]]
    failing: Counter[str]
    waiting: Counter[str]
    destroyed: Counter[tuple[str, str]]
    evicted: Mapping[str, int]
    measured: Meter | None
    stored: Mapping[tuple[str, str], int]
    unanswered: int
    now: float
    started: float


@only("GET", "HEAD")
async def metrics(request: Request, env: Env) -> Response:
    """The figures in Prometheus' text format, or as OpenMetrics for who asks for that."""
    settings = env.settings.metrics
    if not settings.enabled:
        return Response.text(f"nothing at {request.path}\n", 404)
    if not settings.tokens:
        if not is_local(request):
            message = (
                "without a token only requests of this machine are answered that no proxy has passed on; set "
                "metrics.tokens in heliograph.toml to read the metrics from elsewhere"
            )
            return error_response(_LOOPBACK_ONLY, message)
    elif not is_one_of(bearer(request) or "", settings.tokens):
        message = "show one of metrics.tokens as `Authorization: Bearer …`"
        return error_response(UNAUTHENTICATED, message, headers={"www-authenticate": "Bearer"})
    figures = await _figures(env)
    registry = CollectorRegistry()
    registry.register(Families(figures))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(200, encode(registry), {"content-type": content_type, "cache-control": "no-store"})


async def _figures(env: Env) -> Figures:
    settings, operator = env.settings, env.operator
    asked = [(name, env.broadcasters.get_by_name(name).observe()) for name in settings.stream_names]
    sources = [(one.name, env.ingests.get_by_name(one.name).status()) for one in settings.active_sources()]
    asleep: Counter[str] = Counter()
    awake: list[tuple[str, Any]] = []
    for stream in settings.stream_names:
        for number in range(settings.shards):
            name = shard_name(number, stream)
            seen = operator.actor(operator.find("shards", name))
            if not seen.in_memory:
                asleep[stream] += seen.sockets
            else:
                awake.append((stream, env.shards.get_by_name(name).observe()))
    instances: Counter[tuple[str, str]] = Counter()
    waiting: Counter[str] = Counter()
    for n, actor in enumerate(operator.actors(), 1):
        if n % AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        instances[actor.actor_class, actor.state] += 1
        waiting[actor.actor_class] += actor.mailbox
    failing = Counter(dict.fromkeys(operator.namespaces.values(), 0))
    failing.update(operator.namespaces[actor.namespace] for actor in operator.failing())
    destroyed: Counter[tuple[str, str]] = Counter()
    for (namespace, why), count in operator.destroyed.items():
        destroyed[operator.namespaces[namespace], why] += count
    deadline = trio.current_time() + ANSWER_S
    streams = await _answers(asked, deadline)
    shards: list[tuple[str, ShardView]] = await _answers(awake, deadline)
    told = await _answers(sources, deadline)
    stored: Mapping[tuple[str, str], int] = {}
    with trio.CancelScope(deadline=deadline), suppress(ActorError):
        stored = await operator.stored_bytes()
    return Figures(
        streams=streams,
        shards=shards,
        asleep=asleep,
        sources=[status for _, status in told if status is not None],
        instances=instances,
        failing=failing,
        waiting=waiting,
        destroyed=destroyed,
        evicted=operator.evicted,
        measured=operator.measured,
        stored=stored,
        unanswered=len(asked) + len(awake) + len(sources) - len(streams) - len(shards) - len(told),
        now=operator.now(),
        started=operator.started,
    )


async def _answers(calls: Sequence[tuple[str, Awaitable[T]]], deadline: float) -> list[tuple[str, T]]:
    """Those that came in time; an actor that is stuck or broken must not hide all others."""
    found: list[tuple[str, T]] = []
    for name, call in calls:
        with trio.CancelScope(deadline=deadline):
            try:
                found.append((name, await call))
            except ActorError:
                continue
    return found


class Families(Collector):
    """The metrics of some figures."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """All of them; each name stands once in `docs/reference/metrics.md`."""
        yield _gauge("heliograph_build_info", "Which version this is.", ["version"], [((version("heliograph"),), 1)])
        started = [((), self._figures.started)]
        yield _gauge("heliograph_start_time_seconds", "When the server started, since the Unix epoch.", [], started)
        unanswered = [((), self._figures.unanswered)]
        text = "Streams, shards and sources that did not answer this scrape; their figures are missing."
        yield _gauge("heliograph_unanswered_actors", text, [], unanswered)
        yield from self._of_streams()
        yield from self._of_connections()
        yield from self._of_shards()
        yield from self._of_sources()
        yield from self._of_actors()
        yield from self._of_runtime()

    def _of_streams(self) -> Iterator[Metric]:
        streams, names = self._figures.streams, ["stream"]
        for name, what, attribute in (
            ("signals_stored_offset", "The offset of the newest signal.", "head"),
            ("signals_retained", "Signals that are stored.", "retained"),
            ("signals_retained_bytes", "What they take.", "retained_bytes"),
            ("signals_filter_groups", "Distinct filters that somebody subscribes to.", "groups"),
        ):
            yield _gauge(name, what, names, [((stream,), getattr(view, attribute)) for stream, view in streams])
        asked = [
            ((stream, result), count)
            for stream, view in streams
            for result, count in (("match", view.asked - view.refused), ("no_match", view.refused))
        ]
        text = "Filters that signals were held against; those that their type and entity rule out are not."
        yield _counter("signals_filter_evaluations", text, ["stream", "result"], asked)

    def _of_connections(self) -> Iterator[Metric]:
        found: Counter[tuple[str, str]] = Counter()
        for stream, view in self._figures.shards:
            left = view.connections - view.hello
            found[stream, "hello"] += view.hello
            found[stream, "leaving" if view.leaving else "open"] += left
            found[stream, "asleep"] += 0
        for stream, sockets in self._figures.asleep.items():
            found[stream, "asleep"] += sockets
        text = "Connections: before hello, open, asked to leave, or of a shard that is not in memory."
        yield _gauge("signals_ws_connections", text, ["stream", "state"], found.items())
        slow = [((view.shard,), view.slow) for _, view in self._figures.shards]
        yield _gauge("signals_slow_clients", "Clients that read too slowly now.", ["shard"], slow)
        backlog = [((view.shard,), view.backlog_bytes) for _, view in self._figures.shards]
        yield _gauge("signals_outbound_backlog_bytes", "Bytes on their way to all clients.", ["shard"], backlog)

    def _of_shards(self) -> Iterator[Metric]:
        shards = [view for _, view in self._figures.shards]
        for name, what, attribute in (
            ("signals_deliveries", "Signals handed to connections as they came.", "deliveries"),
            ("signals_delivered_bytes", "Of the frames that had them.", "delivered_bytes"),
            ("signals_slow_consumers", "How often a client was held back or closed for reading too slowly.", "slowed"),
        ):
            yield _counter(name, what, ["shard"], [((view.shard,), getattr(view, attribute)) for view in shards])
        handshakes: Counter[tuple[str, str]] = Counter()
        for view in shards:
            handshakes[view.shard, "accepted"] += 0
            for status, count in view.handshakes:
                handshakes[view.shard, _RESULTS.get(status, "refused")] += count
        text = "Connections that were asked for: accepted, unauthenticated, rate_limited, unavailable or refused."
        yield _counter("signals_ws_handshakes", text, ["shard", "result"], handshakes.items())
        recovered = [
            ((view.shard, result), getattr(view, attribute))
            for view in shards
            for result, attribute in (("full", "resumed"), ("gap", "gaps"), ("epoch", "failed"))
        ]
        text = "Subscriptions that began with a cursor: without a loss, with one they were told, in another epoch."
        yield _counter("signals_recoveries", text, ["shard", "result"], recovered)
        closes = [((view.shard, str(code)), count) for view in shards for code, count in view.closes]
        yield _counter("signals_ws_closes", "Connections that ended, by close code.", ["shard", "code"], closes)
        text = "From the number of a signal until it was handed to the sockets of a shard."
        fanout = [((view.shard,), view.fanout) for view in shards]
        yield _histogram("signals_fanout_seconds", text, ["shard"], fanout)
        yield from self._of_clients(shards)

    def _of_clients(self, shards: Sequence[ShardView]) -> Iterator[Metric]:
        for name, what, label, attribute in (
            (
                "signals_ws_messages",
                "Messages of clients, but pings of the heartbeat; bad: none at all.",
                "type",
                "messages",
            ),
            ("signals_errors", "Errors that clients of sockets were told, by slug.", "slug", "errors"),
            ("signals_sessions_resumed", "Hellos, by the session: new, resumed, or refused.", "result", "resumptions"),
            ("signals_skipped", "Offsets that subscriptions were told they will not get.", "reason", "skipped"),
        ):
            counts = [((view.shard, value), count) for view in shards for value, count in getattr(view, attribute)]
            yield _counter(name, what, ["shard", label], counts)
        refused = [((view.shard, BAD_FILTER.slug), dict(view.errors).get(BAD_FILTER.slug, 0)) for view in shards]
        text = "Filters of sockets' clients that were refused; one of signals_errors_total, and 0 before the first."
        yield _counter("signals_filter_errors", text, ["shard", "slug"], refused)
        nbytes = [
            ((view.shard, direction), count)
            for view in shards
            for direction, count in (("in", view.bytes_in), ("out", view.bytes_out))
        ]
        text = "Bytes of clients' messages (in) and of those to them (out), before compression, without heartbeats."
        yield _counter("signals_ws_bytes", text, ["shard", "dir"], nbytes)
        conflated = [((view.shard,), view.conflated) for view in shards]
        text = "Signals that newer ones replaced before they were delivered (mode latest)."
        yield _counter("signals_conflated", text, ["shard"], conflated)
        limited = [
            ((view.shard, scope), count)
            for view in shards
            for scope, count in (
                ("handshakes", dict(view.handshakes).get(429, 0)),
                ("messages", dict(view.closes).get(CloseCode.RATE_LIMITED, 0)),
                ("connections", dict(view.closes).get(CloseCode.TOO_MANY_CONNECTIONS, 0)),
            )
        ]
        text = "Clients that were refused or closed for doing too much: too many handshakes, messages or connections."
        yield _counter("signals_rate_limited", text, ["shard", "scope"], limited)
        for name, what, attribute in (
            ("signals_recovered_signals", "By how many offsets subscriptions with a cursor were behind.", "behind"),
            ("signals_recovery_seconds", "How long they took to be live.", "recovery"),
            (
                "signals_client_lag_signals",
                "By how many offsets clients were behind when they said where they are.",
                "lag",
            ),
            (
                "signals_e2e_seconds",
                "From the number of a signal until a client said that it has it, which it does every 5 s at most.",
                "end_to_end",
            ),
        ):
            yield _histogram(name, what, ["shard"], [((view.shard,), getattr(view, attribute)) for view in shards])

    def _of_sources(self) -> Iterator[Metric]:
        sources, names = self._figures.sources, ["source"]
        for name, what, attribute in (
            ("signals_ingested", "Signals that a source has published.", "produced"),
            ("signals_duplicates", "Those among them that were stored before.", "duplicates"),
            ("signals_rejected", "What it offered and is no signal.", "rejected"),
        ):
            values = [((one.name,), getattr(one.state, attribute)) for one in sources]
            yield _counter(name, what, names, values)
        runs = [
            ((one.name, result), count)
            for one in sources
            for result, count in (("success", one.state.succeeded), ("failure", one.state.failed))
        ]
        yield _counter(
            "scheduler_runs", "Runs of a source, restarts of the server included.", ["source", "result"], runs
        )
        failures = [((one.name,), one.state.failures) for one in sources]
        yield _gauge("scheduler_failures_in_a_row", "Runs that failed since one succeeded.", names, failures)
        paused = [((one.name,), one.state.paused) for one in sources]
        yield _gauge("scheduler_paused", "1 while an operator wants no runs.", names, paused)
        took = [((one.name,), one.state.took_s) for one in sources if one.state.took_s is not None]
        yield _gauge("scheduler_last_run_seconds", "How long the last run took.", names, took)
        succeeded = [((one.name,), one.state.last_success) for one in sources if one.state.last_success is not None]
        text = "When a run succeeded last, since the Unix epoch."
        yield _gauge("scheduler_last_success_timestamp_seconds", text, names, succeeded)
        late = [
            ((one.name,), max(0.0, self._figures.now - one.next))
            for one in sources
            if one.next is not None and not one.running
        ]
        yield _gauge("scheduler_lag_seconds", "How late the next run is.", names, late)

    def _of_actors(self) -> Iterator[Metric]:
        text = "Actors that are in memory, have sockets or have an alarm."
        yield _gauge("actor_instances", text, ["class", "state"], self._figures.instances.items())
        failing = [((name,), count) for name, count in self._figures.failing.items()]
        text = "Actors that were destroyed within the last minute, or whose alarm is being tried again."
        yield _gauge("actor_failing", text, ["class"], failing)
        text = "Instances that were destroyed: by a commit that failed, a reset (abort, time-out) or another error."
        yield _counter("actor_restarts", text, ["class", "reason"], self._figures.destroyed.items())
        evicted = [((why,), count) for why, count in self._figures.evicted.items()]
        text = "Instances that left memory: idle for long, for the room of newer ones, or because somebody asked."
        yield _counter("actor_evictions", text, ["reason"], evicted)
        text = "Bytes on the disk, with history, as of a minute ago at most; all classes without SQL are one, unnamed."
        yield _gauge("actor_storage_bytes", text, ["storage", "class"], self._figures.stored.items())
        waiting = [((name,), count) for name, count in self._figures.waiting.items()]
        yield _gauge("actor_mailbox_events", "Events that wait for the turn.", ["class"], waiting)

    def _of_runtime(self) -> Iterator[Metric]:
        measured = Meter() if self._figures.measured is None else self._figures.measured
        for name, what, label, histograms in (
            (
                "actor_turn_seconds",
                f"How long an actor kept its turn, of one turn in {Meter.TURNS}.",
                "class",
                measured.turns,
            ),
            ("actor_mailbox_depth", "Events that waited at the end of those turns.", "class", measured.mailboxes),
            (
                "actor_storage_commit_seconds",
                "How long a group of writes took to become durable, of the shared store or of SQL classes.",
                "storage",
                measured.commits,
            ),
        ):
            yield _histogram(
                name, what, [label], [((value,), Distribution.of(one)) for value, one in histograms.items()]
            )
        late = [((), Distribution.of(measured.timers))]
        yield _histogram("event_loop_lag_seconds", "How late timers fired: whatever is to run waits as long.", [], late)


def _histogram(
    name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], Distribution]]
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for shown, one in values:
        bounds = [*map(floatToGoString, one.bounds), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(one.counts)), strict=True))
        family.add_metric(list(shown), buckets, one.total)
    found: Metric = family
    return found


def _gauge(name: str, text: str, labels: Sequence[str], values: Any) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def _counter(name: str, text: str, labels: Sequence[str], values: Any) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _filled(family: Any, values: Any) -> Metric:
    for labels, value in values:
        family.add_metric(list(labels), float(value))
    found: Metric = family
    return found
