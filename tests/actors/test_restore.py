"""A stream that was brought back to a bookmark: a new epoch, and every client is told the gap."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio
from click.testing import CliRunner

from actors.app import app
from actors.filters import Filter
from actors.settings import Settings
from actors.signals import Draft
from actors.stream import STREAM
from runtime.actor.input_gate import Job
from runtime.cli import main
from runtime.storage.shared import SharedStore
from runtime.testing import RunningServer, start_server
from runtime.testing.platform import virtual_platform
from tests.actors.events import listening

QUIET = Settings(sources_enabled=False)


def stream(server: RunningServer) -> Any:
    return server.env.broadcasters.get_by_name(STREAM)


async def publish(server: RunningServer, *ids: str) -> list[int]:
    published = await stream(server).publish(tuple(Draft.of("a.b", "c", 1, id=id_) for id_ in ids))
    return [receipt.offset for receipt in published.receipts]


async def inside(server: RunningServer, stub: Any, fn: Callable[[Any], Awaitable[Any]]) -> Any:
    """Run a function as an event of an actor."""
    results: list[Any] = []
    ended = trio.Event()

    def done(result: Any) -> None:
        results.append(result)
        ended.set()

    server.node.router.deliver(stub.id, Job("inside", fn, done))
    await ended.wait()
    return results[0].unwrap()


async def bring_back(server: RunningServer, bookmark: str) -> str:
    """As an app does it: from inside, followed by the end of the instance."""

    async def ask(actor: Any) -> str:
        return str(await actor.ctx.storage.on_next_session_restore_bookmark(bookmark))

    undo: str = await inside(server, stream(server), ask)
    server.abort(stream(server))
    return undo


async def now(server: RunningServer) -> str:
    async def ask(actor: Any) -> str:
        return str(await actor.ctx.storage.get_current_bookmark())

    bookmark: str = await inside(server, stream(server), ask)
    return bookmark


async def test_connected_clients_are_told_the_gap_and_follow_the_restored_stream(
    autojump_clock: Any, follower: Any
) -> None:
    async with start_server(app, settings=QUIET) as server, trio.open_nursery() as nursery:
        await publish(server, "1", "2", "3")
        first = await stream(server).bounds()
        bookmark = await now(server)
        followers = [follower(server, n) for n in range(4)]
        for number, one in enumerate(followers):
            one.subscribe("all", Filter.parse({}), "now", "fail" if number % 2 else "skip")
            await nursery.start(one.run)
        await trio.sleep(1)
        await publish(server, *map(str, range(4, 20)))
        await trio.sleep(1)
        assert [one.offsets["all"] for one in followers] == [list(range(4, 20))] * 4

        undo = await bring_back(server, bookmark)
        assert await publish(server, "new") == [4]
        await trio.sleep(30)
        restored = await stream(server).bounds()
        assert (restored.head, restored.epoch != first.epoch) == (4, True)
        for number, one in enumerate(followers):
            assert [gap.reason for gap in one.gaps] == ["epoch"]
            assert (one.detected, one.codes) == ([], [])  # told over the socket that is there
            # `skip` begins again with what is kept, `fail` with what comes.
            assert one.offsets["all"][16:] == ([] if number % 2 else [1, 2, 3, 4])
        assert await publish(server, "newer") == [5]
        await trio.sleep(1)
        assert [one.offsets["all"][-1] for one in followers] == [5] * 4

        await bring_back(server, undo)
        await trio.sleep(30)
        again = await stream(server).bounds()
        assert (again.head, again.epoch in {first.epoch, restored.epoch}) == (19, False)
        assert [len(one.gaps) for one in followers] == [2] * 4
        assert await publish(server, "newest") == [20]
        await trio.sleep(1)
        assert [one.offsets["all"][-1] for one in followers] == [20] * 4
        nursery.cancel_scope.cancel()


async def test_after_heliograph_restore_clients_that_come_back_are_told_the_gap(
    autojump_clock: Any, follower: Any, tmp_path: Path
) -> None:
    store = SharedStore(tmp_path, platform=virtual_platform())

    async def restore(server: RunningServer, target: str) -> str:
        """Stop, run the command on the data, start again; the bookmark that undoes it."""
        await server.stop()
        command = ["restore", "broadcasters", STREAM, "--to", target, "--data", str(tmp_path)]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        await server.start()
        return str(done.stdout.split()[-1])

    async with start_server(app, settings=QUIET, store=store) as server, trio.open_nursery() as nursery:
        await publish(server, "1", "2", "3")
        first = await stream(server).bounds()
        bookmark = await now(server)
        followers = [follower(server, n) for n in range(2)]
        for one, on_gap in zip(followers, ("skip", "fail"), strict=True):
            one.subscribe("all", Filter.parse({}), "now", on_gap)
            await nursery.start(one.run)
        await trio.sleep(1)
        await publish(server, "4", "5")
        await trio.sleep(1)
        assert [one.offsets["all"] for one in followers] == [[4, 5]] * 2

        undo = await restore(server, bookmark)
        await trio.sleep(60)
        restored = await stream(server).bounds()
        assert (restored.head, restored.epoch != first.epoch) == (3, True)
        assert await publish(server, "other") == [4]
        await trio.sleep(1)
        for one in followers:
            assert one.codes == [4200]  # the server went down; they came back and stayed
            assert [gap.reason for gap in one.gaps] == ["epoch"]
            assert one.detected == []
        # `skip` begins again with what is kept, `fail` with what comes.
        assert [one.offsets["all"][2:] for one in followers] == [[1, 2, 3, 4], [4]]

        await restore(server, undo)
        await trio.sleep(60)
        again = await stream(server).bounds()
        assert (again.head, again.epoch in {first.epoch, restored.epoch}) == (5, False)
        assert [len(one.gaps) for one in followers] == [2] * 2
        assert await publish(server, "newest") == [6]
        await trio.sleep(1)
        assert [one.offsets["all"][-1] for one in followers] == [6] * 2
        nursery.cancel_scope.cancel()


async def test_every_shard_hears_of_a_restore_though_the_stream_ends_in_between(
    autojump_clock: Any, follower: Any
) -> None:
    async with start_server(app, settings=QUIET) as server, trio.open_nursery() as nursery:
        bookmark = await now(server)
        await publish(server, "1")
        followers = [follower(server, n) for n in range(2)]
        for one in followers:
            one.subscribe("all", Filter.parse({}), "now", "fail")
            await nursery.start(one.run)
        await trio.sleep(1)
        await bring_back(server, bookmark)
        await publish(server, "2")
        server.abort(stream(server))
        await publish(server, "3")
        await trio.sleep(30)
        assert [[gap.reason for gap in one.gaps] for one in followers] == [["epoch"]] * 2
        assert [one.codes for one in followers] == [[], []]
        await publish(server, "4")
        await trio.sleep(1)
        assert [one.offsets["all"] for one in followers] == [[3]] * 2
        nursery.cancel_scope.cancel()


async def test_other_actors_keep_their_state(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        shard = server.env.shards.get_by_name("shard-0")

        async def put(actor: Any) -> None:
            actor.ctx.storage.put("mine", 1)

        async def get(actor: Any) -> Any:
            return actor.ctx.storage.get("mine")

        bookmark = await now(server)
        await inside(server, shard, put)
        await bring_back(server, bookmark)
        assert await publish(server, "1") == [1]
        assert await inside(server, shard, get) == 1


async def test_event_sources_are_told_and_their_browsers_come_back_into_the_new_epoch(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        await publish(server, "a", "b")
        bookmark = await now(server)
        async with listening(server, "?from=earliest") as events:
            assert await events.signals(2) == [1, 1]
            await publish(server, "c")
            assert await events.signals(1) == [1]
            await bring_back(server, bookmark)
            restored = await stream(server).bounds()
            ((name, reset),) = await events.ends()
            assert (name, reset["epoch"], reset["head"]) == ("reset", restored.epoch, 2)
        await publish(server, "d")
        headers = {"last-event-id": events.last_id}
        async with listening(server, headers=headers) as again:
            found = [await again.next()]
            while found[-1][1]["d"][-1]["id"] != "d":
                found.append(await again.next())
            assert [one["id"] for _, data in found for one in data["d"]] == ["a", "b", "d"]
