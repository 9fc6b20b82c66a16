"""Facets: child actors that are part of an actor, each with an instance and storage of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio

from runtime import (
    Actor,
    ActorError,
    ActorReset,
    App,
    Context,
    FacetStartupOptions,
    LimitExceeded,
    Namespace,
    Overloaded,
    Request,
    Response,
)
from runtime.namespace.inside import run_in
from runtime.node import open_node
from runtime.storage.memory import MemoryStore
from runtime.testing import start_server
from runtime.testing.platform import virtual_platform


class Note(Actor["Env"]):
    """Keeps values, in keys or in a database of its own."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.remembered: Any = None

    async def put(self, key: str, value: Any) -> None:
        self.remembered = value
        self.ctx.storage.put(key, value)

    async def get(self, key: str) -> Any:
        return self.ctx.storage.get(key)

    async def keys(self) -> list[str]:
        return list(self.ctx.storage.list())

    async def memory(self) -> Any:
        return self.remembered

    async def who(self) -> tuple[str, str | None]:
        return str(self.ctx.id), self.ctx.id.name

    async def slow(self, seconds: float) -> str:
        await self.ctx.sleep(seconds)
        return "done"

    async def later(self, seconds: float) -> None:
        self.ctx.set_timeout(seconds, self.put, "late", 1)

    async def fail(self) -> None:
        raise ValueError("own")

    async def die(self) -> None:
        self.ctx.storage.put("lost", 1)
        self.ctx.abort("gone")

    async def twice(self, function: Any) -> Any:
        return await function(2) + await function(3)

    async def set_alarm(self, *, caught: bool = False, deleted: bool = False) -> Any:
        self.ctx.storage.put("v", 1)
        self.ctx.storage.set_alarm(self.ctx.now() + 60)
        if deleted:
            self.ctx.storage.delete_alarm()
        if caught:
            await self.ctx.storage.sync()
        return self.ctx.storage.get_alarm() is not None

    async def alarm(self, info: Any) -> None:
        raise AssertionError("a facet has none")

    async def clear(self) -> None:
        self.ctx.storage.delete_all()

    async def deeper(self) -> int:
        try:
            return await self.ctx.facets.get("below", lambda: type(self)).deeper() + 1
        except ActorError:
            return 1

    async def put_far_below(self, names: list[str]) -> None:
        if names:
            await self.ctx.facets.get(names[0], lambda: Note).put_far_below(names[1:])

    async def put_below(self, key: str, value: Any) -> None:
        await self.ctx.facets.get("below", lambda: type(self)).put(key, value)

    async def get_below(self, key: str) -> Any:
        return await self.ctx.facets.get("below", lambda: type(self)).get(key)

    async def fetch(self, request: Request) -> Response:
        self.ctx.accept_web_socket(request.web_socket)
        return Response(101)

    async def web_socket_message(self, ws: Any, message: Any) -> None:
        self.remembered = message
        ws.send(f"{type(self).__name__} {message}")


class SqlNote(Note):
    """With a database."""

    storage = "sql"

    async def insert(self, number: int) -> list[int]:
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS t (x)")
        self.ctx.storage.sql.exec("INSERT INTO t VALUES (?)", number)
        return [x for (x,) in self.ctx.storage.sql.exec("SELECT x FROM t ORDER BY x").raw()]


class Parent(Note):
    """Has facets."""

    kind: type[Note] = Note
    starts = 0

    def start(self) -> type[Note]:
        self.starts += 1
        return self.kind

    def kid(self, name: str = "kid") -> Any:
        return self.ctx.facets.get(name, self.start)

    async def fetch(self, request: Request) -> Response:
        response: Response = await self.kid().fetch(request)
        return response


class SqlParent(Parent):
    """The same with a database."""

    storage = "sql"
    kind = SqlNote


@attrs.frozen
class Env:
    parents: Namespace[Parent]
    sql_parents: Namespace[SqlParent]


APP = App(env=Env, routes={"/{name}": Parent})


@pytest.fixture(params=["parents", "sql_parents"])
def field(request: Any) -> str:
    return str(request.param)


def parent_of(server: Any, field: str = "parents", name: str = "p") -> Any:
    return getattr(server.env, field).get_by_name(name)


async def test_a_facet_has_storage_and_memory_of_its_own(autojump_clock, field):
    async with start_server(APP) as server:
        parent = parent_of(server, field)

        async def use(actor: Parent) -> None:
            actor.ctx.storage.put("v", "parent's")
            await actor.kid("a").put("v", "a's")
            await actor.kid("b").put("v", "b's")
            assert await actor.get("v") == "parent's"
            assert await actor.kid("a").get("v") == "a's"
            assert await actor.kid("b").memory() == "b's"
            assert await actor.keys() == ["v"]

        await server.run_in(parent, use)


