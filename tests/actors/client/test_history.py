"""The client reads what is stored, page by page, over the socket that it has."""

import anyio
import pytest
import trio

from actors.app import app
from actors.client import Ago, Cursor, F, Last, ReadRefused
from runtime.testing import start_server
from tests.actors.client.conftest import signal
from tests.actors.client.test_client import client_of
from tests.actors.client.test_end_to_end import QUIET
from tests.actors.client.test_end_to_end import client_of as client_of_service


async def all_of(history):
    return [item.o async for item in history]


async def test_pages_are_asked_for_one_after_the_other_and_again_after_a_reconnect(server, autojump_clock):
    def page(request, a, b, *offsets, more):
        d = [signal(o) for o in offsets]
        return {"t": "page", "id": request["id"], "a": a, "b": b, "d": d, "more": more, "epoch": "k3F9"}

    seen = []

    async def serve():
        link = await server.accept()
        await link.welcome()
        request = await link.receive()
        assert (request["t"], request["from"], request["limit"]) == ("hist", "earliest", 2)
        link.send(page(request, 0, 4, 1, 4, more=True))
        assert (await link.receive())["from"] == {"cursor": "k3F9:4"}
        link.close(1006)
        link = await server.accept()
        await link.welcome()
        request = await link.receive()
        busy = {"code": 503, "slug": "overloaded", "msg": "later", "retry": True, "retry_after_ms": 2_000}
        link.send({"t": "err", "id": request["id"], **busy})
        before = anyio.current_time()
        request = await link.receive()
        assert anyio.current_time() - before == pytest.approx(2)
        assert request["from"] == {"cursor": "k3F9:4"}
        link.send(page(request, 4, 9, more=True))
        request = await link.receive()
        link.send(page(request, 9, 12, 11, more=False))

    async with client_of(server) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        history = client.history(page=2)
        seen += await all_of(history)
        assert history.cursor == Cursor("k3F9", 12)
    assert seen == [1, 4, 11]


async def test_a_cursor_that_the_log_does_not_reach_is_refused(server, autojump_clock):
    async def serve():
        link = await server.accept()
        await link.welcome()
        request = await link.receive()
        error = {"code": 410, "slug": "cursor_expired", "msg": "the log begins at 7", "retry": False}
        link.send({"t": "err", "id": request["id"], **error})

    async with client_of(server) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        with pytest.raises(ReadRefused, match="the log begins at 7") as caught:
            await all_of(client.history(since="k3F9:1"))
        assert (caught.value.code, caught.value.slug) == (410, "cursor_expired")


async def test_the_service_answers_in_both_directions_with_filters_and_limits(autojump_clock):
    async with start_server(app, settings=QUIET) as service, client_of_service(service) as client:
        for number in range(12):
            await client.publish("n.odd" if number % 2 else "n.even", "e", number)
        assert await all_of(client.history(types=["n.odd"], page=2)) == [2, 4, 6, 8, 10, 12]
        assert await all_of(client.history(reverse=True, limit=3)) == [12, 11, 10]
        assert await all_of(client.history(where=F("/data") >= 9, reverse=True, page=1)) == [12, 11, 10]
        assert await all_of(client.history(since=Last(2))) == [11, 12]
        assert await all_of(client.history(since=Ago(60_000), limit=5)) == [1, 2, 3, 4, 5]
        async with client.subscribe(since="earliest", buffer=1) as full:
            await trio.sleep(1)
            assert len(await all_of(client.history())) == 12, "a full subscription is no reason to wait"
            assert [(await anext(full)).o for _ in range(12)] == list(range(1, 13))


async def test_what_is_no_place_to_begin_is_named(server, autojump_clock):
    async with client_of(server) as client:
        for mistake in ({"since": "snapshot"}, {"since": "earliest", "reverse": True}, {"page": 501}, {"limit": 0}):
            with pytest.raises(ValueError, match=next(iter(mistake))):
                client.history(**mistake)
