"""Recipients: the same messages to many sockets, whatever each of them is doing."""

from __future__ import annotations

import attrs
import pytest
import trio
from wsproto.extensions import PerMessageDeflate

from runtime import Actor, App, Context, Namespace, PreparedMessage, Recipients, Request, Response
from runtime.testing import start_server
from tests.deflating import deflating


class Room(Actor["Env"]):
    """Sends to everybody who was there when it was told to gather."""

    backlog_bytes = 1 << 20

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.all = Recipients(())

    async def fetch(self, request: Request) -> Response:
        assert request.web_socket is not None
        self.ctx.accept_web_socket(request.web_socket, compress=True)
        return Response(101)

    async def gather(self) -> int:
        self.all = Recipients(reversed(self.ctx.get_web_sockets()))
        return len(self.all)

    async def tell(self, first: int, last: int, size: int = 0) -> None:
        for number in range(first, last):
            self.ctx.send_all(self.all, PreparedMessage.of(f"{number}".ljust(size)))

    async def tell_durably(self, text: str) -> None:
        self.ctx.storage.put("text", text)
        self.ctx.send_all(self.all, PreparedMessage.of(text))

    async def close_first(self) -> None:
        next(iter(self.all)).close(4000, "enough")


@attrs.frozen
class Env:
    rooms: Namespace[Room]


app = App(env=Env, routes={"/rooms/{name}": Room})


async def numbers(ws, count):
    return [int(await ws.get_message()) for _ in range(count)]


async def test_everybody_gets_every_message_once_and_in_order(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a") as x, server.connect("/rooms/a") as y:
        room = server.env.rooms.get_by_name("a")
        assert await room.gather() == 2
        await room.tell(0, 50)
        assert await numbers(x, 50) == await numbers(y, 50) == list(range(50))


async def test_who_does_not_read_for_a_while_misses_nothing_and_holds_up_nobody(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a") as quick, server.connect("/rooms/a") as slow:
        room = server.env.rooms.get_by_name("a")
        await room.gather()
        await room.tell(0, 300, 2_000)  # far more than the connection holds
        assert await numbers(quick, 300) == list(range(300))
        await room.tell(300, 303)  # behind what is queued
        assert await numbers(slow, 303) == list(range(303))
        await room.tell(303, 306)  # directly again
        assert await numbers(slow, 3) == [303, 304, 305]
        assert await numbers(quick, 6) == list(range(300, 306))


async def test_who_closes_is_passed_over_and_the_others_hear_on(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a") as x, server.connect("/rooms/a") as y:
        room = server.env.rooms.get_by_name("a")
        await room.gather()
        await room.tell(0, 1)
        await room.close_first()
        await room.tell(1, 3)
        assert await numbers(y, 3) == [0, 1, 2]
        assert await numbers(x, 1) == [0]
        with pytest.raises(Exception, match="4000"):
            await x.get_message()


async def test_a_lost_connection_is_passed_over_and_the_others_hear_on(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a") as y:
        room = server.env.rooms.get_by_name("a")
        async with server.connect("/rooms/a"):
            assert await room.gather() == 2
            await room.tell(0, 2)
        await trio.sleep(1)
        await room.tell(2, 4)
        assert await numbers(y, 4) == [0, 1, 2, 3]


async def test_a_message_after_a_write_leaves_when_that_is_durable(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a") as x:
        room = server.env.rooms.get_by_name("a")
        await room.gather()
        await room.tell_durably("kept")
        assert await x.get_message() == "kept"


async def test_who_compresses_and_who_does_not_get_the_same_messages(autojump_clock):
    async with (
        start_server(app) as server,
        server.connect("/rooms/a") as plain,
        deflating(await server.network.connect("127.0.0.1", 8787), "/rooms/a", "127.0.0.1:8787") as small,
        deflating(
            await server.network.connect("127.0.0.1", 8787),
            "/rooms/a",
            "127.0.0.1:8787",
            PerMessageDeflate(server_max_window_bits=9),
        ) as smaller,
    ):
        room = server.env.rooms.get_by_name("a")
        assert await room.gather() == 3
        await room.tell(0, 200, 2_000)
        assert await numbers(plain, 200) == list(range(200))
        for client in (small, smaller):
            assert [int(await client.receive()) for _ in range(200)] == list(range(200))
            assert len(client.received) < 200 * 100
        await room.tell_durably("600")
        assert int(await small.receive()) == 600