async def test_it_is_started_at_the_first_call_and_not_again_while_it_runs(autojump_clock):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            kid = actor.kid()
            assert actor.starts == 0
            call = kid.put("v", 1)
            assert actor.starts == 0
            await call
            await actor.kid().put("v", 2)
            assert actor.starts == 1

        await server.run_in(parent_of(server), use)


async def test_calls_that_are_made_while_it_starts_arrive_in_their_order(autojump_clock):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            async def start() -> type[Note]:
                await actor.ctx.sleep(5)
                return Note

            kid = actor.ctx.facets.get("kid", start)
            calls = [kid.put(key, 1) for key in "cab"]
            for call in calls:
                await call
            assert await kid.keys() == ["a", "b", "c"]

        await server.run_in(parent_of(server), use)


async def test_it_is_there_again_after_the_eviction_of_its_parent(autojump_clock, field):
    async with start_server(APP) as server:
        parent = parent_of(server, field)
        await server.run_in(parent, lambda actor: actor.kid().put("v", 1))
        await server.evict(parent)
        assert server.live_actors == 0
        assert await server.run_in(parent, lambda actor: actor.kid().memory()) is None
        assert await server.run_in(parent, lambda actor: actor.kid().get("v")) == 1


async def test_what_was_durable_survives_a_crash_and_nothing_else_does(autojump_clock, field):
    async with start_server(APP, store=MemoryStore(delay=1)) as server:

        async def use(actor: Parent) -> None:
            await actor.kid().put("v", 1)
            await actor.kid().put_below("v", 2)
            actor.ctx.notify(actor.kid().put, "lost", 1)
            actor.ctx.notify(actor.kid("new").put, "lost", 1)

        await server.run_in(parent_of(server, field), use)
        await server.crash()
        await server.start()

        async def look(actor: Parent) -> None:
            assert await actor.kid().keys() == ["v"]
            assert await actor.kid().get_below("v") == 2
            assert await actor.kid("new").keys() == []

        await server.run_in(parent_of(server, field), look)


async def test_a_sql_class_as_a_facet_of_either_class(autojump_clock, field):
    async with start_server(APP) as server:
        parent = parent_of(server, field)

        async def insert(actor: Parent) -> list[int]:
            rows: list[int] = await actor.ctx.facets.get("sql", lambda: SqlNote).insert(1)
            return rows

        assert await server.run_in(parent, insert) == [1]
        await server.restart()
        assert await server.run_in(parent_of(server, field), insert) == [1, 1]
        await server.crash()
        await server.start()
        assert await server.run_in(parent_of(server, field), insert) == [1, 1, 1]


async def test_abort_gives_calls_in_flight_and_used_stubs_the_reason_and_an_unused_stub_starts_it_anew(
    autojump_clock, field
):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            used, unused = actor.kid(), actor.kid()
            await used.put("v", 1)
            call = used.slow(60)
            await actor.ctx.sleep(1)
            actor.ctx.facets.abort("kid", KeyError("stop it"))
            for attempt in (call, used.get("v")):
                with pytest.raises(KeyError) as caught:
                    await attempt
                assert caught.value.args == ("stop it",)
                assert not hasattr(caught.value, "remote")
            assert await unused.memory() is None
            assert await unused.get("v") == 1

        await server.run_in(parent_of(server, field), use)


async def test_abort_while_it_starts(autojump_clock):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            async def start() -> type[Note]:
                await actor.ctx.sleep(5)
                return Note

            kid = actor.ctx.facets.get("kid", start)
            call = kid.put("v", 1)
            await actor.ctx.sleep(1)
            actor.ctx.facets.abort("kid", KeyError("early"))
            with pytest.raises(KeyError, match="early"):
                await call
            with pytest.raises(KeyError, match="early"):
                await kid.keys()
            assert await actor.kid().keys() == []

        await server.run_in(parent_of(server), use)


async def test_a_start_that_failed_fails_every_call_until_abort_or_delete(autojump_clock):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            def start() -> type[Note]:
                raise ValueError("bad start")

            facets = actor.ctx.facets
            for end in (lambda: facets.abort("kid", KeyError()), lambda: facets.delete("kid")):
                with pytest.raises(ValueError, match="bad start") as caught:
                    await facets.get("kid", start).keys()
                assert not hasattr(caught.value, "remote")
                with pytest.raises(ValueError, match="bad start"):
                    await actor.kid().keys()
                end()
                assert await actor.kid().keys() == []
                facets.abort("kid", KeyError())

        await server.run_in(parent_of(server), use)


