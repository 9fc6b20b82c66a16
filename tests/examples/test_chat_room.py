"""The chat room of the examples, in virtual time."""

from __future__ import annotations

import importlib.util
import json

import pytest
import trio
from trio_websocket import ConnectionRejected

from runtime.testing import start_server
from tests.examples.serving import EXAMPLES


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("room", EXAMPLES / "chat-room" / "room.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


async def heard(ws):
    return json.loads(await ws.get_message())


async def test_guests_hear_each_other_and_who_comes_and_goes(app, autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/tea?name=ann") as ann:
        assert [await heard(ann), await heard(ann)] == [{"lines": []}, {"guests": ["ann"]}]
        await ann.send_message("hello")
        assert [line["text"] for line in (await heard(ann))["lines"]] == ["hello"]
        async with server.connect("/rooms/tea?name=ben") as ben:
            assert [line["name"] for line in (await heard(ben))["lines"]] == ["ann"]
            assert await heard(ben) == await heard(ann) == {"guests": ["ann", "ben"]}
        assert await heard(ann) == {"guests": ["ann"]}
        assert json.loads((await server.request("GET", "/rooms/tea")).body) == {"guests": ["ann"]}
        assert json.loads((await server.request("GET", "/rooms/coffee")).body) == {"guests": []}


async def test_the_room_sleeps_and_remembers_its_guests_and_the_last_hundred_lines(app, autojump_clock):
    async with start_server(app) as server:
        async with server.connect("/rooms/tea?name=ann") as ann:
            await heard(ann), await heard(ann)
            for number in range(103):
                await ann.send_message(str(number))
                await heard(ann)
            await trio.sleep(11)
            assert server.live_actors == 0
            await ann.send_message("awake")
            assert (await heard(ann))["lines"][0]["name"] == "ann"
        await server.crash()
        await server.start()
        async with server.connect("/rooms/tea?name=ben") as ben:
            texts = [line["text"] for line in (await heard(ben))["lines"]]
            assert texts == [*map(str, range(4, 103)), "awake"]


async def test_who_does_not_say_a_name_stays_outside(app, autojump_clock):
    async with start_server(app) as server:
        with pytest.RaisesGroup(pytest.RaisesExc(ConnectionRejected), flatten_subgroups=True):
            async with server.connect("/rooms/tea"):
                pass
