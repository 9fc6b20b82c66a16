"""A socket from which nothing comes is closed by a clock that nobody sets, and its actor sleeps on meanwhile."""

from __future__ import annotations

import gc
import math

import attrs
import pytest
import trio
import trio_websocket

from runtime import Actor, App, Context, Namespace, Request, Response, WebSocket
from runtime.testing import start_server


class Room(Actor["Env"]):
    """Closes who is silent for 30 s."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        ctx.set_web_socket_auto_response("ping", "pong")
        self.log: list[str] = []

    async def fetch(self, request: Request) -> Response:
        assert request.web_socket is not None
        self.ctx.accept_web_socket(request.web_socket)
        request.web_socket.limit_silence(30, 4105, "nothing came")
        return Response(101)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        if message == "work":
            await self.ctx.block_concurrency_while(lambda: self.ctx.sleep(25))
        elif message == "longer":
            ws.limit_silence(90, 4106)
        elif message == "said":
            return
        ws.send(f"heard {message!s}")

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        self.log.append(f"{code} {was_clean}")

    async def read(self) -> list[str]:
        return self.log


@attrs.frozen
class Env:
    rooms: Namespace[Room]


app = App(env=Env, routes={"/rooms/{name}": Room})


async def end_of(ws: trio_websocket.WebSocketConnection) -> tuple[int, str | None]:
    try:
        while True:
            await ws.get_message()
    except trio_websocket.ConnectionClosed as closed:
        return closed.reason.code, closed.reason.reason


async def test_who_is_silent_is_closed_in_time_and_wakes_nobody_before(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a") as ws:
        begun = trio.current_time()
        await trio.sleep(29)
        assert server.live_actors == 0
        assert await end_of(ws) == (4105, "nothing came")
        assert 30 <= trio.current_time() - begun <= 31
        await trio.sleep(1)  # the client knows before the actor does
        assert await server.env.rooms.get_by_name("a").read() == ["4105 True"]


@pytest.mark.parametrize("skew_s", [-300, 300])
async def test_a_wall_clock_that_is_set_makes_the_time_neither_longer_nor_shorter(autojump_clock, skew_s):
    async with start_server(app, faults=True) as server, server.connect("/rooms/a") as ws:
        begun = trio.current_time()
        await trio.sleep(10)
        server.faults.skew_clock(skew_s, 10)  # and it is set back after that
        assert await end_of(ws) == (4105, "nothing came")
        assert 30 <= trio.current_time() - begun <= 31


@pytest.mark.parametrize("message", ["ping", "said"])
async def test_whatever_comes_counts_also_what_is_answered_without_the_actor(autojump_clock, message):
    async with start_server(app) as server, server.connect("/rooms/a") as ws:
        for _ in range(5):
            await trio.sleep(29)
            await ws.send_message(message)
        said = trio.current_time()
        assert (await end_of(ws))[0] == 4105
        assert 30 <= trio.current_time() - said <= 31


async def test_a_later_limit_takes_the_place_of_the_one_before(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a") as ws:
        await ws.send_message("longer")
        said = trio.current_time()
        assert (await end_of(ws))[0] == 4106
        assert 90 <= trio.current_time() - said <= 91


async def test_who_waits_for_the_actor_is_not_silent(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a") as ws:
        await ws.send_message("work")
        await ws.send_message("work")
        await ws.send_message("last")  # waits for 50 s
        assert [await ws.get_message() for _ in range(3)] == ["heard work", "heard work", "heard last"]
        assert (await end_of(ws))[0] == 4105


async def test_a_socket_that_has_ended_is_kept_for_no_limit(autojump_clock):
    def kept() -> int:
        gc.collect()
        return sum(isinstance(one, WebSocket) for one in gc.get_objects())

    async with start_server(app) as server:
        before = kept()
        async with server.connect("/rooms/a") as ws:
            assert kept() == before + 1
            await ws.aclose(4000)
        await server.env.rooms.get_by_name("b").read()  # a worker remembers its last job
        await trio.sleep(15)
        assert kept() == before


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
async def test_a_limit_that_is_none_is_refused(autojump_clock, seconds):
    def limit(room: Room) -> None:
        (ws,) = room.ctx.get_web_sockets()
        with pytest.raises(ValueError, match="must be more than 0, and finite"):
            ws.limit_silence(seconds, 4105)
        with pytest.raises(ValueError, match="Invalid WebSocket close code: 42"):
            ws.limit_silence(1, 42)

    async with start_server(app) as server, server.connect("/rooms/a"):
        await server.run_in(server.env.rooms.get_by_name("a"), limit)