async def test_delete_takes_its_storage_and_its_own_facets_along(autojump_clock, field):
    async with start_server(APP) as server:
        parent = parent_of(server, field)

        async def use(actor: Parent) -> None:
            kid = actor.kid()
            await kid.put("v", 1)
            await kid.put_below("v", 2)
            call = kid.slow(60)
            await actor.ctx.sleep(1)
            actor.ctx.facets.delete("kid")
            with pytest.raises(ActorError, match=r"^Facet was deleted\.$") as caught:
                await call
            assert not caught.value.durable_object_reset
            assert await actor.kid().keys() == []
            assert await actor.kid().get_below("v") is None
            actor.ctx.facets.delete("kid")
            await actor.ctx.sleep(1)

        await server.run_in(parent, use)
        assert server.store.list_below(parent.id) == []
        assert list(server.disk.folder.rglob("*.sqlite")) == [] or field == "sql_parents"
        assert not [path for path in server.disk.folder.rglob("*.sqlite*") if len(path.stem) > 64]


async def test_a_deletion_is_undone_with_the_batch_it_belongs_to(autojump_clock, field):
    async with start_server(APP) as server:
        parent = parent_of(server, field)
        await server.run_in(parent, lambda actor: actor.kid().put("v", 1))

        def delete_and_die(actor: Parent) -> None:
            actor.ctx.facets.delete("kid")
            actor.ctx.abort("changed my mind")

        with pytest.raises(ActorReset, match="changed my mind"):
            await server.run_in(parent, delete_and_die)
        assert await server.run_in(parent_of(server, field), lambda actor: actor.kid().get("v")) == 1


async def test_no_rollback_brings_a_deleted_facet_back(autojump_clock, field):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            await actor.kid().put("v", 1)

            async def undone(_: Any) -> None:
                actor.ctx.storage.put("also", 1)
                actor.ctx.facets.delete("kid")
                raise ValueError("undo")

            with pytest.raises(ValueError, match="undo"):
                await actor.ctx.storage.transaction(undone)
            assert await actor.kid().get("v") is None
            assert actor.ctx.storage.get("also") is None

        await server.run_in(parent_of(server, field), use)


async def test_no_rollback_separates_a_facet_from_its_storage(autojump_clock, field):
    async with start_server(APP) as server:
        parent = parent_of(server, field)

        async def use(actor: Parent) -> None:
            async def undone(_: Any) -> None:
                await actor.kid().put("v", 1)
                raise ValueError("undo")

            with pytest.raises(ValueError, match="undo"):
                await actor.ctx.storage.transaction(undone)

        await server.run_in(parent, use)
        await server.evict(parent)
        assert await server.run_in(parent, lambda actor: actor.kid().get("v")) == 1


async def test_delete_all_of_the_parent_deletes_every_facet(autojump_clock, field):
    async with start_server(APP) as server:
        parent = parent_of(server, field)

        async def use(actor: Parent) -> None:
            kid = actor.kid()
            await kid.put("v", 1)
            actor.ctx.storage.delete_all()
            with pytest.raises(ActorError, match=r"^Facet was deleted\.$"):
                await kid.get("v")
            assert await actor.kid().memory() is None
            assert await actor.kid().keys() == []
            await actor.kid().put("w", 1)
            await actor.ctx.sleep(1)

        await server.run_in(parent, use)
        assert len(server.store.list_below(parent.id)) == 1
        await server.evict(parent)
        assert await server.run_in(parent, lambda actor: actor.kid().keys()) == ["w"]
        await server.evict(parent)
        await server.run_in(parent, lambda actor: actor.ctx.storage.delete_all())  # they are not in memory
        await trio.sleep(1)
        assert server.store.list_below(parent.id) == []
        assert server.env.parents.list_ids() == []


async def test_what_a_crash_leaves_of_deleted_facets_is_removed_when_facets_are_next_used(autojump_clock, field):
    async with start_server(APP) as server:
        parent = parent_of(server, field)
        await server.run_in(parent, lambda actor: actor.kid().put("v", 1))
        await server.run_in(parent, lambda actor: actor.kid("other").put("v", 2))
        await server.run_in(parent, lambda actor: actor.ctx.facets.delete("kid"))
        await server.crash()
        await server.start()
        parent = parent_of(server, field)
        assert len(server.store.list_below(parent.id)) == 2  # its removal had only begun
        assert await server.run_in(parent, lambda actor: actor.kid("other").get("v")) == 2
        await trio.sleep(1)
        assert len(server.store.list_below(parent.id)) == 1


