"""Settings of hibernating sockets: the event timeout, the close reply, what eviction does to them."""

from __future__ import annotations

from typing import ClassVar

import attrs
import pytest
import trio
import trio_websocket

from runtime import Actor, ActorError, App, Context, LimitExceeded, Namespace, Request, Response, WebSocket
from runtime.testing import start_server


class Room(Actor["Env"]):
    """Naps when it is told to."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.log: list[str] = []

    async def fetch(self, request: Request) -> Response:
        assert request.web_socket is not None
        self.ctx.accept_web_socket(request.web_socket)
        return Response(101)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        if message == "nap":
            await self.ctx.sleep(10)
            self.log.append("slept")
        elif message == "section":
            await self.ctx.block_concurrency_while(lambda: self.ctx.sleep(10))
            self.log.append("section ended")
            await self.ctx.sleep(0)
            self.log.append("not cut off")
        ws.send("ok")

    async def limit(self, seconds: float | None) -> float | None:
        self.ctx.set_hibernatable_web_socket_event_timeout(seconds)
        return self.ctx.get_hibernatable_web_socket_event_timeout()

    async def read(self) -> list[str]:
        return self.log


class Ordinary(Actor["Env"]):
    """Hears its sockets through functions."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.log: list[str] = []

    async def fetch(self, request: Request) -> Response:
        ws = request.web_socket
        assert ws is not None

        async def on_message(message: str | bytes) -> None:
            self.log.append(str(message))
            ws.send(f"{len(self.log)}: {message}")

        async def on_close(code: int, reason: str, was_clean: bool) -> None:
            self.log.append(f"{code} {reason} {was_clean}")

        self.ctx.accept_ordinary_web_socket(ws, on_message, on_close)
        with pytest.raises(RuntimeError, match="accepted already"):
            self.ctx.accept_web_socket(ws)
        return Response(101)

    async def read(self) -> list[str]:
        return [*self.log, *(["listed"] if self.ctx.get_web_sockets() else [])]

    async def give_up(self) -> None:
        self.ctx.abort("enough")


class Silent(Room):
    """Answers close frames itself, or never."""

    auto_close_reply: ClassVar[bool] = False


class Strict(Room):
    """Takes short messages."""

    message_bytes: ClassVar[int] = 4

    async def web_socket_error(self, ws: WebSocket, error: Exception) -> None:
        self.log.append(f"listed {len(self.ctx.get_web_sockets())} in the handler")

    async def read(self) -> list[str]:
        return [*self.log, f"listed {len(self.ctx.get_web_sockets())}"]


@attrs.frozen
class Env:
    rooms: Namespace[Room]
    silent: Namespace[Silent]
    ordinary: Namespace[Ordinary]
    strict: Namespace[Strict]


app = App(
    env=Env,
    routes={"/rooms/{name}": Room, "/silent/{name}": Silent, "/ordinary/{name}": Ordinary, "/strict/{name}": Strict},
)


