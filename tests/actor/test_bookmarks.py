"""`ctx.storage` and its history: bookmarks, restores at the next instance, and what a class without history says."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from runtime import Actor, AlarmInfo, App, Context, InvalidBookmark, Namespace
from runtime.storage.shared import SharedStore
from runtime.testing import RunningServer, start_server
from runtime.testing.platform import virtual_platform


class Notes(Actor["Env"]):
    """Keeps texts, and says where it stands."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.born_with = ctx.storage.get("text")

    async def write(self, text: str) -> str:
        self.ctx.storage.put("text", text)
        return await self.ctx.storage.get_current_bookmark()

    async def read(self) -> tuple[str | None, str | None, float | None]:
        return self.born_with, self.ctx.storage.get("text"), self.ctx.storage.get_alarm()

    async def at(self, time_s: float) -> str:
        return await self.ctx.storage.get_bookmark_for_time(time_s)

    async def back_to(self, bookmark: str) -> str:
        return await self.ctx.storage.on_next_session_restore_bookmark(bookmark)

    async def back_at_once(self, bookmark: str) -> None:
        await self.ctx.storage.on_next_session_restore_bookmark(bookmark)
        self.ctx.abort("restoring")

    async def wake_in(self, seconds: float) -> None:
        self.ctx.storage.set_alarm(self.ctx.now() + seconds)

    async def alarm(self, info: AlarmInfo) -> None:
        self.ctx.storage.put("text", "woken")

    async def clear(self) -> None:
        self.ctx.storage.delete_all()

    async def lineage(self) -> str:
        return self.ctx.lineage

    async def inside_a_transaction(self, bookmark: str) -> str:
        async def body(_: Any) -> str:
            return await self.ctx.storage.on_next_session_restore_bookmark(bookmark)

        return await self.ctx.storage.transaction(body)


class Forgetful(Notes):
    """The same without history."""

    history = False


class SqlNotes(Notes):
    """The same in a database of its own."""

    storage = "sql"


class SqlForgetful(SqlNotes):
    """The same in a database of its own, without history."""

    history = False


@attrs.frozen
class Env:
    notes: Namespace[Notes]
    forgetful: Namespace[Forgetful]


@attrs.frozen
class SqlEnv:
    notes: Namespace[SqlNotes]
    forgetful: Namespace[SqlForgetful]


APP = App(env=Env, routes={})
SQL_APP = App(env=SqlEnv, routes={})


@pytest.fixture(params=["memory", "shared", "sql"])
async def server(request: Any, tmp_path: Path) -> AsyncGenerator[RunningServer]:
    async with open_server(request.param, tmp_path) as running:
        yield running


@asynccontextmanager
async def open_server(kind: str, folder: Path) -> AsyncGenerator[RunningServer]:
    store = SharedStore(folder, platform=virtual_platform()) if kind == "shared" else None
    async with start_server(SQL_APP if kind == "sql" else APP, store=store) as running:
        yield running


async def test_the_next_instance_begins_at_the_bookmark_and_the_way_back_is_kept(
    server: RunningServer, autojump_clock: Any
) -> None:
    def notes() -> Any:
        return server.env.notes.get_by_name("a")

    one = await notes().write("one")
    two = await notes().write("two")
    assert one < two
    undo = await notes().back_to(one)
    assert undo >= two
    assert (await notes().read())[1] == "two"
    await server.evict(notes())
    assert await notes().read() == ("one", "one", None)
    assert await notes().write("three") > undo
    await notes().back_to(undo)
    await server.evict(notes())
    assert await notes().read() == ("two", "two", None)
    await server.evict(notes())
    await notes().write("four")
    assert (await notes().read())[1] == "four"


async def test_abort_brings_it_back_at_once(server: RunningServer, autojump_clock: Any) -> None:
    one = await server.env.notes.get_by_name("a").write("one")
    await server.env.notes.get_by_name("a").write("two")
    with pytest.raises(Exception, match="restoring"):
        await server.env.notes.get_by_name("a").back_at_once(one)
    assert (await server.env.notes.get_by_name("a").read())[0] == "one"


