"""`/metrics`: who may read it, what it says, and that Prometheus' own tools agree with it and with the alerts."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from actors.app import app
from actors.broadcaster import SignalBroadcaster
from actors.env import Env
from actors.metrics import ANSWER_S, metrics
from actors.protocol.limits import Limits
from actors.settings import AuthSettings, MetricsSettings, Settings, SourceSettings, StreamSettings
from actors.signals import Draft
from runtime import App, Namespace, Request, Secret
from runtime.testing import start_server

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docs" / "examples" / "monitoring"
QUIET = Settings(sources_enabled=False)
TOKEN = "a-token-of-the-metrics"
LOCKED = attrs.evolve(QUIET, metrics=MetricsSettings(tokens=(Secret("another-one-of-them"), Secret(TOKEN))))


async def scraped(server):
    answer = await server.request("GET", "/metrics")
    assert answer.status == 200, answer.body
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


async def subscribed(ws, sub):
    await ws.send_message(json.dumps({"t": "hello", "id": 1, "subs": [{"s": "a", "filter": {}, **sub}]}))
    while "welcome" not in await ws.get_message():
        pass


def promtool(*arguments, text=None, folder=None):
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no promtool: it comes with Debian's package prometheus")
        pytest.skip("no promtool: it comes with Debian's package prometheus")
    done = subprocess.run([found, *arguments], input=text, text=True, capture_output=True, cwd=folder)
    return done.returncode, done.stdout + done.stderr


async def test_without_a_token_only_this_machine_is_answered(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        assert (await server.request("GET", "/metrics")).status == 200
        refused = await server.request("GET", "/metrics", headers={"x-forwarded-for": "10.1.2.3"})
        assert refused.status == 403
        assert b"set metrics.tokens" in refused.body


async def test_with_a_token_whoever_shows_it_is_answered_and_nobody_else(autojump_clock):
    async with start_server(app, settings=LOCKED) as server:
        assert (await server.request("GET", "/metrics")).status == 401
        wrong = await server.request("GET", "/metrics", headers={"authorization": "Bearer a-token-of-nothing"})
        assert wrong.status == 401
        assert TOKEN.encode() not in wrong.body
        shown = {"authorization": f"Bearer {TOKEN}", "x-forwarded-for": "10.1.2.3"}
        assert (await server.request("GET", "/metrics", headers=shown)).status == 200


async def test_metrics_that_are_switched_off_are_not_there_and_other_methods_are_refused(autojump_clock):
    async with start_server(app, settings=attrs.evolve(QUIET, metrics=MetricsSettings(enabled=False))) as server:
        assert (await server.request("GET", "/metrics")).status == 404
        assert (await server.request("POST", "/metrics")).status == 405


def test_a_short_token_is_refused():
    with pytest.raises(ValueError, match="token 1 has 5 characters; must be at least 16"):
        MetricsSettings(tokens=(Secret("short"),))


async def test_what_happens_is_counted(autojump_clock):
    async with start_server(app, settings=attrs.evolve(QUIET, shards=1)) as server:
        async with server.connect("/v1/stream", subprotocols=["signals.v1.json"]) as ws:
            await subscribed(ws, {})
            signals = [{"type": "a.b", "entity": "e", "data": n} for n in range(7)]
            assert (await server.request("POST", "/v1/signals", json_body=signals)).status == 201
            await trio.sleep(1)
            now = await scraped(server)
            assert now["signals_stored_offset", "main"] == now["signals_retained", "main"] == 7
            assert now["signals_filter_groups", "main"] == 1
            assert now["signals_ws_connections", "main", "open"] == 1
            assert now["signals_deliveries_total", "shard-0"] == 7
            assert (
                now["signals_fanout_seconds_count", "shard-0"]
                == now["signals_fanout_seconds_bucket", "+Inf", "shard-0"]
            )
            assert now["signals_ws_handshakes_total", "accepted", "shard-0"] == 1
        await trio.sleep(1)
        now = await scraped(server)
        assert now["signals_ws_connections", "main", "open"] == 0
        assert sum(value for (name, *_), value in now.items() if name == "signals_ws_closes_total") == 1


async def test_bytes_of_messages_are_counted_both_ways(autojump_clock):
    async with start_server(app, settings=attrs.evolve(QUIET, shards=1)) as server:
        async with server.connect("/v1/stream", subprotocols=["signals.v1.json"]) as ws:
            await subscribed(ws, {})
            before = await scraped(server)
            said = json.dumps({"t": "unsub", "id": 2, "s": "a", "why": "ü"}, ensure_ascii=False)
            await ws.send_message(said)
            answer = await ws.get_message()
            now = await scraped(server)
            went_in = now["signals_ws_bytes_total", "in", "shard-0"] - before["signals_ws_bytes_total", "in", "shard-0"]
            went_out = (
                now["signals_ws_bytes_total", "out", "shard-0"] - before["signals_ws_bytes_total", "out", "shard-0"]
            )
            assert went_in == len(said.encode()) == len(said) + 1
            assert went_out == len(answer)
            assert before["signals_ws_bytes_total", "out", "shard-0"] > 200


async def test_how_old_signals_are_when_a_client_says_that_it_has_them(autojump_clock):
    async with start_server(app, settings=attrs.evolve(QUIET, shards=1)) as server:
        async with server.connect("/v1/stream", subprotocols=["signals.v1.json"]) as ws:
            await subscribed(ws, {})
            for data in (1, 2):
                await server.request("POST", "/v1/signals", json_body=[{"type": "a.b", "entity": "e", "data": data}])
                await trio.sleep(0.2)
                await ws.send_message(json.dumps({"t": "ack", "c": {"a": data}}))
                await trio.sleep(5)
            await ws.send_message(json.dumps({"t": "ack", "c": {"a": 2}}))  # not news
            await trio.sleep(1)
            now = await scraped(server)
            assert now["signals_e2e_seconds_count", "shard-0"] == 2
            assert now["signals_e2e_seconds_sum", "shard-0"] == pytest.approx(0.4, abs=0.01)


async def test_filters_that_are_refused_are_counted(autojump_clock):
    async with start_server(app, settings=attrs.evolve(QUIET, shards=1)) as server:
        async with server.connect("/v1/stream", subprotocols=["signals.v1.json"]) as ws:
            await subscribed(ws, {})
            assert (await scraped(server))["signals_filter_errors_total", "bad_filter", "shard-0"] == 0
            await ws.send_message(json.dumps({"t": "sub", "id": 2, "s": "b", "filter": {"types": 7}}))
            await ws.get_message()
            assert (await scraped(server))["signals_filter_errors_total", "bad_filter", "shard-0"] == 1


async def test_what_actors_store_is_told_by_class_where_that_is_known(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        before = await scraped(server)
        async with server.connect("/v1/stream", subprotocols=["signals.v1.json"]) as ws:
            await subscribed(ws, {})
            big = [{"type": "a.b", "entity": "e", "data": "x" * 10_000}]
            assert (await server.request("POST", "/v1/signals", json_body=big)).status == 201
            await trio.sleep(10)
        at_once = await scraped(server)
        assert at_once["actor_storage_bytes", "", "shared"] > before["actor_storage_bytes", "", "shared"] + 10_000
        assert ("actor_storage_bytes", "Analytics", "sql") not in at_once, "files are looked at once a minute"
        await trio.sleep(60)
        assert (await scraped(server))["actor_storage_bytes", "Analytics", "sql"] >= 4_096


async def test_sources_and_failing_actors_are_told(autojump_clock):
    source = SourceSettings(kind="command", name="broken", schedule="@every 1s", options={"argv": ["/nothing/there"]})
    async with start_server(app, settings=Settings(sources=(source,))) as server:
        for _ in range(600):  # of virtual time; a process is started really
            await trio.sleep(0.1)
            if (await scraped(server))["scheduler_failures_in_a_row", "broken"]:
                break
        else:
            pytest.fail("no failure was counted")
        await server.env.echoes.get_by_name("e").fetch(Request())
        server.abort(server.env.echoes.get_by_name("e"), "broken by the test")
        now = await scraped(server)
        assert now["actor_failing", "Echo"] == 1
        assert now["actor_restarts_total", "Echo", "reset"] == 1
        assert now["actor_restarts_total", "Echo", "error"] == now["actor_restarts_total", "Tickets", "reset"] == 0
        assert now["scheduler_runs_total", "broken", "failure"] >= 1
        assert now["scheduler_runs_total", "broken", "success"] == 0


async def test_sockets_that_outlive_an_eviction_are_no_new_handshakes_and_refusals_are_told_apart(autojump_clock):
    async with start_server(app, settings=attrs.evolve(QUIET, shards=1)) as server:
        async with server.connect("/v1/stream", subprotocols=["signals.v1.json"]) as ws:
            await subscribed(ws, {})
            await trio.sleep(6)  # it has told the analytics, and nobody's hello is due any more
            await server.evict(server.env.shards.get_by_name("shard-0"))
            assert (await server.request("GET", "/v1/stream")).status == 426
            now = await scraped(server)
    assert now["signals_ws_connections", "main", "open"] == 1
    assert now["signals_ws_handshakes_total", "accepted", "shard-0"] == 0
    assert now["signals_ws_handshakes_total", "refused", "shard-0"] == 1


async def test_what_clients_say_and_how_they_come_back_is_counted(autojump_clock, peer):
    async with start_server(app, settings=attrs.evolve(QUIET, shards=1)) as server:
        stream = server.env.broadcasters.get_by_name("main")
        async with peer(server) as one:
            welcome = await one.ask("hello", features=["ack"])
            assert (await one.ask("sub", s="a", filter={"where": {"f": "/data", "op": "gt", "v": 4}}))["t"] == "subok"
            assert (await one.receive())["t"] == "live"
            await stream.publish(tuple(Draft.of("a.b", "e", n) for n in range(10)))
            assert (await one.receive())["t"] == "sig"
            await one.send(t="ack", c={"a": 4})
            assert (await one.ask("nonsense"))["t"] == "err"
        async with peer(server, hello={"resume": welcome["resume"]}) as two:
            cursor = {"cursor": f"{welcome['epoch']}:3"}
            assert (await two.ask("sub", s="b", filter={}, **{"from": cursor}))["recovered"] is True
            while (await two.receive())["t"] != "live":
                pass
            now = await scraped(server)
    messages = {
        kind: now["signals_ws_messages_total", *sorted((kind, "shard-0"))] for kind in ("hello", "sub", "ack", "bad")
    }
    assert messages == {"hello": 2, "sub": 2, "ack": 1, "bad": 1}
    assert {key[1]: value for key, value in now.items() if key[0] == "signals_errors_total"} == {"bad_message": 1}
    assert now["signals_client_lag_signals_sum", "shard-0"] == 6
    assert now["signals_sessions_resumed_total", "new", "shard-0"] == 1
    assert now["signals_sessions_resumed_total", "resumed", "shard-0"] == 1
    assert now["signals_recovered_signals_sum", "shard-0"] == 7
    assert now["signals_recovery_seconds_count", "shard-0"] == now["signals_recovered_signals_count", "shard-0"] == 1
    assert now["signals_filter_evaluations_total", "main", "match"] == 5
    assert now["signals_filter_evaluations_total", "main", "no_match"] == 5


async def test_what_newer_signals_replaced_and_what_is_not_stored_any_more_is_counted(autojump_clock, peer):
    few = StreamSettings(retention_signals=5, retention_s=0)
    async with start_server(app, settings=attrs.evolve(QUIET, shards=1, stream=few)) as server:
        stream = server.env.broadcasters.get_by_name("main")
        async with peer(server) as one:
            welcome = await one.ask("hello", features=["latest"])
            await one.ask("sub", s="a", filter={}, mode="latest", min_ms=1_000)
            for n in range(21):
                await stream.publish((Draft.of("a.b", "e", n),))
                await trio.sleep(0.01)
            await trio.sleep(2)
            cursor = {"cursor": f"{welcome['epoch']}:3"}
            await one.ask("sub", s="b", filter={}, on_gap="skip", **{"from": cursor})
            await trio.sleep(2)
            now = await scraped(server)
    assert now["signals_deliveries_total", "shard-0"] == 2
    assert now["signals_conflated_total", "shard-0"] == 19
    oldest = now["signals_stored_offset", "main"] - now["signals_retained", "main"] + 1
    assert oldest > 4
    assert now["signals_skipped_total", "retention", "shard-0"] == oldest - 1 - 3


async def test_clients_that_do_too_much_are_counted_by_what_it_was(autojump_clock, peer):
    strict = attrs.evolve(
        QUIET,
        shards=1,
        auth=AuthSettings(tokens=(Secret(TOKEN),)),
        limits=Limits(rate_burst=3, connections_per_user=1),
    )
    async with start_server(app, settings=strict) as server:
        async with peer(server, {"token": TOKEN}) as one:
            async with peer(server) as more:
                await more.send(t="hello", id=1, token=TOKEN)
                assert (await more.closed())[0] == 4009
            for n in range(1, 8):
                await one.send(t="unsub", id=n, s="x")
            assert (await one.closed())[0] == 4107
        await trio.sleep(1)
        now = await scraped(server)
    limited = {key[1]: value for key, value in now.items() if key[0] == "signals_rate_limited_total"}
    assert limited == {"handshakes": 0, "messages": 1, "connections": 1}


async def test_turns_evictions_and_late_timers_are_told(autojump_clock, peer):
    async with start_server(app, settings=QUIET) as server:
        for _ in range(200):
            await server.env.echoes.get_by_name("e").fetch(Request())
        await server.evict(server.env.echoes.get_by_name("e"))
        async with peer(server, hello={}):
            await trio.sleep(60)  # its time to say hello and to stay silent is over then
        now = await scraped(server)
    assert 3 <= now["actor_turn_seconds_count", "Echo"] <= 4
    assert now["actor_mailbox_depth_count", "Echo"] == now["actor_turn_seconds_count", "Echo"]
    assert now["event_loop_lag_seconds_bucket", "+Inf"] > 0
    assert now["actor_evictions_total", "asked"] == 1


class Stuck(SignalBroadcaster):
    """A stream that does not answer an operator."""

    async def observe(self):
        await trio.sleep_forever()


@attrs.frozen(kw_only=True)
class StuckEnv(Env):
    broadcasters: Namespace[Stuck]


async def test_an_actor_that_does_not_answer_is_counted_and_hides_no_other(autojump_clock):
    stuck = App(env=StuckEnv, settings=Settings, routes={"/metrics": metrics})
    async with start_server(stuck, settings=attrs.evolve(QUIET, shards=1)) as server:
        await server.env.shards.get_by_name("shard-0").observe()
        begun = trio.current_time()
        now = await scraped(server)
        assert ANSWER_S <= trio.current_time() - begun < 2 * ANSWER_S
    assert now["heliograph_unanswered_actors",] == 1
    assert ("signals_retained", "main") not in now
    assert now["signals_deliveries_total", "shard-0"] == 0


async def test_a_scrape_wakes_no_shard_that_has_left_memory(autojump_clock):
    async with start_server(app, settings=attrs.evolve(QUIET, shards=1)) as server:
        async with server.connect("/v1/stream", subprotocols=["signals.v1.json"]) as ws:
            await subscribed(ws, {})
            await trio.sleep(6)  # it has told the analytics, and nobody's hello is due any more
            await server.evict(server.env.shards.get_by_name("shard-0"))
            for _ in range(2):
                now = await scraped(server)
                assert now["signals_ws_connections", "asleep", "main"] == 1
                assert ("signals_deliveries_total", "shard-0") not in now


async def test_a_scrape_wakes_no_shard_that_was_destroyed(autojump_clock):
    async with start_server(app, settings=attrs.evolve(QUIET, shards=1)) as server:
        async with server.connect("/v1/stream", subprotocols=["signals.v1.json"]) as ws:
            await subscribed(ws, {})
            server.abort(server.env.shards.get_by_name("shard-0"))
            for _ in range(2):
                now = await scraped(server)
                assert now["actor_failing", "ConnectionManager"] == 1
                assert ("signals_deliveries_total", "shard-0") not in now
                assert server.live_ids(server.env.shards) == []


async def test_the_numbers_are_written_as_prometheus_wants_them(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        async with server.connect("/v1/stream", subprotocols=["signals.v1.json"]) as ws:
            await subscribed(ws, {})
            asked = {"accept": "application/openmetrics-text; version=1.0.0"}
            answer = await server.request("GET", "/metrics", headers=asked)
            assert answer.headers["content-type"].startswith("application/openmetrics-text")
            assert list(open_metrics(answer.body.decode()))
            text = (await server.request("GET", "/metrics")).body.decode()
    assert promtool("check", "metrics", text=text) == (0, "")


def test_the_page_of_the_metrics_is_what_the_code_has():
    spec = importlib.util.spec_from_file_location("metric_table", ROOT / "docs" / "metric_table.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.PAGE.read_text(encoding="utf-8")
    assert page == script.written(page), "run: python docs/metric_table.py"


def test_what_is_watched_is_in_the_page():
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    panels = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    watched = "\n".join(target["expr"] for panel in panels for target in panel["targets"]) + "\n"
    watched += (MONITORING / "alerts.yml").read_text(encoding="utf-8")
    watched += (ROOT / "docs" / "how-to" / "monitor.md").read_text(encoding="utf-8")
    used = {
        name.removesuffix("_bucket")
        for name in re.findall(r"\b(?:signals|scheduler|actor|event_loop|heliograph)_\w+", watched)
    }
    assert len(used) > 10
    assert used <= known


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
)
def test_the_alerts_fire_when_they_should(arguments):
    status, said = promtool(*arguments, folder=MONITORING)
    assert status == 0, said