async def test_a_handler_over_the_event_timeout_is_cut_off_and_nothing_else(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a") as ws:
        room = server.env.rooms.get_by_name("a")
        assert await room.limit(2.0) == 2.0
        await ws.send_message("nap")
        await trio.sleep(20)
        await ws.send_message("hello")
        assert await ws.get_message() == "ok"
        assert await room.read() == []


async def test_the_event_timeout_survives_eviction_and_can_be_taken_back(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a") as ws:
        room = server.env.rooms.get_by_name("a")
        await room.limit(2.0)
        await server.evict(room)
        await ws.send_message("nap")
        await trio.sleep(20)
        assert await room.limit(None) is None
        await ws.send_message("nap")
        assert await ws.get_message() == "ok"


async def test_the_event_timeout_waits_for_a_critical_section(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a") as ws:
        room = server.env.rooms.get_by_name("a")
        await room.limit(2.0)
        await ws.send_message("section")
        await trio.sleep(15)
        assert await room.read() == ["section ended"]


async def test_an_event_timeout_over_a_week_is_refused(autojump_clock):
    async with start_server(app) as server:
        with pytest.raises(LimitExceeded, match="should not exceed 604800000 ms"):
            await server.env.rooms.get_by_name("a").limit(604_800.001)


async def test_a_close_frame_that_gets_no_answer_ends_the_connection_at_the_next_eviction(autojump_clock):
    async with start_server(app) as server:
        silent = server.env.silent.get_by_name("a")
        closed = trio.Event()

        async def close(ws: trio_websocket.WebSocketConnection) -> None:
            await ws.aclose(4001, "bye")
            closed.set()

        async with server.connect("/silent/a") as ws, trio.open_nursery() as nursery:
            nursery.start_soon(close, ws)
            await trio.sleep(0.5)
            assert not closed.is_set()
            await server.evict(silent)
            with trio.fail_after(0.1):
                await closed.wait()


async def test_an_eviction_may_cut_the_sockets(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a") as ws:
        room = server.env.rooms.get_by_name("a")
        await room.read()
        await server.evict(room, web_sockets="close")
        with pytest.raises(trio_websocket.ConnectionClosed):
            await ws.get_message()
        assert await room.read() == []


async def test_an_ordinary_socket_keeps_its_instance_in_memory_until_it_closes(autojump_clock):
    async with start_server(app) as server:
        actor = server.env.ordinary.get_by_name("a")
        async with server.connect("/ordinary/a") as ws:
            await ws.send_message("one")
            assert await ws.get_message() == "1: one"
            await trio.sleep(60)
            assert server.why_awake(actor) == ["1 ordinary WebSocket is open"]
            await ws.send_message("two")
            assert await ws.get_message() == "2: two"
            await ws.aclose(4000, "bye")
        assert await actor.read() == ["one", "two", "4000 bye True"]
        assert server.why_awake(actor) == []


async def test_an_ordinary_socket_ends_with_its_instance(autojump_clock):
    async with start_server(app) as server, server.connect("/ordinary/a") as ws:
        await ws.send_message("one")
        await ws.get_message()
        with pytest.raises(ActorError, match="enough"):
            await server.env.ordinary.get_by_name("a").give_up()
        with pytest.raises(trio_websocket.ConnectionClosed):
            await ws.get_message()
        assert await server.env.ordinary.get_by_name("a").read() == []


async def test_a_socket_that_broke_a_limit_is_gone_after_its_error_handler(autojump_clock):
    async with start_server(app) as server, server.connect("/strict/a") as ws:
        await ws.send_message("too long for it")
        with pytest.raises(trio_websocket.ConnectionClosed):
            await ws.get_message()
        await trio.sleep(1)
        assert await server.env.strict.get_by_name("a").read() == ["listed 1 in the handler", "listed 0"]


class Nowhere:
    """The sending half of a socket that nobody is connected to."""

    backlog_bytes = 0
    direct = None
    round_trip_s = None
    connection_number = None

    def push(self, data: bytes, /) -> None: ...

    def push_rest(self, data: bytes, taken: int, /) -> None: ...

    def close(self, code: int | None, reason: str = "", /) -> None: ...

    def cut(self) -> None: ...

    def configure(self, **_: object) -> None: ...


async def test_an_actor_takes_32768_sockets_and_not_one_more(autojump_clock):
    def fill(room: Room) -> int:
        nowhere = Nowhere()
        for _ in range(32_768):
            room.ctx.accept_web_socket(WebSocket(nowhere, room.ctx.now))
        with pytest.raises(LimitExceeded, match="only 32768 websockets can be accepted on a single Durable Object"):
            room.ctx.accept_web_socket(WebSocket(nowhere, room.ctx.now))
        return len(room.ctx.get_web_sockets())

    async with start_server(app) as server:
        room = server.env.rooms.get_by_name("a")
        assert await server.run_in(room, fill) == 32_768
        server.abort(room)
        assert await server.run_in(server.env.rooms.get_by_name("a"), lambda room: room.ctx.get_web_sockets()) == []
