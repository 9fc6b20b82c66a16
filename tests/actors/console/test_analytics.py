"""Analytics: what became of connections is counted, kept, added up by the hour and the day, and given as CSV."""

from __future__ import annotations

import csv
import io
import json
from contextlib import asynccontextmanager

import attrs
import trio

from actors.analytics.analytics import NAME
from actors.analytics.reporter import REPORT_S
from actors.analytics.tally import NAMES, Tally
from actors.app import app
from actors.settings import ConnectionSettings, ConsoleSettings
from runtime.testing import start_server
from tests.actors.console.test_console import QUIET, get
from tests.actors.events import listening

PATIENT = attrs.evolve(QUIET, connections=ConnectionSettings(ping_ms=600_000))
SUBPROTOCOL = ["signals.v1.json"]


@asynccontextmanager
async def client(server, sdk="heliograph-js", **hello):
    """One that has said hello; gives its welcome."""
    async with server.connect("/v1/stream", subprotocols=SUBPROTOCOL) as ws:
        about = {"name": "desk", "version": "1.0", "sdk": sdk}
        message = {"t": "hello", "id": 1, "client": about, "subs": [{"s": "a", "filter": {}}], **hello}
        await ws.send_message(json.dumps(message))
        while (welcome := json.loads((await ws.get_message()).splitlines()[0]))["t"] != "welcome":
            pass
        yield welcome


async def table(server, span):
    answer = await server.request("GET", f"/console/api/analytics.csv?span={span}")
    assert answer.status == 200, answer.body
    assert answer.headers["content-disposition"].startswith("attachment")
    return list(csv.DictReader(io.StringIO(answer.body.decode())))


def known(series, name):
    return [value for value in series[name] if value is not None]


async def test_connections_are_counted_by_the_minute_and_by_the_hour(autojump_clock):
    async with start_server(app, settings=PATIENT) as server:
        async with client(server), client(server, sdk="python"):
            await server.request("POST", "/v1/signals", json_body=[{"type": "t.a", "entity": "e", "data": 1}])
            await trio.sleep(61)
        await trio.sleep(REPORT_S + 1)
        for span, step_ms in (("hour", 60_000), ("day", 600_000), ("week", 3_600_000), ("all", 86_400_000)):
            found = await get(server, f"/analytics?span={span}")
            assert found["step_ms"] == step_ms
            series = found["series"]
            assert max(known(series, "connections")) == 2
            assert sum(known(series, "opened")) == sum(known(series, "closed")) == 2
            assert max(known(series, "session_p99_s")) > 15
            assert 0 < max(known(series, "lag_p99_ms")) < 10
            assert found["sdks"] == [{"sdk": "heliograph-js/1.0", "count": 1}, {"sdk": "python/1.0", "count": 1}]
            assert [one["name"] for one in found["close_codes"]] == ["normal"]


async def test_deliveries_alone_are_told_within_five_seconds_too(autojump_clock):
    async with start_server(app, settings=PATIENT) as server, client(server):
        await trio.sleep(REPORT_S + 1)
        assert known((await get(server, "/analytics?span=hour"))["series"], "lag_p99_ms") == []
        await server.request("POST", "/v1/signals", json_body=[{"type": "t.a", "entity": "e", "data": 1}])
        await trio.sleep(REPORT_S + 1)
        assert len(known((await get(server, "/analytics?span=hour"))["series"], "lag_p99_ms")) == 1


