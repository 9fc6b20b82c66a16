"""Facets go back in time together with the actor that they belong to."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from runtime.storage.memory import MemoryStore
from runtime.storage.shared import SharedStore
from runtime.storage.store import Store
from runtime.testing import start_server
from runtime.testing.platform import virtual_platform
from tests.namespace.test_facets import APP, Note, Parent, parent_of


@pytest.fixture(params=["memory", "shared", "rebuilding"])
async def store(request: Any, tmp_path: Any, autojump_clock: Any) -> Store | None:
    if request.param == "memory":
        return None
    more: dict[str, Any] = {"in_place_bytes": 0} if request.param == "rebuilding" else {}
    return SharedStore(tmp_path, platform=virtual_platform(), **more)


async def bookmark(server: Any) -> str:
    found: str = await server.run_in(parent_of(server), lambda actor: actor.ctx.storage.get_current_bookmark())
    return found


async def bring_back(server: Any, to: str) -> str:
    """Restore the parent; the bookmark that leads back."""
    parent = parent_of(server)
    undo: str = await server.run_in(parent, lambda actor: actor.ctx.storage.on_next_session_restore_bookmark(to))
    server.abort(parent)
    return undo


async def test_what_a_facet_wrote_since_is_undone_and_done_again(autojump_clock, store):
    async with start_server(APP, store=store) as server:

        async def write(actor: Parent, value: int) -> None:
            actor.ctx.storage.put("v", value)
            await actor.kid().put("v", value)
            await actor.kid().put_below("v", value)

        async def read(actor: Parent) -> list[Any]:
            return [await actor.get("v"), await actor.kid().get("v"), await actor.kid().get_below("v")]

        await server.run_in(parent_of(server), lambda actor: write(actor, 1))
        before = await bookmark(server)
        await server.run_in(parent_of(server), lambda actor: write(actor, 2))
        undo = await bring_back(server, before)
        assert await server.run_in(parent_of(server), read) == [1, 1, 1]
        await server.run_in(parent_of(server), lambda actor: write(actor, 3))
        again = await bring_back(server, undo)
        assert await server.run_in(parent_of(server), read) == [2, 2, 2]
        await bring_back(server, again)
        assert await server.run_in(parent_of(server), read) == [3, 3, 3]


async def test_a_facet_that_was_deleted_or_cloned_over_since_is_there_again(autojump_clock, store):
    async with start_server(APP, store=store) as server:

        async def fill(actor: Parent) -> None:
            for name in ("deleted", "over", "other"):
                await actor.kid(name).put("v", name)
                await actor.kid(name).put_below("v", name)

        async def change(actor: Parent) -> None:
            actor.ctx.facets.delete("deleted")
            await actor.ctx.facets.clone("other", "over")
            await actor.kid("over").put("w", 1)
            await actor.kid("new").put("v", "new")

        async def read(actor: Parent) -> list[Any]:
            kids = [actor.kid(name) for name in ("deleted", "over", "other", "new")]
            return [[await kid.get("v"), await kid.get_below("v")] for kid in kids]

        then = [["deleted", "deleted"], ["over", "over"], ["other", "other"], [None, None]]
        since = [[None, None], ["other", "other"], ["other", "other"], ["new", None]]
        await server.run_in(parent_of(server), fill)
        before = await bookmark(server)
        await server.run_in(parent_of(server), change)
        await trio.sleep(60)  # what was deleted has been removed
        undo = await bring_back(server, before)
        assert await server.run_in(parent_of(server), read) == then
        await trio.sleep(60)
        undone = await bring_back(server, undo)
        assert await server.run_in(parent_of(server), read) == since
        await bring_back(server, undone)
        assert await server.run_in(parent_of(server), read) == then


async def test_a_facet_without_history_stays_as_it_is(autojump_clock, store):
    class Forgetful(Note):
        history = False

    async with start_server(APP, store=store) as server:

        async def put(actor: Parent, value: int) -> None:
            await actor.ctx.facets.get("kid", lambda: Forgetful).put("v", value)

        await server.run_in(parent_of(server), lambda actor: put(actor, 1))
        before = await bookmark(server)
        await server.run_in(parent_of(server), lambda actor: put(actor, 2))
        await bring_back(server, before)
        assert await server.run_in(parent_of(server), lambda actor: actor.kid().get("v")) == 2


async def test_facets_of_others_stay_as_they_are(autojump_clock, store):
    async with start_server(APP, store=store) as server:
        await server.run_in(parent_of(server), lambda actor: actor.kid().put("v", 1))
        before = await bookmark(server)
        for name in ("p", "q"):
            await server.run_in(parent_of(server, name=name), lambda actor: actor.kid().put("v", 2))
        await bring_back(server, before)
        assert await server.run_in(parent_of(server), lambda actor: actor.kid().get("v")) == 1
        assert await server.run_in(parent_of(server, name="q"), lambda actor: actor.kid().get("v")) == 2


async def test_what_a_delete_all_took_comes_back_with_its_facets(autojump_clock, store):
    async with start_server(APP, store=store) as server:

        async def read(actor: Parent) -> list[Any]:
            return [await actor.kid().get("v"), await actor.kid().get_below("v")]

        await server.run_in(parent_of(server), lambda actor: actor.kid().put("v", 1))
        await server.run_in(parent_of(server), lambda actor: actor.kid().put_below("v", 2))
        before = await bookmark(server)
        await server.run_in(parent_of(server), lambda actor: actor.clear())
        await trio.sleep(60)
        assert await server.run_in(parent_of(server), read) == [None, None]
        await bring_back(server, before)
        assert await server.run_in(parent_of(server), read) == [1, 2]


async def test_a_crash_leaves_all_of_a_restore_or_nothing(autojump_clock):
    seen: list[Any] = []
    for after_s in (0.5, 1.5, 2.5, 3.5, 4.5, 5.5):
        async with start_server(APP, store=MemoryStore(delay=1)) as server:

            async def write(actor: Parent, value: int) -> None:
                await actor.kid().put("v", value)
                actor.ctx.storage.put("v", value)

            async def read(actor: Parent) -> list[Any]:
                return [await actor.get("v"), await actor.kid().get("v")]

            await server.run_in(parent_of(server), lambda actor: write(actor, 1))
            before = await bookmark(server)
            await server.run_in(parent_of(server), lambda actor: write(actor, 2))

            async def restore(server: Any = server, before: str = before) -> None:
                await bring_back(server, before)
                await server.run_in(parent_of(server), lambda actor: actor.get("v"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(restore)
                await trio.sleep(after_s)
                await server.crash()
                nursery.cancel_scope.cancel()
            await server.start()
            seen.append(await server.run_in(parent_of(server), read))
    assert [1, 1] in seen
    assert [2, 2] in seen
    assert all(found in ([1, 1], [2, 2]) for found in seen)
