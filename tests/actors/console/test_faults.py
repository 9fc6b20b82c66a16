"""Faults on purpose: only where they are wanted, bounded in time, written down, and seen in what they do to clients."""

from __future__ import annotations

from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio_websocket import ConnectionClosed

from actors.app import app
from actors.console.injection import BEGIN_S, KEPT, NAME, WATCHED_S
from actors.settings import ConsoleSettings, Settings
from runtime import Secret
from runtime.testing import start_server
from tests.actors.console.test_connection_routes import client as socket
from tests.actors.console.test_console import PASSWORD, QUIET, get, overviews, post, signed_in
from tests.actors.events import listening
from tests.actors.test_streams import client

ONE = attrs.evolve(QUIET, shards=1)


def served(settings: Settings = ONE, **options):
    return start_server(app, settings=settings, faults=True, **options)


@asynccontextmanager
async def following(server):
    """A client of the service that reconnects by itself; gives the data of the signals it has."""
    got = []

    async def read(sub):
        async for item in sub:
            got.append(item.data)  # noqa: PERF401 - while it goes on

    async with client(server) as one, one.subscribe() as sub, trio.open_nursery() as nursery:
        nursery.start_soon(read, sub)
        await trio.sleep(1)
        yield got
        nursery.cancel_scope.cancel()


async def inject(server, kind, status=200, **parameters):
    return await post(server, "/faults", {"kind": kind, "parameters": parameters}, status)


async def over(server):
    """What the last fault did, once nobody watches any more."""
    await trio.sleep(BEGIN_S + WATCHED_S + 2)
    found = await get(server, "/faults")
    while found["running"]:
        await trio.sleep(1)
        found = await get(server, "/faults")
    return found["past"][0]


# --- who may, and what ------------------------------------------------------------------------------------


async def test_without_the_option_nothing_can_be_made_to_fail_and_there_is_no_page(autojump_clock):
    async with start_server(app, settings=QUIET) as server:
        session = await get(server, "/session")
        assert session["faults"] is False
        assert "faults" not in session["pages"]
        assert (await get(server, "/faults", 404))["slug"] == "no_faults"
        assert (await inject(server, "kill process", 404))["slug"] == "no_faults"
        await post(server, "/faults/1/end", status=404)
        assert not [one for one in server.env.operator.actors() if one.actor_class == "FaultInjection"]


async def test_only_who_is_let_into_the_console_may_make_things_fail(autojump_clock):
    settings = attrs.evolve(ONE, console=ConsoleSettings(passwords=(Secret(PASSWORD),)))
    async with served(settings) as server:
        assert (await get(server, "/faults", 401))["slug"] == "login_required"
        await post(server, "/faults", {"kind": "kill process"}, 401)
        cookie = {"cookie": (await signed_in(server)).partition(";")[0]}
        await post(server, "/faults", {"kind": "kill process"}, 403, headers=cookie)  # not meant
        assert len((await get(server, "/faults", **cookie))["kinds"]) == 6
        await trio.sleep(2)
        assert server.kills == 0


@pytest.mark.parametrize(
    ("kind", "parameters", "at"),
    [
        ("set fire", {}, "/kind"),
        ("drop sockets", {"percent": 0}, "/parameters/percent"),
        ("drop sockets", {"percent": True}, "/parameters/percent"),
        ("stall sockets", {"seconds": 61}, "/parameters/seconds"),
        ("stall sockets", {"session": 1}, "/parameters/session"),
        ("stall sockets", {"session": "s", "percent": 50}, "/parameters/session"),
        ("stall sockets", {"session": "s", "stream": "nowhere"}, "/parameters/stream"),
        ("drop sockets", {"stream": "main"}, "/parameters/stream"),
        ("delay commits", {"session": "s"}, "/parameters"),
        ("delay commits", {"delay_ms": "1"}, "/parameters/delay_ms"),
        ("skew clock", {"hours": 1}, "/parameters"),
        ("crash actor", {"actor": "consoles/console"}, "/parameters/actor"),
        ("kill process", [], "/parameters"),
    ],
)
async def test_what_cannot_be_made_to_fail_is_said_and_changes_nothing(autojump_clock, kind, parameters, at):
    async with served() as server:
        answer = await post(server, "/faults", {"kind": kind, "parameters": parameters}, 400)
        assert answer["at"] == at
        assert (await get(server, "/faults"))["running"] == []