async def test_its_own_errors_carry_remote_and_its_own_abort_resets_only_itself(autojump_clock):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            kid = actor.kid()
            with pytest.raises(ValueError, match="own") as caught:
                await kid.fail()
            assert caught.value.remote
            for attempt in (kid.die, kid.keys):
                with pytest.raises(ActorReset, match="gone") as reset:
                    await attempt()
                assert reset.value.durable_object_reset
            assert await actor.kid().keys() == []

        await server.run_in(parent_of(server), use)


async def test_it_goes_with_its_parent(autojump_clock):
    async with start_server(APP) as server:
        parent = parent_of(server)

        async def use(actor: Parent) -> None:
            await actor.kid().put("v", 1)
            await actor.kid().later(5)
            actor.ctx.set_timeout(1, die)

            async def wait() -> None:
                await actor.kid().slow(60)

            actor.ctx.wait_until(wait())

        async def die() -> None:
            raise AssertionError

        await server.run_in(parent, use)
        server.abort(parent)
        await trio.sleep(10)
        assert await server.run_in(parent_of(server), lambda actor: actor.kid().keys()) == ["v"]


async def test_what_runs_in_a_facet_keeps_its_parent_in_memory(autojump_clock):
    async with start_server(APP, idle_s=10) as server:
        parent = parent_of(server)
        await server.run_in(parent, lambda actor: actor.kid().later(30))
        await trio.sleep(25)
        assert server.live_actors == 1
        await trio.sleep(25)
        assert server.live_actors == 0
        assert await server.run_in(parent, lambda actor: actor.kid().get("late")) == 1


@pytest.mark.parametrize("how", [{}, {"caught": True}])
async def test_an_alarm_of_a_facet_is_refused_with_its_batch(autojump_clock, field, how):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            with pytest.raises(ActorError, match=r"^Facets currently cannot set alarms\.$") as caught:
                await actor.kid().set_alarm(**how)
            assert not caught.value.durable_object_reset
            assert await actor.kid().get("v") is None
            assert await actor.kid().set_alarm(deleted=True) is False
            assert await actor.kid().get("v") == 1

        await server.run_in(parent_of(server, field), use)


async def test_its_id_is_that_of_its_parent_unless_it_is_given_one(autojump_clock):
    async with start_server(APP) as server:
        parent, other = parent_of(server), server.env.sql_parents.id_from_name("zz")

        async def use(actor: Parent) -> None:
            assert await actor.kid().who() == (str(parent.id), "p")
            text = actor.ctx.facets.get("text", lambda: FacetStartupOptions(Note, "abc"))
            assert await text.who() == ("abc", None)
            given = actor.ctx.facets.get("given", lambda: FacetStartupOptions(Note, other))
            assert await given.who() == (str(other), "zz")

        await server.run_in(parent, use)


async def test_its_stub_has_neither_id_nor_name_and_cannot_be_passed_on(autojump_clock):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            kid = actor.kid()
            assert callable(kid.id)
            assert callable(kid.name)
            text = r"^Stubs pointing to Durable Object facets are not serializable\.$"
            with pytest.raises(TypeError, match=text):
                await actor.env.parents.get_by_name("other").put("v", [kid])
            with pytest.raises(TypeError, match=text):
                actor.ctx.storage.put("v", kid)

        await server.run_in(parent_of(server), use)


async def test_functions_pass_between_a_facet_and_its_parent(autojump_clock):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            async def double(value: int) -> int:
                return value * 2

            assert await actor.kid().twice(double) == 10

        await server.run_in(parent_of(server), use)


async def test_a_critical_section_of_the_parent_can_start_and_call_one(autojump_clock):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            kid = actor.kid()

            async def section() -> None:
                await kid.put("v", 1)

            await actor.ctx.block_concurrency_while(section)
            assert await kid.get("v") == 1

        await server.run_in(parent_of(server), use)


async def test_names_and_depth_are_bounded(autojump_clock):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            facets = actor.ctx.facets
            for name in ("é" * 129, "x" * 257):
                with pytest.raises(TypeError, match=r"^Facet name is too long \(max 256 characters\)\.$"):
                    facets.get(name, actor.start)
                with pytest.raises(TypeError, match="too long"):
                    facets.abort(name, KeyError())
                with pytest.raises(TypeError, match="too long"):
                    facets.delete(name)
            with pytest.raises(TypeError, match="cannot be empty"):
                facets.get("", actor.start)
            await facets.get("é" * 128, actor.start).put("v", 1)
            assert await actor.deeper() == 4
            await actor.put_far_below(["a", "b", "c"])
            with pytest.raises(ActorError, match=r"limit exceeded\. The maximum depth including the root .* is 4\."):
                await actor.put_far_below(["a", "b", "c", "d"])

        await server.run_in(parent_of(server), use)


