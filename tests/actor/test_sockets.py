"""WebSockets belong to the actor, not to its time in memory."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio_websocket

from runtime import Actor, App, Context, LimitExceeded, Namespace, Request, Response, WebSocket
from runtime.testing import start_server


@attrs.frozen
class Member:
    """What a socket remembers."""

    name: str
    seen: int = 0


class Room(Actor["Env"]):
    """A room in which everybody hears everybody."""

    attachment_bytes = 100

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.log = [f"built with {sorted(ws.attachment(Member).name for ws in ctx.get_web_sockets())}"]

    async def fetch(self, request: Request) -> Response:
        if request.web_socket is None:
            return Response.text("only sockets\n", 426)
        name = request.query_values().get("name", "?")
        self.ctx.accept_web_socket(request.web_socket, tags=["member", name])
        request.web_socket.serialize_attachment(Member(name))
        request.web_socket.send(f"welcome {name}")
        return Response(101)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        member = ws.attachment(Member)
        if message == "close":
            ws.close(4001, "as you wish")
        elif message == "slow":
            await self.ctx.sleep(5)
            ws.send("slow done")
        elif message == "write":
            self.ctx.storage.put("said", member.name)
            ws.send("written")
        elif message == "boom":
            raise RuntimeError("handler failed on purpose")
        elif message == "abort":
            ws.send("never seen")
            self.ctx.abort("bye")
        else:
            ws.serialize_attachment(attrs.evolve(member, seen=member.seen + 1))
            self.ctx.broadcast(f"{member.name}{member.seen}: {message}", tag="member")

    async def web_socket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        listed = ws in self.ctx.get_web_sockets()
        self.log.append(f"closed {ws.attachment(Member).name} {code} {reason!r} {was_clean} {ws.ready_state} {listed}")

    async def read(self) -> list[str]:
        return self.log

    async def count(self, tag: str | None = None) -> list[str]:
        return [ws.attachment(Member).name for ws in self.ctx.get_web_sockets(tag)]

    async def arrange(self) -> None:
        self.ctx.set_web_socket_auto_response("ping", "pong")

    async def big_attachment(self) -> None:
        self.ctx.get_web_sockets()[0].serialize_attachment("x" * 200)


@attrs.frozen
class Env:
    rooms: Namespace[Room]


app = App(env=Env, routes={"/rooms/{name}": Room})


async def test_members_hear_each_other_in_order(autojump_clock):
    async with (
        start_server(app) as server,
        server.connect("/rooms/a?name=x") as x,
        server.connect("/rooms/a?name=y") as y,
    ):
        assert await x.get_message() == "welcome x"
        assert await y.get_message() == "welcome y"
        for number in range(3):
            await x.send_message(str(number))
        assert [await y.get_message() for _ in range(3)] == ["x0: 0", "x1: 1", "x2: 2"]
        assert await server.env.rooms.get_by_name("a").count() == ["y", "x"]  # newest first
        assert await server.env.rooms.get_by_name("a").count("member") == ["x", "y"]  # oldest first
        assert await server.env.rooms.get_by_name("a").count("y") == ["y"]


async def test_a_socket_outlives_eviction_with_its_attachment(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a?name=x") as x:
        await x.get_message()
        await x.send_message("one")
        assert await x.get_message() == "x0: one"
        await trio.sleep(11)
        assert server.live_actors == 0
        await x.send_message("two")
        assert await x.get_message() == "x1: two"
        assert await server.env.rooms.get_by_name("a").read() == ["built with ['x']"]


async def test_a_waiting_handler_does_not_hold_back_the_next_frame(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a?name=x") as x:
        await x.get_message()
        await x.send_message("slow")
        await x.send_message("hello")
        assert await x.get_message() == "x0: hello"
        assert await x.get_message() == "slow done"


class Scribe(Actor["ScribeEnv"]):
    """Answers in a handler without an await, which runs where the message arrives."""

    async def fetch(self, request: Request) -> Response:
        self.ctx.accept_web_socket(request.web_socket)
        return Response(101)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        if message == "boom":
            raise RuntimeError("handler failed on purpose")
        if message == "abort":
            self.ctx.abort("bye")
        count = self.ctx.storage.get("count", int, 0) + 1
        self.ctx.storage.put("count", count)
        ws.send(f"{count} {message}")

    async def pause(self) -> None:
        await self.ctx.block_concurrency_while(lambda: self.ctx.sleep(5))


@attrs.frozen
class ScribeEnv:
    scribes: Namespace[Scribe]


scribes = App(env=ScribeEnv, routes={"/scribes/{name}": Scribe})


async def test_messages_to_a_handler_without_an_await_keep_their_order_and_their_turns(autojump_clock):
    async with start_server(scribes) as server, server.connect("/scribes/a") as x, server.connect("/scribes/a") as y:
        for number in range(100):
            await x.send_message(str(number))
        assert [await x.get_message() for _ in range(100)] == [f"{n + 1} {n}" for n in range(100)]
        paused = server.env.scribes.get_by_name("a").pause()
        await trio.sleep(1)
        begun = trio.current_time()
        await x.send_message("waits")  # for the critical section
        assert await x.get_message() == "101 waits"
        assert trio.current_time() == pytest.approx(begun + 4)
        await paused
        await y.send_message("boom")
        await y.send_message("goes on")
        assert await y.get_message() == "102 goes on"
        await y.send_message("abort")
        with pytest.raises(trio_websocket.ConnectionClosed):
            await y.get_message()


async def test_an_auto_response_wakes_nobody(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a?name=x") as x:
        await x.get_message()
        await server.env.rooms.get_by_name("a").arrange()
        await trio.sleep(11)
        assert server.live_actors == 0
        await x.send_message("ping")
        assert await x.get_message() == "pong"
        assert server.live_actors == 0


async def test_a_clean_close_is_told_to_the_actor_and_answered(autojump_clock):
    async with start_server(app) as server:
        async with server.connect("/rooms/a?name=x") as x:
            await x.get_message()
            await x.aclose(4000, "done")
            assert x.closed.code == 4000
        await trio.testing.wait_all_tasks_blocked()
        assert (await server.env.rooms.get_by_name("a").read())[1:] == ["closed x 4000 'done' True 2 True"]
        assert await server.env.rooms.get_by_name("a").count() == []


async def test_the_actor_closes_a_socket_with_its_code(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a?name=x") as x:
        await x.get_message()
        await x.send_message("close")
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await x.get_message()
        assert (closed.value.reason.code, closed.value.reason.reason) == (4001, "as you wish")


async def test_a_lost_connection_is_told_as_1006(autojump_clock):
    async with start_server(app) as server:
        async with server.connect("/rooms/a?name=x") as x:
            await x.get_message()
            server.cut_connections()
        await trio.testing.wait_all_tasks_blocked()
        log = await server.env.rooms.get_by_name("a").read()
        assert log[1:] == ["closed x 1006 'WebSocket disconnected without sending Close frame.' False 2 True"]


async def test_an_exception_in_a_handler_closes_nothing(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a?name=x") as x:
        await x.get_message()
        await x.send_message("boom")
        await x.send_message("still here")
        assert await x.get_message() == "x0: still here"


async def test_abort_cuts_every_socket_and_sends_nothing_of_its_turn(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a?name=x") as x:
        await x.get_message()
        await x.send_message("abort")
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await x.get_message()
        assert closed.value.reason is None or closed.value.reason.code == 1006
        assert await server.env.rooms.get_by_name("a").count() == []


async def test_a_frame_waits_for_the_write_before_it(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a?name=x") as x:
        await x.get_message()
        server.store.fail_next(OSError("disk gone"))
        await x.send_message("write")
        with pytest.raises(trio_websocket.ConnectionClosed):
            await x.get_message()


async def test_an_attachment_over_its_limit_is_refused_and_the_old_one_kept(autojump_clock):
    async with start_server(app) as server, server.connect("/rooms/a?name=x") as x:
        await x.get_message()
        with pytest.raises(LimitExceeded, match="cannot be larger than 100 bytes"):
            await server.env.rooms.get_by_name("a").big_attachment()
        assert await server.env.rooms.get_by_name("a").count() == ["x"]


async def test_a_request_that_is_no_upgrade_gets_the_actors_answer(autojump_clock):
    async with start_server(app) as server:
        response = await server.request("GET", "/rooms/a")
        assert response.status == 426
        assert (await server.request("GET", "/nowhere")).status == 404
