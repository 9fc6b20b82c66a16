"""What an operator sees of a node's actors, and does to them."""

from __future__ import annotations

import attrs
import pytest
import trio

from runtime import (
    Actor,
    ActorError,
    ActorView,
    AlarmInfo,
    App,
    InvalidId,
    Namespace,
    Operator,
    Request,
    Response,
    SqlError,
)
from runtime.testing import start_server


class Room(Actor["Env"]):
    """Keeps notes, waits, and fails."""

    async def fetch(self, request: Request) -> Response:
        assert request.web_socket is not None
        self.ctx.accept_web_socket(request.web_socket)
        return Response(101)

    async def note(self, key: str, value: object) -> None:
        self.ctx.storage.put(key, value)

    async def ring_in(self, seconds: float) -> None:
        self.ctx.storage.set_alarm(self.ctx.now() + seconds)

    async def alarm(self, info: AlarmInfo) -> None:
        if self.ctx.storage.get("broken"):
            raise ValueError("no bell")
        self.ctx.storage.put("rang", info.retry_count)

    async def wait(self, seconds: float) -> None:
        await self.ctx.sleep(seconds)

    async def give_up(self) -> None:
        self.ctx.abort("gave up")


class Table(Actor["Env"]):
    """Has a database of its own."""

    storage = "sql"

    async def fill(self, rows: int) -> None:
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS numbers (n INTEGER, word TEXT)")
        for n in range(rows):
            self.ctx.storage.sql.exec("INSERT INTO numbers VALUES (?, ?)", n, f"word {n}")


@attrs.frozen
class Env:
    rooms: Namespace[Room]
    tables: Namespace[Table]
    operator: Operator


app = App(env=Env, routes={"/rooms/{name}": Room})


async def awaited(call):
    await call


def seen(operator: Operator, name: str) -> ActorView:
    return next(view for view in operator.actors() if view.id.name == name)


async def test_an_actor_is_active_then_idle_then_hibernated_and_not_listed_any_more(autojump_clock):
    async with start_server(app, idle_s=30) as server:
        operator, rooms = server.env.operator, server.env.rooms
        async with server.connect("/rooms/with-socket"), trio.open_nursery() as nursery:
            for name in ("a", "with-socket"):
                nursery.start_soon(awaited, rooms.get_by_name(name).wait(5))
            await trio.sleep(1)
            assert (seen(operator, "a").state, seen(operator, "a").in_flight) == ("active", 1)
            assert seen(operator, "a").why_awake == ("wait runs",)
            await trio.sleep(10)
            assert (seen(operator, "a").state, seen(operator, "a").last_event) == ("idle", "wait")
            assert seen(operator, "a").idle_s == pytest.approx(6)
            await trio.sleep(60)
            assert [(view.id.name, view.state, view.sockets) for view in operator.actors()] == [
                ("with-socket", "hibernated", 1)
            ]
            assert operator.live == 0


async def test_the_mailbox_counts_what_waits_for_the_turn(autojump_clock):
    async with start_server(app) as server, trio.open_nursery() as nursery:
        room = server.env.rooms.get_by_name("a")

        async def hold(actor):
            await actor.ctx.block_concurrency_while(lambda: actor.ctx.sleep(5))

        nursery.start_soon(server.run_in, room, hold)
        await trio.sleep(1)
        for n in range(3):
            nursery.start_soon(awaited, room.note(str(n), n))
        await trio.sleep(1)
        assert seen(server.env.operator, "a").mailbox == 3


async def test_an_actor_fails_for_a_minute_after_its_instance_was_destroyed(autojump_clock):
    async with start_server(app) as server:
        operator, rooms = server.env.operator, server.env.rooms
        with pytest.raises(ActorError, match="gave up"):
            await rooms.get_by_name("a").give_up()
        assert list(operator.failing().values()) == ["ActorReset: gave up"]
        await rooms.get_by_name("a").note("key", 1)
        assert (seen(operator, "a").state, seen(operator, "a").last_error) == ("failing", "ActorReset: gave up")
        await trio.sleep(61)
        assert operator.failing() == {}
        assert [failure.error for failure in operator.failures()] == ["ActorReset: gave up"]
        assert {key: count for key, count in operator.destroyed.items() if count} == {("rooms", "reset"): 1}
        assert operator.evicted == {"idle": 1, "room": 0, "asked": 0}


async def test_an_actor_fails_while_its_alarm_is_tried_again(autojump_clock):
    async with start_server(app) as server:
        operator, room = server.env.operator, server.env.rooms.get_by_name("a")
        await room.note("broken", True)
        await room.ring_in(1)
        await trio.sleep(2)
        view = seen(operator, "a")
        assert (view.state, view.alarm_retries) == ("failing", 1)
        assert list(operator.failing().values()) == ["its alarm failed 1 times in a row"]
        await room.note("broken", False)
        await trio.sleep(10)
        assert operator.failing() == {}
        assert seen(operator, "a").state == "idle"