async def test_what_a_start_returns_is_checked(autojump_clock):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            for name, wrong in (("a", None), ("b", "Note"), ("c", int), ("d", FacetStartupOptions(Note, 5))):  # type: ignore[arg-type]
                with pytest.raises(TypeError, match="is to"):
                    await actor.ctx.facets.get(name, lambda wrong=wrong: wrong).keys()
            with pytest.raises(TypeError, match="needs a function"):
                actor.ctx.facets.get("e", None)
            with pytest.raises(TypeError, match="is an exception"):
                actor.ctx.facets.abort("e", "why not")

        await server.run_in(parent_of(server), use)


async def test_arguments_and_results_are_bounded_as_for_every_call(autojump_clock):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            with pytest.raises(LimitExceeded):
                await actor.kid().put("v", bytes(32 * 1024 * 1024 + 1))

        await server.run_in(parent_of(server), use)


async def test_facets_are_no_actors_of_their_namespace(autojump_clock, field):
    async with start_server(APP) as server:
        namespace = getattr(server.env, field)
        parent = parent_of(server, field)
        await server.run_in(parent, lambda actor: actor.kid().put("v", 1))
        assert namespace.list_ids() == [parent.id]
        assert [actor.name for actor in server.store.list_below(parent.id)] == ["kid"]


async def test_the_parents_keys_end_where_those_of_the_runtime_begin(autojump_clock, field):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            await actor.kid().put("v", 1)
            storage = actor.ctx.storage
            storage.put("\U0010ffff", 1)
            assert list(storage.list(reverse=True)) == ["\U0010ffff"]
            assert list(storage.list(start="a", end="\U0010ffff\U0010ffff")) == ["\U0010ffff"]

        await server.run_in(parent_of(server, field), use)


async def test_a_socket_of_a_facet_keeps_it_and_its_parent_in_memory_until_it_closes(autojump_clock):
    async with start_server(APP, idle_s=10) as server:
        async with server.connect("/p") as ws:
            await trio.sleep(30)
            await ws.send_message("hello")
            assert await ws.get_message() == "Note hello"
            assert server.live_actors == 1
            assert await server.run_in(parent_of(server), lambda actor: actor.kid().memory()) == "hello"
        await trio.sleep(30)
        assert server.live_actors == 0


async def test_a_server_with_sockets_of_facets_stops(autojump_clock):
    async with start_server(APP) as server, server.connect("/p"):
        begun = trio.current_time()
        await server.stop()
        assert trio.current_time() - begun < 10
        await server.start()


async def test_a_facet_is_out_of_reach_and_not_lost_while_its_parent_is_back_before_its_start(autojump_clock):
    async with start_server(APP) as server:
        parent = parent_of(server)

        async def bring_back(actor: Parent, bookmark: str) -> str:
            return await actor.ctx.storage.on_next_session_restore_bookmark(bookmark)

        before = await server.run_in(parent, lambda actor: actor.ctx.storage.get_current_bookmark())
        await trio.sleep(10)
        await server.run_in(parent, lambda actor: actor.kid().put("v", 1))
        undo = await server.run_in(parent, lambda actor: bring_back(actor, before))
        server.abort(parent)
        assert await server.run_in(parent_of(server), lambda actor: actor.kid().get("v")) is None
        await server.run_in(parent_of(server), lambda actor: bring_back(actor, undo))
        server.abort(parent)
        await trio.sleep(1)
        assert await server.run_in(parent_of(server), lambda actor: actor.kid().get("v")) == 1


async def test_idle_facets_leave_with_their_parent_when_there_is_no_room(autojump_clock):
    async with trio.open_nursery() as nursery:
        async with open_node(
            APP,
            settings=None,
            store=MemoryStore(),
            platform=virtual_platform(),
            log=structlog.stdlib.get_logger(),
            objects=Path("unused"),
            live_actors=4,
        ) as node:
            for number in range(4):
                parent = node.env.parents.get_by_name(str(number))
                for name in "ab":
                    await run_in(node.router, parent.id, lambda actor, name=name: actor.kid(name).put("v", 1))
            containers = node.router.containers.values()
            assert sum(held.cell is not None for held in containers) == 1
            full = node.env.parents.get_by_name("0")

            async def too_many(actor: Parent) -> None:
                for name in "abcd":
                    await actor.kid(name).keys()

            with pytest.raises(Overloaded, match="at most 4"):
                await run_in(node.router, full.id, too_many)
        nursery.cancel_scope.cancel()