async def test_a_restart_brings_it_back_too(server: RunningServer, autojump_clock: Any) -> None:
    one = await server.env.notes.get_by_name("a").write("one")
    await server.env.notes.get_by_name("a").write("two")
    await server.env.notes.get_by_name("a").back_to(one)
    await server.restart()
    assert (await server.env.notes.get_by_name("a").read())[0] == "one"


async def test_a_bookmark_of_a_time(server: RunningServer, autojump_clock: Any) -> None:
    notes = server.env.notes.get_by_name("a")
    start = server.platform.now()
    for n in range(5):
        await trio.sleep(1)
        await notes.write(str(n))
    await notes.back_to(await notes.at(start + 3.5))
    server.abort(notes)
    assert (await server.env.notes.get_by_name("a").read())[0] == "2"
    with pytest.raises(InvalidBookmark, match="too early"):
        await server.env.notes.get_by_name("a").at(start - 1)


async def test_an_alarm_comes_back_and_runs(server: RunningServer, autojump_clock: Any) -> None:
    notes = server.env.notes.get_by_name("a")
    await notes.write("asleep")
    await notes.wake_in(60)
    before = await notes.write("asleep")
    await notes.clear()
    await trio.sleep(30)
    await notes.back_to(before)
    server.abort(notes)
    assert (await server.env.notes.get_by_name("a").read())[0] == "asleep"
    await trio.sleep(31)
    assert (await server.env.notes.get_by_name("a").read())[1] == "woken"


async def test_an_alarm_that_was_not_set_then_does_not_run(server: RunningServer, autojump_clock: Any) -> None:
    notes = server.env.notes.get_by_name("a")
    before = await notes.write("asleep")
    await notes.wake_in(60)
    await notes.back_to(before)
    server.abort(notes)
    await server.env.notes.get_by_name("a").read()
    await trio.sleep(100)
    assert await server.env.notes.get_by_name("a").read() == ("asleep", "asleep", None)


async def test_the_alarm_that_wakes_a_pending_restore_belongs_to_the_state_that_is_left(
    server: RunningServer, autojump_clock: Any
) -> None:
    notes = server.env.notes.get_by_name("a")
    before = await notes.write("asleep")
    await notes.wake_in(60)
    await notes.back_to(before)
    await server.evict(notes)
    await trio.sleep(100)
    assert (await notes.read())[1:] == ("asleep", None)


async def test_the_lineage_changes_with_every_restore(server: RunningServer, autojump_clock: Any) -> None:
    seen: list[str] = []
    for _ in range(3):
        notes = server.env.notes.get_by_name("a")
        seen.append(await notes.lineage())
        await notes.back_to(await notes.write("x"))
        server.abort(notes)
    assert len(set(seen)) == 3
    assert await server.env.notes.get_by_name("b").lineage() == seen[0]


async def test_wrong_bookmarks_are_refused_and_change_nothing(server: RunningServer, autojump_clock: Any) -> None:
    notes = server.env.notes.get_by_name("a")
    bookmark = await notes.write("one")
    for wrong in ("", "tomorrow", f"f{bookmark[1:]}", f"{bookmark}0"):
        with pytest.raises(InvalidBookmark):
            await notes.back_to(wrong)
    with pytest.raises(RuntimeError, match="within a transaction"):
        await notes.inside_a_transaction(bookmark)
    server.abort(notes)
    assert (await server.env.notes.get_by_name("a").read())[0] == "one"


async def test_a_class_may_keep_no_history(server: RunningServer, autojump_clock: Any) -> None:
    notes = server.env.forgetful.get_by_name("a")
    bookmark = await notes.write("one")
    await notes.write("two")
    with pytest.raises(InvalidBookmark, match="history = False"):
        await notes.back_to(bookmark)