async def test_an_alarm_that_is_due_later_shows_and_runs_when_it_is_told(autojump_clock):
    async with start_server(app) as server:
        operator, room = server.env.operator, server.env.rooms.get_by_name("a")
        await room.ring_in(3_600)
        await trio.sleep(100)
        view = seen(operator, "a")
        assert view.state == "hibernated"
        assert view.alarm_at == pytest.approx(server.platform.now() + 3_500, abs=1)
        await operator.run_alarm(view.id)
        assert (await operator.entries(view.id)) == {"rang": 0}
        with pytest.raises(ActorError, match="no alarm"):
            await operator.run_alarm(view.id)


async def test_storage_is_read_in_pages_in_the_order_of_its_keys(autojump_clock):
    async with start_server(app) as server:
        operator, room = server.env.operator, server.env.rooms.get_by_name("a")
        for n in range(5):
            await room.note(f"key/{n}", {"n": n})
        await room.note("other", None)
        actor = operator.find("rooms", "a")
        assert await operator.entries(actor, prefix="key/", limit=2) == {"key/0": {"n": 0}, "key/1": {"n": 1}}
        assert list(await operator.entries(actor, prefix="key/", after="key/3")) == ["key/4"]


async def test_sql_is_read_and_what_writes_or_takes_too_long_is_refused(autojump_clock):
    async with start_server(app) as server:
        operator, table = server.env.operator, server.env.tables.get_by_name("t")
        await table.fill(10)
        actor = operator.find("tables", "t")
        found = await operator.query(actor, "SELECT n, word FROM numbers ORDER BY n DESC", rows=2)
        assert (found.columns, found.rows, found.more) == (("n", "word"), ((9, "word 9"), (8, "word 8")), True)
        for writes in ("DELETE FROM numbers", "DROP TABLE numbers", "INSERT INTO numbers VALUES (1, 'x') RETURNING n"):
            with pytest.raises(SqlError, match="this statement writes"):
                await operator.query(actor, writes)
        with pytest.raises(SqlError, match="interrupted"):
            await operator.query(
                actor, "WITH RECURSIVE f(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM f) SELECT max(n) FROM f"
            )
        with pytest.raises(SqlError, match="COMMIT"):
            await operator.query(actor, "COMMIT")
        with pytest.raises(SqlError, match="no such table"):
            await operator.query(actor, "SELECT * FROM missing")
        assert (await operator.query(actor, "SELECT count(*) FROM numbers")).rows == ((10,),)
        with pytest.raises(SqlError, match="no database of its own"):
            await operator.query(operator.find("rooms", "a"), "SELECT 1")


async def test_what_is_stored_is_told_by_class_and_looked_at_once_a_minute(autojump_clock):
    async with start_server(app) as server:
        env = server.env
        await env.rooms.get_by_name("kitchen").note("menu", "x" * 1_000)
        first = await env.operator.stored_bytes()
        assert 1_000 < first["shared", ""] < 2_000
        assert ("sql", "Table") not in first
        await env.tables.get_by_name("t").fill(1)
        assert ("sql", "Table") not in await env.operator.stored_bytes()
        await trio.sleep(60)
        one = (await env.operator.stored_bytes())["sql", "Table"]
        assert one >= 4_096
        await env.tables.get_by_name("u").fill(1)
        await trio.sleep(60)
        assert (await env.operator.stored_bytes())["sql", "Table"] > one + 4_096


async def test_an_instance_is_evicted_or_aborted_when_there_is_one(autojump_clock):
    async with start_server(app) as server:
        operator, room = server.env.operator, server.env.rooms.get_by_name("a")
        actor = operator.find("rooms", "a")
        with pytest.raises(ActorError, match="not currently running"):
            await operator.evict(actor)
        with pytest.raises(ActorError, match="not in memory"):
            operator.abort(actor, "why not")
        await room.note("key", 1)
        await operator.evict(actor)
        assert operator.live == 0
        await room.note("key", 2)
        operator.abort(actor, "told to")
        assert operator.actor(actor).last_error == "ActorReset: told to"
        assert await operator.entries(actor) == {"key": 2}


async def test_a_bookmark_of_now_is_one_of_the_actors(autojump_clock):
    async with start_server(app) as server:
        operator, room = server.env.operator, server.env.rooms.get_by_name("a")
        await room.note("key", 1)
        actor = operator.find("rooms", "a")
        assert await operator.bookmark(actor) == await server.run_in(
            room, lambda instance: instance.ctx.storage.get_current_bookmark()
        )


async def test_an_actor_is_found_by_name_and_by_id(autojump_clock):
    async with start_server(app) as server:
        operator, rooms = server.env.operator, server.env.rooms
        await rooms.get_by_name("a").note("key", 1)
        by_id = operator.find("rooms", str(rooms.id_from_name("a")))
        assert (by_id, by_id.name) == (rooms.id_from_name("a"), "a")
        assert operator.find("rooms", "never seen").name == "never seen"
        with pytest.raises(InvalidId):
            operator.find("rooms", str(server.env.tables.id_from_name("a")))
        with pytest.raises(KeyError):
            operator.find("nowhere", "a")
        assert operator.namespaces == {"rooms": "Room", "tables": "Table"}