async def test_a_client_that_comes_back_counts_as_a_reconnect(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        async with client(server) as welcome:
            pass
        async with client(server, resume=welcome["resume"]):
            await trio.sleep(REPORT_S + 1)
            series = (await get(server, "/analytics?span=hour"))["series"]
            assert sum(known(series, "reconnects")) == 1
            assert known(series, "reconnects_per_client")[-1] == 1


async def test_what_was_reported_survives_a_kill_and_at_most_five_seconds_are_lost(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        async with client(server):
            await trio.sleep(REPORT_S + 1)
        async with client(server):
            pass  # within the five seconds before the kill
        await server.crash()
        await server.start()
        assert sum(known((await get(server, "/analytics?span=hour"))["series"], "opened")) == 1


async def test_a_server_that_is_stopped_has_counted_everything(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        async with client(server):
            await server.restart()
        series = (await get(server, "/analytics?span=hour"))["series"]
        assert sum(known(series, "opened")) == 1
        assert sum(known(series, "closed")) == 1


async def test_sleeping_shards_are_counted_and_stay_asleep(autojump_clock):
    async with start_server(app, settings=PATIENT) as server:
        async with client(server):
            await trio.sleep(300)
            seen = [one for one in server.env.operator.actors() if one.sockets]
            assert [one.state for one in seen] == ["hibernated"]
            series = (await get(server, "/analytics?span=hour"))["series"]
            assert sum(known(series, "connections")) >= 5


async def test_event_sources_are_connections_too(autojump_clock):
    async with start_server(app, settings=PATIENT) as server:
        async with listening(server):
            await trio.sleep(150)
        await trio.sleep(REPORT_S + 1)
        found = await get(server, "/analytics?span=hour")
        assert known(found["series"], "connections")[:3] == [1, 1, 1]
        assert sum(known(found["series"], "closed")) == 1
        assert found["sdks"] == [{"sdk": "event source", "count": 1}]


async def test_while_nothing_happens_nobody_does_anything_and_everybody_counts_as_connected(autojump_clock):
    async with start_server(app, settings=PATIENT) as server, client(server):
        await trio.sleep(30)
        assert server.live_actors == 0
        await trio.sleep(600)
        assert server.live_actors == 0
        assert known((await get(server, "/analytics"))["series"], "connections")[-10:] == [1] * 10


async def test_of_the_time_without_a_process_nothing_is_known(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        async with client(server):
            await trio.sleep(REPORT_S + 1)
        await server.crash()
        await trio.sleep(20 * 60)
        await server.start()
        async with client(server):
            await trio.sleep(REPORT_S + 1)
        first, *between, last = (await get(server, "/analytics"))["series"]["connections"][-21:]
        assert (first, last) == (1, 1)
        assert set(between) == {None}


async def test_hours_are_forgotten_after_the_configured_days_and_minutes_after_a_day(autojump_clock):
    settings = attrs.evolve(QUIET, console=ConsoleSettings(analytics_days=2))
    async with start_server(app, settings=settings) as server:
        analytics = server.env.analytics.get_by_name(NAME)

        def rows(actor):
            return actor.ctx.storage.sql.exec("SELECT step, count(*) AS n FROM slots GROUP BY step").to_array()

        for _ in range(5 * 24):
            await analytics.report("shard-0", 0, Tally(opened=1))
            await trio.sleep(3_600)
        await analytics.report("shard-0", 0, Tally(opened=1))
        kept = {row["step"]: row["n"] for row in await server.run_in(analytics, rows)}
        assert kept == {60: 26, 3_600: 49}
        assert len(known((await get(server, "/analytics?span=all"))["series"], "opened")) == 2


async def test_a_spreadsheet_gets_a_row_for_each_step_with_codes_and_clients(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        async with client(server, sdk='=1+1,"x"'):
            pass
        await trio.sleep(REPORT_S + 1)
        (row,) = await table(server, "hour")
        assert row["from"].endswith("Z")
        assert (row["opened"], row["closed"], row["close 1000"]) == ("1", "1", "1")
        assert row['sdk =1+1,"x"/1.0'] == "1"
        assert (await get(server, "/analytics?span=year", 400))["slug"] == "bad_query"


async def test_of_many_names_of_clients_the_first_are_told_apart(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        analytics = server.env.analytics.get_by_name(NAME)
        for number in range(NAMES + 10):
            await analytics.report("shard-0", 0, Tally(sdks=((f"sdk-{number}", 1),)))
        sdks = (await get(server, "/analytics?span=hour"))["sdks"]
        assert len(sdks) == NAMES + 1
        assert sdks[0] == {"sdk": "other", "count": 10}


async def test_without_days_nothing_is_kept_and_the_page_is_not_there(autojump_clock):
    settings = attrs.evolve(QUIET, console=ConsoleSettings(analytics_days=0))
    async with start_server(app, settings=settings) as server:
        async with client(server):
            await trio.sleep(REPORT_S + 1)
        assert (await get(server, "/analytics", 404))["slug"] == "no_analytics"
        assert "analytics" not in (await get(server, "/session"))["pages"]
        assert not [one for one in server.env.operator.actors() if one.actor_class == "Analytics"]


async def test_the_hidden_stream_of_the_console_is_not_counted(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        async with server.connect("/console/stream", subprotocols=SUBPROTOCOL):
            await trio.sleep(REPORT_S + 1)
        assert known((await get(server, "/analytics"))["series"], "opened") == []


def test_a_tally_is_the_same_after_it_was_stored():
    tally = Tally(opened=3, reconnects=1, closes=((1000, 2),), sdks=(("js/1", 3),))
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally
    assert (tally + tally) - tally == tally
