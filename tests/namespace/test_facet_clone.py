"""`facets.clone`: the storage of one facet, and of those below it, as that of another one; all of it or nothing."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from runtime import ActorError, StorageFailed
from runtime.storage.memory import MemoryStore
from runtime.testing import start_server
from tests.namespace.test_facets import APP, Note, Parent, SqlNote, parent_of


@pytest.fixture(params=["parents", "sql_parents"])
def field(request: Any) -> str:
    return str(request.param)


def stored_below(server: Any, parent: Any) -> list[str]:
    """The names of the facets that have something stored, deleted ones that are still being removed too."""
    return sorted(actor.name for actor in server.store.list_below(parent.id))


async def test_a_clone_has_the_storage_of_then_and_no_memory(autojump_clock, field):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            await actor.kid("src").put("v", 1)
            assert await actor.ctx.facets.clone("src", "dst") is None
            assert await actor.kid("dst").memory() is None
            assert await actor.kid("src").memory() == 1
            await actor.kid("src").put("v", 2)
            await actor.kid("dst").put("w", 3)
            assert [await actor.kid("dst").get(key) for key in "vw"] == [1, 3]
            assert [await actor.kid("src").get(key) for key in "vw"] == [2, None]

        await server.run_in(parent_of(server, field), use)
        await server.restart()

        async def look(actor: Parent) -> None:
            assert [await actor.kid("dst").get(key) for key in "vw"] == [1, 3]
            assert [await actor.kid("src").get(key) for key in "vw"] == [2, None]

        await server.run_in(parent_of(server, field), look)


async def test_everything_below_is_cloned_whatever_it_is_stored_in(autojump_clock, field):
    async with start_server(APP) as server:
        kinds = (Note, SqlNote)

        async def fill(actor: Parent) -> None:
            for number, kind in enumerate(kinds):
                kid = actor.ctx.facets.get(f"src{number}", lambda kind=kind: kind)
                await kid.put("v", number)
                await kid.put_below("v", number + 10)
                await kid.put_far_below(["far"])

        async def look(actor: Parent) -> None:
            for number, kind in enumerate(kinds):
                kid = actor.ctx.facets.get(f"dst{number}", lambda kind=kind: kind)
                assert (await kid.get("v"), await kid.get_below("v")) == (number, number + 10)

        async def clone(actor: Parent) -> None:
            for number in range(2):
                await actor.ctx.facets.clone(f"src{number}", f"dst{number}")
            await look(actor)

        async def delete(actor: Parent) -> None:
            for number in range(2):
                actor.ctx.facets.delete(f"src{number}")
            await look(actor)

        for step in (fill, clone, look, delete, look):
            await server.run_in(parent_of(server, field), step)
            await server.evict(parent_of(server, field))
        await server.crash()
        await server.start()
        await server.run_in(parent_of(server, field), look)


async def test_a_facet_that_nobody_started_leaves_nothing(autojump_clock, field):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            await actor.kid("dst").put("v", 1)
            await actor.ctx.facets.clone("nobody", "dst")
            assert await actor.kid("dst").keys() == []

        await server.run_in(parent_of(server, field), use)


async def test_cloned_onto_itself_a_facet_loses_its_instance_only(autojump_clock, field):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            kid = actor.kid()
            await kid.put("v", 1)
            await actor.ctx.facets.clone("kid", "kid")
            with pytest.raises(ActorError, match=r"^Facet was cloned-over\.$"):
                await kid.get("v")
            assert (await actor.kid().memory(), await actor.kid().get("v")) == (None, 1)

        await server.run_in(parent_of(server, field), use)


@pytest.mark.parametrize("after_s", [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 60])
async def test_a_crash_leaves_a_whole_clone_or_none(autojump_clock, field, after_s):
    async with start_server(APP, store=MemoryStore(delay=1)) as server:
        parent = parent_of(server, field)
        told: list[str] = []

        async def fill(actor: Parent) -> None:
            for name in ("src", "dst"):
                await actor.kid(name).put("v", name)
                await actor.kid(name).put_below("v", name)

        async def clone() -> None:
            async def use(actor: Parent) -> None:
                actor.ctx.storage.put("cloned", 1)
                await actor.ctx.facets.clone("src", "dst")

            await server.run_in(parent, use)
            told.append("cloned")

        await server.run_in(parent, fill)
        async with trio.open_nursery() as nursery:

            async def quietly() -> None:
                with trio.move_on_after(100):
                    await clone()

            nursery.start_soon(quietly)
            await trio.sleep(after_s)
            await server.crash()
            nursery.cancel_scope.cancel()
        await server.start()

        async def look(actor: Parent) -> None:
            cloned = await actor.get("cloned") == 1
            assert cloned or not told
            kid = actor.kid("dst")
            assert (await kid.get("v"), await kid.get_below("v")) == (("src", "src") if cloned else ("dst", "dst"))

        await server.run_in(parent_of(server, field), look)
        await trio.sleep(20)
        assert len(stored_below(server, parent)) == 4  # what is left of anything else was removed


async def test_a_reset_of_the_parent_before_its_next_wait_undoes_a_clone(autojump_clock, field):
    async with start_server(APP) as server:
        parent = parent_of(server, field)

        async def use(actor: Parent) -> None:
            await actor.kid("src").put("v", 1)
            await actor.ctx.facets.clone("src", "dst")
            actor.ctx.abort("gone")

        with pytest.raises(Exception, match="gone"):
            await server.run_in(parent, use)
        assert await server.run_in(parent, lambda actor: actor.kid("dst").keys()) == []
        await trio.sleep(20)
        assert stored_below(server, parent) == ["src"]


async def test_a_rollback_does_not_undo_a_clone(autojump_clock, field):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            await actor.kid("src").put("v", 1)

            async def inside(transaction: Any) -> None:
                await actor.ctx.facets.clone("src", "dst")
                transaction.rollback()

            await actor.ctx.storage.transaction(inside)
            assert await actor.kid("dst").get("v") == 1

        await server.run_in(parent_of(server, field), use)


async def test_when_the_disk_refuses_the_target_stays_as_it_was(autojump_clock, field):
    async with start_server(APP) as server:
        parent = parent_of(server, field)

        async def fill(actor: Parent) -> None:
            await actor.kid("src").put("v", 1)
            await actor.kid("dst").put("v", 2)

        async def use(actor: Parent) -> None:
            if field == "parents":
                server.store.fail_next(StorageFailed("full"))
            else:
                server.disk.fail_next(OSError("full"))
            with pytest.raises(StorageFailed, match="full"):
                await actor.ctx.facets.clone("src", "dst")
            assert (await actor.kid("dst").memory(), await actor.kid("dst").get("v")) == (2, 2)
            await actor.ctx.facets.clone("src", "dst")
            assert await actor.kid("dst").get("v") == 1

        await server.run_in(parent, fill)
        await server.run_in(parent, use)
        await trio.sleep(20)
        assert stored_below(server, parent) == ["dst", "src"]


async def test_those_that_run_agree_with_each_other(autojump_clock, field):
    async with start_server(APP) as server:
        parent = parent_of(server, field)

        async def move(actor: Parent) -> None:
            async def steps(kid: Note) -> None:
                for number in range(1, 40):
                    kid.ctx.storage.put("v", number)
                    await kid.put_below("v", number)

            class Mover(actor.kind):  # type: ignore[name-defined,misc]
                async def move(self) -> None:
                    await steps(self)

            mover = actor.ctx.facets.get("src", lambda: Mover)
            actor.ctx.notify(mover.move)
            for _ in range(20):
                await actor.ctx.sleep(0.001)
                await actor.ctx.facets.clone("src", "dst")
                own, below = await actor.kid("dst").get("v"), await actor.kid("dst").get_below("v")
                assert (own or 0) - (below or 0) in {0, 1}

        await server.run_in(parent, move)


async def test_a_clone_has_bookmarks_of_its_own(autojump_clock, field):
    async with start_server(APP) as server:

        async def use(actor: Parent) -> None:
            await actor.kid("src").put("v", 1)
            await actor.ctx.sleep(10)
            await actor.ctx.facets.clone("src", "dst")
            await actor.ctx.sleep(10)
            await actor.kid("dst").put("v", 2)

        async def bookmark(actor: Parent) -> str:
            class Keeper(actor.kind):  # type: ignore[name-defined,misc]
                async def mark(self) -> str:
                    return await self.ctx.storage.get_current_bookmark()

                async def back(self, to: str) -> None:
                    await self.ctx.storage.on_next_session_restore_bookmark(to)
                    self.ctx.abort("back")

            await actor.ctx.facets.clone("src", "dst")
            keeper = actor.ctx.facets.get("dst", lambda: Keeper)
            before = await keeper.mark()
            await keeper.put("v", 3)
            with pytest.raises(Exception, match="back"):
                await keeper.back(before)
            return await actor.kid("dst").get("v")

        await server.run_in(parent_of(server, field), use)
        assert await server.run_in(parent_of(server, field), bookmark) == 1
