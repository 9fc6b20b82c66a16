"""Connections in the console: who is there, what is said to one of them, and how it ends."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from actors.app import app
from actors.flight_recorder import EVENTS_KEPT, TEXT_CHARACTERS
from actors.inspecting import LOOK_S, RECORDERS
from actors.protocol.limits import Limits
from actors.protocol.requests import PING
from actors.settings import AuthSettings, ConnectionSettings, Settings
from runtime import Secret
from runtime.testing import start_server
from tests.actors.console.test_console import QUIET, get, post
from tests.actors.events import listening

TOKEN = "a-static-token-of-many-characters"
LOCKED = attrs.evolve(QUIET, auth=AuthSettings(tokens=(Secret(TOKEN),)))
SMALL = Settings(sources_enabled=False, shards=1, limits=Limits(backlog_bytes=400_000, backlog_ms=5_000))
SDK = {"name": "desk", "version": "1.2.3", "sdk": "js"}


class Client:
    """A client that says what it is told to."""

    def __init__(self, ws, welcome):
        self.ws = ws
        self.session = welcome["session"]
        self.welcome = welcome

    async def say(self, **message):
        await self.ws.send_message(json.dumps(message))

    async def hear(self, kind):
        """The next message of a kind; what comes before it is passed over."""
        with trio.fail_after(10):
            while True:
                for line in (await self.ws.get_message()).splitlines():
                    message = json.loads(line)
                    if message["t"] == kind:
                        return message


@asynccontextmanager
async def client(server, path="/v1/stream", subs=({"s": "a", "filter": {}},), encoding="json", **hello):
    async with server.connect(path, subprotocols=[f"signals.v1.{encoding}"]) as ws:
        await ws.send_message(json.dumps({"t": "hello", "id": 1, "client": SDK, "subs": list(subs), **hello}))
        (welcome, *_) = (json.loads(line) for line in (await ws.get_message()).splitlines())
        assert welcome["t"] == "welcome"
        yield Client(ws, welcome)


async def stay(server, task_status):
    async with client(server) as one:
        task_status.started(one)
        await trio.sleep_forever()


async def rows(server, query=""):
    found = await get(server, f"/connections?{query}")
    assert found["total"] >= len(found["rows"])
    return found["rows"]


async def look(server, one, stream="main"):
    return await get(server, f"/connections/{stream}/{one.session}")


async def publish(server, count, stream="main", data=0):
    for _ in range(count):
        await post(server, f"/publish?stream={stream}", {"type": "a.b", "entity": "e", "data": data}, 201)


# --- who is there -----------------------------------------------------------------------------------------


async def test_a_row_says_who_is_connected_and_what_they_got(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client(server) as one:
        await publish(server, 3)
        for _ in range(3):
            await one.hear("sig")
        await one.say(t="ack", c={"a": 1})
        await trio.sleep(7)
        (row,) = await rows(server)
        assert row["session"] == one.session
        assert (row["stream"], row["user"], row["sdk"], row["encoding"]) == ("main", None, "js/1.2.3", "json")
        assert (row["sent"], row["dropped"], row["conflated"], row["subs"]) == (3, 0, 0, 1)
        assert (row["lag"], row["state"], row["backlog_bytes"]) == (2, "open", 0)
        assert 7_000 <= row["age_ms"] < 8_000
        assert row["sent_bytes"] > 3 * len('{"type":"a.b","entity":"e"}')


async def test_age_and_sdk_outlive_the_instance_of_their_shard(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client(server) as one:
        await trio.sleep(30)
        (row,) = await rows(server)
        await server.evict(server.env.shards.get_by_name(f"shard-{row['shard']}"))
        (row,) = await rows(server)
        assert (row["session"], row["sdk"]) == (one.session, "js/1.2.3")
        assert row["age_ms"] >= 30_000


async def test_connections_of_all_shards_and_streams_are_sorted_filtered_and_cut_into_windows(autojump_clock):
    settings = attrs.evolve(QUIET, streams=("other",))
    async with start_server(app, settings=settings) as server, trio.open_nursery() as nursery:
        sessions = []

        async def stay(number, path, task_status):
            subs = [{"s": f"s{n}", "filter": {}} for n in range(number)]
            async with client(server, path, subs) as one:
                sessions.append(one.session)
                task_status.started()
                await trio.sleep_forever()

        for number in range(6):
            await nursery.start(stay, number, "/v1/stream" if number % 2 else "/v1/streams/other")
        assert len({row["shard"] for row in await rows(server)}) > 1
        assert [row["session"] for row in await rows(server, "sort=subs")] == sessions
        assert [row["subs"] for row in await rows(server, "sort=subs&desc=1&offset=1&limit=3")] == [4, 3, 2]
        assert {row["stream"] for row in await rows(server)} == {"main", "other"}
        (row,) = await rows(server, f"q={sessions[2].upper()}")
        assert row["subs"] == 2
        found = await get(server, "/connections?state=slow")
        assert (found["total"], found["rows"]) == (0, [])
        assert (await get(server, "/connections?offset=6"))["total"] == 6
        nursery.cancel_scope.cancel()


async def test_round_trips_are_shown_and_sorted_by_where_the_network_knows_them(autojump_clock):
    async with start_server(app, settings=QUIET) as server, trio.open_nursery() as nursery:
        sessions = []
        for round_trip_s in (0.25, None, 0.0125):
            one = await nursery.start(stay, server)
            sessions.append(one.session)
            server.network.connections[-1].round_trip_s = round_trip_s
        async with listening(server):
            server.network.connections[-1].round_trip_s = 0.001
            found = {row["session"]: row["rtt_ms"] for row in await rows(server)}
            assert [found[session] for session in sessions] == [250, None, 12.5]
            by_trip = await rows(server, "sort=rtt_ms")
            assert [row["rtt_ms"] for row in by_trip] == [12.5, 250, None, None]
            assert "events" in [row["encoding"] for row in by_trip[2:]]
            assert [row["rtt_ms"] for row in await rows(server, "sort=rtt_ms&desc=1")] == [250, 12.5, None, None]
            assert (await look(server, one))["rtt_ms"] == 12.5
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("desc", ["", "&desc=1"])
async def test_what_is_not_known_comes_last_whatever_the_order(autojump_clock, desc):
    async with start_server(app, settings=QUIET) as server, client(server), client(server) as told, client(server):
        await told.say(t="ack", c={"a": 0})
        await trio.sleep(1)
        assert [row["lag"] for row in await rows(server, f"sort=lag{desc}")] == [0, None, None]


@pytest.mark.parametrize(
    ("query", "at"), [("limit=201", "limit"), ("sort=beauty", "sort"), ("state=x", "state"), (f"q={'x' * 129}", "q")]
)
async def test_a_query_that_cannot_be_answered_says_why(autojump_clock, query, at):
    async with start_server(app, settings=QUIET) as server:
        refused = await get(server, f"/connections?{query}", 400)
        assert (refused["slug"], refused["at"]) == ("bad_query", at)


async def test_whoever_has_not_said_hello_is_shown_and_can_be_closed(autojump_clock):
    async with start_server(app, settings=QUIET) as server, server.connect("/v1/stream") as ws:
        (row,) = await rows(server, "state=hello")
        assert (row["session"].partition("~")[0], row["user"], row["sdk"]) == ("", None, "")
        await post(server, f"/connections/main/{row['session']}/close")
        with pytest.raises(Exception, match="4201"):
            await ws.get_message()


async def test_what_a_slow_client_did_not_get_is_counted(autojump_clock):
    async with start_server(app, settings=SMALL) as server:
        async with client(server, subs=[{"s": "a", "filter": {}, "on_slow": "skip"}]) as one:
            await look(server, one)
            await publish(server, 200, data="x" * 20_000)
            (row,) = await rows(server)
            assert row["state"] == "slow"
            shown = await look(server, one)
            assert shown["subscriptions"][0]["state"] == "slow"
            assert shown["events"][-1]["kind"] == "slow"
            got, upto = 0, 0
            with trio.fail_after(60):
                while upto < 200:
                    for line in (await one.ws.get_message()).splitlines():
                        message = json.loads(line)
                        got += len(message.get("d", ()))
                        upto = message["b"]
            await trio.sleep(2)
            (row,) = await rows(server)
            assert row["state"] == "open"
            kinds = [event["kind"] for event in (await look(server, one))["events"]]
            assert kinds[-3:] == ["slow", "live", "gap"]
            assert kinds.count("sig") == got
            assert row["dropped"] == 200 - got > 0
            assert row["sent"] == got


async def test_a_client_of_latest_is_shown_what_newer_ones_replaced(autojump_clock):
    async with start_server(app, settings=SMALL) as server:
        async with client(server, subs=[{"s": "a", "filter": {}, "mode": "latest", "min_ms": 1_000}]):
            await publish(server, 1)
            await trio.sleep(2)
            await publish(server, 1)
            await publish(server, 9)
            await trio.sleep(2)
            (row,) = await rows(server)
            assert row["sent"] + row["conflated"] == 11
            assert row["conflated"] >= 8


# --- the flight recorder ----------------------------------------------------------------------------------


async def test_an_opened_connection_shows_its_subscriptions_and_what_is_said_from_then_on(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client(server) as one:
        await publish(server, 2)
        shown = await look(server, one)
        assert [event["kind"] for event in shown["events"]] == ["recording"]
        (sub,) = shown["subscriptions"]
        assert (sub["sid"], sub["filter"], sub["mode"], sub["state"], sub["on_slow"]) == (
            "a",
            {},
            "all",
            "live",
            "close",
        )
        assert (sub["position"], sub["matched"]) == (2, 2)
        await one.say(t="sub", id=2, s="b", filter={"types": ["x.>"]})
        await one.hear("live")
        await publish(server, 1)
        await one.ws.send_message("{")
        await one.hear("err")
        events = (await look(server, one))["events"]
        assert [(event["dir"], event["kind"]) for event in events[1:]] == [
            ("in", "sub"),
            ("out", "subok"),
            ("out", "live"),
            ("out", "sig"),
            ("in", "unreadable"),
            ("out", "err"),
        ]
        assert json.loads(events[1]["text"])["filter"] == {"types": ["x.>"]}
        assert "1 signal in 2–3" in events[4]["text"]
        assert all(event["bytes"] > 0 for event in events if event["kind"] in {"sub", "subok", "live", "sig"})
        assert sorted(event["at"] for event in events) == [event["at"] for event in events]


async def test_the_flight_recorder_keeps_the_last_200_events_and_cuts_long_texts(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client(server, subs=()) as one:
        await look(server, one)
        for n in range(EVENTS_KEPT):
            await one.say(t="pub", id=n + 2, signal={"type": "a.b", "entity": "e", "data": "x" * 2_000})
            await one.hear("ok")
        events = (await look(server, one))["events"]
        assert len(events) == EVENTS_KEPT
        assert events[-1]["kind"] == "ok"
        assert max(len(event["text"]) for event in events) == TEXT_CHARACTERS
        assert max(event["bytes"] for event in events) > 2_000


async def test_nothing_is_recorded_a_minute_after_the_last_look(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client(server) as one:
        await look(server, one)
        for _ in range(4):
            await trio.sleep(LOOK_S / 5)
            await one.ws.send_message(PING)  # its shard does not hear of it
        await publish(server, 1)
        assert [event["kind"] for event in (await look(server, one))["events"]] == ["recording", "sig"]
        for _ in range(6):
            await trio.sleep(LOOK_S / 5)
            await one.ws.send_message(PING)  # its shard does not hear of it
        await publish(server, 1)
        assert [event["kind"] for event in (await look(server, one))["events"]] == ["recording"]


async def test_of_many_opened_connections_the_one_longest_unseen_is_recorded_no_more(autojump_clock):
    async with start_server(app, settings=SMALL) as server, trio.open_nursery() as nursery:
        many = []

        async def stay(task_status):
            async with client(server) as one:
                many.append(one)
                task_status.started()
                await trio.sleep_forever()

        for _ in range(RECORDERS + 1):
            await nursery.start(stay)
        for one in many:
            await look(server, one)
        await publish(server, 1)
        assert [event["kind"] for event in (await look(server, many[-1]))["events"]] == ["recording", "sig"]
        assert [event["kind"] for event in (await look(server, many[0]))["events"]] == ["recording"]
        nursery.cancel_scope.cancel()


async def test_no_token_is_in_what_was_recorded(autojump_clock):
    web_token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
    async with start_server(app, settings=LOCKED) as server, server.connect("/v1/stream") as ws:
        (row,) = await rows(server)
        await get(server, f"/connections/main/{row['session']}")
        hello = {"t": "hello", "id": 1, "token": TOKEN, "resume": "of another time"}
        await ws.send_message(json.dumps(hello))
        welcome = json.loads(await ws.get_message())
        for message in (
            {"t": "auth", "id": 2, "token": TOKEN},
            {"t": web_token, "id": 3},
            {"t": "sub", "id": 4, "s": web_token},
        ):
            await ws.send_message(json.dumps(message))
            await ws.get_message()
        seen = await get(server, f"/connections/main/{welcome['session']}")
        kinds = [event["kind"] for event in seen["events"]]
        assert kinds[:5] == ["recording", "hello", "welcome", "auth", "ok"]
        for secret in (TOKEN, welcome["resume"], hello["resume"], web_token, web_token.split(".")[0]):
            assert secret not in json.dumps(seen)


# --- what may be done -------------------------------------------------------------------------------------


async def test_a_connection_is_closed_with_a_code_and_a_reason_and_it_is_written_down(autojump_clock):
    async with start_server(app, settings=QUIET) as server, client(server) as one:
        await post(server, f"/connections/main/{one.session}/close", {"code": 4110, "reason": "too much"})
        with pytest.raises(Exception, match="4110"):
            await one.hear("nothing")
        gone = await get(server, f"/connections/main/{one.session}", 404)
        assert gone["slug"] == "no_connection"
        await post(server, f"/connections/main/{one.session}/close", status=404)
        assert [(entry["what"], entry["target"]) for entry in (await get(server, "/audit"))["entries"]] == [
            ("close connection", f"main/{one.session}")
        ] * 2


async def test_a_client_that_knows_goaway_is_told_and_one_that_does_not_is_closed(autojump_clock):
    settings = attrs.evolve(QUIET, connections=ConnectionSettings(handover_s=10))
    async with start_server(app, settings=settings) as server:
        async with client(server, features=["goaway"]) as moves, client(server) as stays:
            for one in (moves, stays):
                await look(server, one)
                await post(server, f"/connections/main/{one.session}/goaway")
            assert (await moves.hear("goaway"))["reason"] == "rebalance"
            assert (await look(server, moves))["state"] == "leaving"
            with pytest.raises(Exception, match="4201"):
                await stays.hear("nothing")
            await publish(server, 1)
            await moves.hear("sig")  # served until it has gone
            events = (await look(server, moves))["events"]
            assert "goaway" in [event["kind"] for event in events]


@pytest.mark.parametrize(
    ("body", "at"),
    [({"code": 1006}, "/code"), ({"code": True}, "/code"), ({"reason": "x" * 124}, "/reason"), ([], None)],
)
async def test_a_close_that_no_frame_can_carry_is_refused(autojump_clock, body, at):
    async with start_server(app, settings=QUIET) as server, client(server) as one:
        refused = await post(server, f"/connections/main/{one.session}/close", body, 400)
        assert refused.get("at") == at
        assert len(await rows(server)) == 1


async def test_there_is_nothing_of_a_stream_that_is_not_configured(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        assert (await get(server, "/connections/console/s_1", 404))["slug"] == "no_stream"
