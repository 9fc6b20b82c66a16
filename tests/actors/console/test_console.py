"""The console's API: who is let in, what they see, what they do, and that it is written down."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from actors.app import app
from actors.console.failed_tries import TRIES
from actors.console.lights import SourceFacts, clients_light, sources_light
from actors.settings import ConsoleSettings, Settings, SourceSettings
from runtime import Request, Secret
from runtime.testing import start_server

QUIET = Settings(sources_enabled=False)
PASSWORD = "correct horse battery"
LOCKED = attrs.evolve(QUIET, console=ConsoleSettings(passwords=(Secret("another password"), Secret(PASSWORD))))
MEANT = {"x-heliograph-console": "1"}


async def get(server, path, status=200, **headers):
    answer = await server.request("GET", f"/console/api{path}", headers=headers)
    assert answer.status == status, answer.body
    return json.loads(answer.body)


async def post(server, path, body=None, status=200, headers=MEANT):
    answer = await server.request("POST", f"/console/api{path}", json_body=body, headers=headers)
    assert answer.status == status, answer.body
    return json.loads(answer.body) if answer.body else {}


async def signed_in(server, password=PASSWORD):
    answer = await server.request("POST", "/console/api/login", json_body={"password": password}, headers=MEANT)
    assert answer.status == 204, answer.body
    return answer.headers["set-cookie"]


class Following:
    """What a stream says, signal by signal."""

    def __init__(self, ws):
        self._ws = ws
        self._waiting = []

    async def next(self):
        while not self._waiting:
            for line in (await self._ws.get_message()).splitlines():
                self._waiting += json.loads(line).get("d", ())
        return self._waiting.pop(0)


@asynccontextmanager
async def overviews(server, path="/console/stream"):
    """A connection to the hidden stream, or to another one."""
    async with server.connect(path, subprotocols=["signals.v1.json"]) as ws:
        await ws.send_message(json.dumps({"t": "hello", "id": 1, "subs": [{"s": "a", "filter": {}}]}))
        yield Following(ws)


async def until(signals, seen):
    with trio.fail_after(10):
        while True:
            signal = await signals.next()
            if signal["type"] == "console.overview" and seen(signal["data"]):
                return signal["data"]


def light(overview, name):
    return next(one for one in overview["lights"] if one["id"] == name)


# --- who is let in ----------------------------------------------------------------------------------------


async def test_without_a_password_only_this_machine_is_answered(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        assert (await get(server, "/session"))["operator"] == "local"
        for header in ("x-forwarded-for", "forwarded", "x-real-ip"):
            refused = await get(server, "/session", 403, **{header: "for=192.0.2.7"})
            assert refused["slug"] == "loopback_only"
            assert "console.password" in refused["msg"]
        async with await server.network.connect("127.0.0.1", 8787, peer="192.0.2.7") as stream:
            await stream.send_all(b"GET /console/api/session HTTP/1.1\r\nHost: 127.0.0.1:8787\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 403")


async def test_with_a_password_everybody_has_to_sign_in_and_stays_so_over_restarts(autojump_clock):
    async with start_server(app, settings=LOCKED) as server:
        assert (await get(server, "/session", 401))["slug"] == "login_required"
        cookie = await signed_in(server)
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Path=/console" in cookie
        shown = cookie.partition(";")[0]
        assert (await get(server, "/session", cookie=shown))["operator"] == "password"
        await server.restart()
        assert (await get(server, "/actors", cookie=shown))["total"] > 0
        await post(server, "/logout", status=204, headers={**MEANT, "cookie": shown})
        await get(server, "/session", 401, cookie=shown)


async def test_a_session_ends_by_itself(autojump_clock):
    settings = attrs.evolve(QUIET, console=ConsoleSettings(passwords=(Secret(PASSWORD),), session_s=600))
    async with start_server(app, settings=settings) as server:
        shown = (await signed_in(server)).partition(";")[0]
        await trio.sleep(599)
        await get(server, "/session", cookie=shown)
        await trio.sleep(2)
        await get(server, "/session", 401, cookie=shown)


async def test_what_is_stored_of_a_session_lets_nobody_in(autojump_clock):
    async with start_server(app, settings=LOCKED) as server:
        shown = (await signed_in(server)).partition(";")[0].partition("=")[2]
        stored = await server.run_in(
            server.env.consoles.get_by_name("console"), lambda actor: repr(actor.ctx.storage.list())
        )
        assert shown not in stored
        assert PASSWORD not in stored


async def test_wrong_passwords_are_refused_and_then_throttled(autojump_clock):
    async with start_server(app, settings=LOCKED) as server:
        for _ in range(TRIES):
            assert (await post(server, "/login", {"password": "wrong"}, 401))["slug"] == "unauthenticated"
        answer = await server.request("POST", "/console/api/login", json_body={"password": PASSWORD}, headers=MEANT)
        assert answer.status == 429
        await trio.sleep(float(answer.headers["retry-after"]))
        await signed_in(server)
        for body in ({}, {"password": 1}, []):
            await post(server, "/login", body, 400)


async def test_a_console_that_is_switched_off_is_not_there(autojump_clock):
    settings = attrs.evolve(QUIET, console=ConsoleSettings(enabled=False))
    async with start_server(app, settings=settings) as server:
        for path in ("/console", "/console/", "/console/assets/console.js", "/console/api/session", "/console/stream"):
            assert (await server.request("GET", path)).status == 404


def test_a_short_password_is_refused():
    with pytest.raises(ValueError, match="has 5 characters; must be at least 12"):
        ConsoleSettings(passwords=(Secret("short"),))


async def test_a_server_that_somebody_looks_at_goes_down_at_once(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        async with overviews(server) as signals:
            await until(signals, lambda seen: True)
            assert (await server.request("POST", "/v1/tickets")).status == 201
            begun = trio.current_time()
            await server.stop()
            assert trio.current_time() - begun < 3


# --- what was meant ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-heliograph-console": "yes"},
        {**MEANT, "sec-fetch-site": "cross-site"},
        {**MEANT, "sec-fetch-site": "same-site"},
    ],
)
async def test_a_request_that_changes_something_must_be_meant(autojump_clock, headers):
    async with start_server(app, settings=QUIET) as server:
        refused = await post(server, "/actors/shards/shard-0/abort", {}, 403, headers)
        assert refused["slug"] == "not_meant"
        assert (await get(server, "/audit"))["total"] == 0


async def test_no_page_of_another_site_opens_the_stream(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        answer = await server.request("GET", "/console/stream", headers={"sec-fetch-site": "cross-site"})
        assert answer.status == 403


async def test_every_deed_is_written_down_with_what_came_of_it_and_is_durable(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        await get(server, "/session")
        await post(server, "/actors/consoles/console/abort")
        await post(server, "/actors/shards/nobody/evict", status=409)
        await post(server, "/actors/nowhere/x/evict", status=404)
        await server.restart()
        found = await get(server, "/audit")
        assert [(one["what"], one["target"], one["result"][:30]) for one in found["entries"]] == [
            ("evict", "nowhere/x", "no namespace 'nowhere'; there "),
            ("evict", "shards/nobody", "Cannot evict Durable Object: i"),
            ("abort", "consoles/console", "done"),
        ]
        assert {one["who"] for one in found["entries"]} == {"local"}
        assert (await get(server, "/audit?offset=2&limit=1"))["entries"] == found["entries"][2:]


# --- actors -----------------------------------------------------------------------------------------------


async def test_actors_are_found_sorted_and_cut_into_windows(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        for n in range(30):
            await server.env.echoes.get_by_name(f"echo {n:02}").fetch(Request())
        found = await get(server, "/actors?class=Echo&sort=class&limit=5&offset=5")
        assert [one["name"] for one in found["actors"]] == [f"echo {n:02}" for n in range(5, 10)]
        assert found["matched"] == 30
        assert "Echo" in found["classes"]
        assert (await get(server, "/actors?q=echo&sort=id&limit=1"))["actors"][0]["name"] == "echo 00"
        down = await get(server, "/actors?class=Echo&sort=class&desc=1&limit=1")
        assert down["actors"][0]["name"] == "echo 29"
        one = (await get(server, "/actors?q=ECHO%2007"))["actors"]
        assert [(row["name"], row["state"], row["last_event"]) for row in one] == [("echo 07", "idle", "fetch")]
        by_id = await get(server, f"/actors?q={one[0]['id'][:12]}")
        assert by_id["matched"] == 1


@pytest.mark.parametrize(
    ("query", "at"),
    [
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("offset=-1", "offset"),
        ("sort=beauty", "sort"),
        ("state=x", "state"),
    ],
)
async def test_a_query_that_cannot_be_answered_says_why(autojump_clock, query, at):
    async with start_server(app, settings=QUIET) as server:
        refused = await get(server, f"/actors?{query}", 400)
        assert (refused["slug"], refused["at"]) == ("bad_query", at)


async def test_what_an_actor_stores_is_read_page_by_page(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        for n in range(3):
            await post(server, "/publish", {"type": "a.b", "entity": "e", "data": {"n": n}}, 201)
        first = await get(server, "/actors/broadcasters/main/storage?prefix=log/&limit=2")
        assert len(first["entries"]) == 2
        rest = await get(server, f"/actors/broadcasters/main/storage?prefix=log/&after={first['next']}")
        assert (len(rest["entries"]), rest["next"]) == (1, None)
        assert '"n": 2' in rest["entries"][0]["text"]
        shown = await get(server, "/actors/broadcasters/main?bookmark=1")
        assert shown["bookmark"]
        assert shown["class"] == "SignalBroadcaster"


async def test_sql_is_for_actors_with_a_database_of_their_own(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        refused = await post(server, "/actors/broadcasters/main/sql", {"query": "SELECT 1"}, 400)
        assert (refused["slug"], refused["msg"]) == ("refused", "this actor has no database of its own")
        await post(server, "/actors/broadcasters/main/sql", {"query": ""}, 400)


# --- the overview and its lights --------------------------------------------------------------------------


async def test_nothing_is_done_while_nobody_looks(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        head = (await server.env.broadcasters.get_by_name("console").observe()).head
        await trio.sleep(60)
        assert (await server.env.broadcasters.get_by_name("console").observe()).head == head
        async with overviews(server) as signals:
            await until(signals, lambda seen: True)
        await trio.sleep(10)
        head = (await server.env.broadcasters.get_by_name("console").observe()).head
        await trio.sleep(60)
        assert (await server.env.broadcasters.get_by_name("console").observe()).head == head


async def test_the_overview_counts_signals_deliveries_and_connections(autojump_clock):
    async with start_server(app, settings=QUIET) as server, overviews(server) as signals:
        async with overviews(server, "/v1/stream"), overviews(server, "/v1/stream"):
            await until(signals, lambda seen: seen["connections"] == 2)
            await post(server, "/publish", [{"type": "a.b", "entity": "e", "data": n} for n in range(50)], 201)
            seen = await until(signals, lambda seen: seen["signals_per_s"])
            assert seen["signals_per_s"] == pytest.approx(50, rel=0.1)
            assert seen["deliveries_per_s"] == pytest.approx(100, rel=0.1)
            assert seen["fanout_ms"]["p99"] is not None
            assert (seen["head"], seen["retained"]["signals"]) == (50, 50)
        series = await get(server, "/overview/series?minutes=1")
        assert len(series["at"]) == len(series["signals_per_s"]) == len(series["p99_ms"])
        assert max(value or 0 for value in series["signals_per_s"]) == pytest.approx(50, rel=0.1)


async def test_a_failing_actor_turns_its_light_amber_within_two_seconds(autojump_clock):
    async with start_server(app, settings=QUIET) as server, overviews(server) as signals:
        await until(signals, lambda seen: light(seen, "actors")["state"] == "green")
        await server.env.echoes.get_by_name("e").fetch(Request())
        server.abort(server.env.echoes.get_by_name("e"), "broken by the test")
        with trio.fail_after(2):
            seen = await until(signals, lambda seen: light(seen, "actors")["state"] == "amber")
        assert "echoes('e'): ActorReset: broken by the test" in light(seen, "actors")["seen"]
        assert seen["actors"]["failing"] == 1


async def test_a_stopped_source_turns_its_light_amber_within_two_seconds_and_goes_on_when_told(autojump_clock):
    settings = Settings(sources=(SourceSettings(kind="host", schedule="@every 1s"),))
    async with start_server(app, settings=settings) as server, overviews(server) as signals:
        await until(signals, lambda seen: light(seen, "sources")["state"] == "green")
        await post(server, "/ingest/host/pause")
        with trio.fail_after(2):
            seen = await until(signals, lambda seen: light(seen, "sources")["state"] == "amber")
        assert light(seen, "sources")["seen"] == "host is paused"
        head = seen["head"]
        await server.restart()  # it stays so
    async with start_server(app, settings=settings, store=server.store) as server, overviews(server) as signals:
        seen = await until(signals, lambda seen: light(seen, "sources")["state"] == "amber")
        await trio.sleep(5)
        assert (await get(server, "/ingest"))["sources"][0]["next"] is None
        await post(server, "/ingest/host/run", status=409)
        await post(server, "/ingest/host/resume")
        await until(signals, lambda seen: light(seen, "sources")["state"] == "green" and seen["head"] > head)
        await post(server, "/ingest/host/run")
        await post(server, "/ingest/nobody/run", status=404)


def test_a_slow_client_is_amber_and_many_are_red():
    assert clients_light(0, 100, None).state == "green"
    assert (clients_light(1, 100, "s_1").state, clients_light(1, 1, "s_1").state) == ("amber", "amber")
    assert clients_light(11, 100, "s_1").state == "red"


def test_sources_are_amber_when_one_fails_or_is_paused_and_red_when_all_of_several_fail():
    good = SourceFacts(name="a", failing=False, overdue=False, paused=False)
    bad = attrs.evolve(good, name="b", failing=True)
    late, paused = attrs.evolve(good, name="c", overdue=True), attrs.evolve(good, name="d", paused=True)
    assert [sources_light(seen).state for seen in ([], [good], [good, bad], [good, late], [good, paused])] == [
        "green",
        "green",
        "amber",
        "amber",
        "amber",
    ]
    assert (sources_light([bad]).state, sources_light([bad, late]).state) == ("amber", "red")


async def test_streams_are_followed_with_the_operators_rights(autojump_clock):
    async with start_server(app, settings=attrs.evolve(LOCKED, streams=("other",))) as server:
        shown = (await signed_in(server)).partition(";")[0]
        async with server.connect("/console/streams/other", headers={"cookie": shown}) as ws:
            await ws.send_message('{"t":"hello","id":1}')
            assert json.loads(await ws.get_message())["t"] == "welcome"
        assert (await server.request("GET", "/console/streams/none", headers={"cookie": shown})).status == 404
        assert (await server.request("GET", "/v1/streams/console")).status == 404


async def test_to_look_at_the_console_keeps_nobody_busy_and_wakes_nobody(autojump_clock):
    hourly = SourceSettings(kind="host", name="hourly", schedule="@hourly")
    async with start_server(app, settings=Settings(sources=(hourly,), shards=4)) as server:
        async with overviews(server) as signals:
            await until(signals, lambda data: data["connections"] == 0)
            await trio.sleep(30)
            await until(signals, lambda data: True)
            busy = {one.id.name for one in server.env.operator.actors() if one.state != "hibernated"}
            assert busy.isdisjoint({"hourly", *(f"shard-{number}" for number in range(4))})
            await get(server, "/ingest")
            await post(server, "/ingest/hourly/pause")
            seen = await until(signals, lambda data: light(data, "sources")["state"] == "amber")
            assert "hourly is paused" in light(seen, "sources")["seen"]