async def test_one_fault_runs_at_a_time_and_can_be_ended_and_is_written_down(autojump_clock):
    async with served() as server:
        now = server.env.operator.now()
        number = (await inject(server, "skew clock", skew_s=300, seconds=60))["id"]
        await trio.sleep(BEGIN_S + 0.1)
        assert server.env.operator.now() > now + 300
        (running,) = (await get(server, "/faults"))["running"]
        assert running["parameters"] == {"skew_s": 300, "seconds": 60}
        assert (await inject(server, "kill process", 409))["slug"] == "not_now"
        await post(server, f"/faults/{number}/end")
        assert server.env.operator.now() < now + 5
        found = await get(server, "/faults")
        assert (found["running"], found["past"][0]["by"]) == ([], "local")
        await post(server, f"/faults/{number}/end", status=404)
        entries = (await get(server, "/audit"))["entries"]
        assert [one["what"] for one in entries] == ["end fault", "end fault", "inject fault", "inject fault"]
        assert '"skew clock"' in entries[-1]["target"]
        assert (await inject(server, "drop sockets", 409))["msg"] == "no client is connected"


async def test_the_last_fifty_are_kept(autojump_clock):
    async with served() as server:
        for _ in range(KEPT + 5):
            number = (await inject(server, "skew clock"))["id"]
            await post(server, f"/faults/{number}/end")
        past = (await get(server, "/faults"))["past"]
        assert [past[0]["id"], past[-1]["id"], len(past)] == [KEPT + 5, 6, KEPT]


# --- what they do -----------------------------------------------------------------------------------------


async def test_dropped_clients_come_back_without_a_loss_and_the_operator_stays(autojump_clock):
    async with served() as server, following(server) as got, overviews(server) as signals:
        await inject(server, "drop sockets", percent=100)
        for number in range(30):
            await post(server, "/publish", {"type": "t.a", "entity": "e", "data": number}, 201)
            await trio.sleep(0.1)
        done = await over(server)
        assert got == list(range(30))
        effect = done["effect"]
        assert (effect["connections_lost"], effect["recoveries_ok"], effect["recoveries_gap"]) == (1, 1, 0)
        assert effect["signals_lost"] == 0
        assert effect["recovery_p99_ms"] >= 0
        assert (await signals.next())["type"] == "console.overview"


async def test_dropped_event_sources_are_clients_too(autojump_clock):
    async with served() as server, listening(server) as events:
        await inject(server, "drop sockets", percent=100)
        await trio.sleep(BEGIN_S + 1)
        with pytest.raises(Exception):  # noqa: B017 - whatever the reader makes of the end
            await events.next()


async def test_stalled_clients_get_what_they_missed_when_it_is_over(autojump_clock):
    async with served() as server, following(server) as got:
        await inject(server, "stall sockets", percent=100, seconds=4)
        await trio.sleep(BEGIN_S + 0.1)
        await post(server, "/publish", {"type": "t.a", "entity": "e", "data": 1}, 201)
        await trio.sleep(2)
        assert got == []
        await trio.sleep(3)
        assert got == [1]
        assert (await over(server))["effect"]["connections_lost"] == 0


@pytest.mark.parametrize("stream", ["main", "other"])
async def test_one_session_is_stalled_and_nobody_else(autojump_clock, stream):
    settings = attrs.evolve(ONE, streams=("other",), shards=2)
    path = "/v1/stream" if stream == "main" else "/v1/streams/other"
    async with served(settings) as server, socket(server, path) as one, socket(server, path) as another:
        assert (await get(server, "/faults"))["kinds"][0]["streams"] == ["main", "other"]
        await inject(server, "stall sockets", session=one.session, stream=stream, seconds=4)
        await trio.sleep(BEGIN_S + 0.1)
        begun = trio.current_time()
        await post(server, f"/publish?stream={stream}", {"type": "t.a", "entity": "e", "data": 1}, 201)
        await another.hear("sig")
        assert trio.current_time() < begun + 1
        await one.hear("sig")
        assert begun + 3 < trio.current_time() < begun + 5
        (running,) = (await get(server, "/faults"))["running"]
        assert running["parameters"] == {"session": one.session, "stream": stream, "seconds": 4}


