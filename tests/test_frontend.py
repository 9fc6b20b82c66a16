"""A server goes down in order, and in time."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio_websocket import ConnectionClosed

from runtime import Actor, App, Namespace, Request, Response
from runtime.frontend import CLOSE_S
from runtime.testing import start_server

UPGRADE = (
    b"GET /rooms/a HTTP/1.1\r\nHost: 127.0.0.1:8787\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n"
)


class Room(Actor["Env"]):
    """Says one thing to who comes."""

    async def fetch(self, request: Request) -> Response:
        ws = request.web_socket
        assert ws is not None
        self.ctx.accept_web_socket(ws)
        ws.send("x" * 100_000)
        return Response(101)


@attrs.frozen
class Env:
    rooms: Namespace[Room]


APP = App(env=Env, routes={"/rooms/{name}": Room})


async def test_clients_that_do_not_read_keep_a_server_that_goes_down_for_three_seconds(autojump_clock):
    async with start_server(APP) as server:
        for _ in range(3):
            stalled = await server.network.connect("127.0.0.1", 8787)
            await stalled.send_all(UPGRADE)
            assert b" 101 " in await stalled.receive_some()
        async with server.connect("/rooms/a") as ws:
            await ws.get_message()
            begun = trio.current_time()
            await server.stop()
            assert trio.current_time() - begun == pytest.approx(CLOSE_S, abs=0.1)
            with pytest.raises(ConnectionClosed) as closed:
                await ws.get_message()
            assert closed.value.reason.code == 1001


async def test_a_server_whose_clients_read_goes_down_at_once(autojump_clock):
    async with start_server(APP) as server, server.connect("/rooms/a") as ws:
        await ws.get_message()
        begun = trio.current_time()
        await server.stop()
        assert trio.current_time() - begun < 0.5