async def test_one_session_is_dropped_and_nobody_else(autojump_clock):
    async with served() as server, socket(server) as one, socket(server) as another:
        await inject(server, "drop sockets", session=one.session)
        await trio.sleep(BEGIN_S + 0.1)
        with pytest.raises(ConnectionClosed):
            await one.hear("sig")
        await post(server, "/publish", {"type": "t.a", "entity": "e", "data": 1}, 201)
        await another.hear("sig")
        assert (await over(server))["effect"]["connections_lost"] == 1


async def test_a_session_that_has_moved_to_another_connection_is_found_there(autojump_clock):
    async with served() as server:
        async with socket(server) as one:
            session, resume = one.session, one.welcome["resume"]
        async with socket(server, resume=resume) as again, socket(server) as another:
            assert again.session == session
            await inject(server, "drop sockets", session=session)
            await trio.sleep(BEGIN_S + 0.1)
            with pytest.raises(ConnectionClosed):
                await again.hear("sig")
            await post(server, "/publish", {"type": "t.a", "entity": "e", "data": 1}, 201)
            await another.hear("sig")


async def test_a_session_that_ended_before_the_fault_began_takes_nobody_with_it(autojump_clock):
    async with served() as server, socket(server) as another:
        async with socket(server) as one:
            await inject(server, "drop sockets", session=one.session)
        await trio.sleep(BEGIN_S + 0.1)
        await post(server, "/publish", {"type": "t.a", "entity": "e", "data": 1}, 201)
        await another.hear("sig")
        assert (await over(server))["effect"]["connections_lost"] == 0


async def test_who_cannot_be_named_is_said_and_the_operators_own_is_spared(autojump_clock):
    async with served() as server, listening(server), socket(server, "/console/streams/main") as operator:
        rows = (await get(server, "/connections"))["rows"]
        events = next(row["session"] for row in rows if row["encoding"] == "events")
        assert {row["session"] for row in rows} == {events, operator.session}
        refused = await inject(server, "drop sockets", 404, session="nobody")
        assert (refused["slug"], refused["at"]) == ("no_connection", "/parameters/session")
        for session in (events, operator.session):
            assert "only a client's WebSocket" in (await inject(server, "drop sockets", 400, session=session))["msg"]
        assert (await get(server, "/faults"))["running"] == []


async def test_a_crashed_shard_loses_its_connections_and_they_come_back(autojump_clock):
    async with served() as server, following(server) as got:
        await inject(server, "crash actor", actor="shards/shard-0")
        await trio.sleep(5)
        await post(server, "/publish", {"type": "t.a", "entity": "e", "data": 1}, 201)
        effect = (await over(server))["effect"]
        assert got == [1]
        assert (effect["connections_lost"], effect["recoveries_ok"]) == (1, 1)


async def test_of_a_killed_process_it_is_known_afterwards_who_came_back(autojump_clock):
    async with served() as server, following(server) as got:
        await inject(server, "kill process")
        await trio.sleep(BEGIN_S + 0.1)
        assert server.kills == 1
        await server.crash()
        await server.start()
        await trio.sleep(10)
        (running,) = (await get(server, "/faults"))["running"]
        assert running["kind"] == "kill process"
        await post(server, "/publish", {"type": "t.a", "entity": "e", "data": 1}, 201)
        effect = (await over(server))["effect"]
        assert got == [1]
        assert (effect["connections_lost"], effect["recoveries_ok"]) == (1, 1)


async def test_an_aborted_injection_is_watched_on_by_the_next_instance(autojump_clock):
    async with served() as server:
        await inject(server, "skew clock", seconds=10)
        await trio.sleep(2)
        server.abort(server.env.injections.get_by_name(NAME))
        assert len((await get(server, "/faults"))["running"]) == 1
        assert (await over(server))["kind"] == "skew clock"


async def test_a_server_that_is_stopped_does_not_wait_for_a_fault(autojump_clock):
    async with served() as server:
        await inject(server, "delay commits", seconds=100)
        await trio.sleep(1)
        begun = trio.current_time()
        await server.restart()
        assert trio.current_time() - begun < 2
        assert (await get(server, "/faults"))["running"] == []
