"""The shared database: locked, checksummed, versioned, swept, and clear about what it cannot do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_bytes
from typing import Any

import apsw
import attrs
import pytest
import trio

from runtime.errors import StorageFailed
from runtime.platform import Begun, Later, Platform, real_platform
from runtime.storage.bookmarks import Retention
from runtime.storage.checksums import CHECKSUM_VFS, load_checksums, reserve_checksums
from runtime.storage.database_file import FORMAT, open_database
from runtime.storage.shared import SharedStore
from runtime.storage.store import StoreUnusable
from runtime.testing.platform import virtual_platform
from tests.storage.harness import Disk, actor, batch, commit

A, B = actor("a"), actor("b")
NONE = Retention(age_s=0, total_bytes=0)


@asynccontextmanager
async def running(directory: Path, platform: Platform | None = None, **options: Any) -> AsyncIterator[SharedStore]:
    store = SharedStore(directory, platform=platform or virtual_platform(), **options)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


def plain(directory: Path) -> apsw.Connection:
    return apsw.Connection(str(directory / "heliograph.db"))


async def refused(directory: Path) -> str:
    with pytest.RaisesGroup(StoreUnusable) as caught:
        async with running(directory):
            pass
    return str(caught.value.exceptions[0])


# Opening.


async def test_a_second_server_is_refused_and_told_the_pid_of_the_first(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        assert f"process id {os.getpid()}" in await refused(tmp_path)
        assert await commit(store, batch(A, 1, {b"k": b"v"})) == [None]
    async with running(tmp_path):
        pass


@pytest.mark.real
async def test_the_directory_is_free_again_when_its_server_was_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\nfrom runtime.storage.database_file import open_database\n"
        "held = open_database(pathlib.Path(sys.argv[1]), os.urandom)\nprint('open', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(  # noqa: ASYNC220 -- it answers at once
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        assert f"process id {holder.pid}" in await refused(tmp_path)
        holder.kill()
        holder.wait(10)
    async with running(tmp_path):
        pass


async def test_a_newer_format_is_refused_and_left_untouched(tmp_path: Path) -> None:
    open_database(tmp_path, token_bytes, version=FORMAT + 1).close()
    before = (tmp_path / "heliograph.db").read_bytes()
    assert f"has format {FORMAT + 1}, written by a newer Heliograph" in await refused(tmp_path)
    assert (tmp_path / "heliograph.db").read_bytes() == before


async def test_an_older_format_is_upgraded_step_by_step(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await commit(store, batch(A, 1, {b"k": b"v"}))
    steps: list[int] = []
    upgrades = {
        FORMAT: lambda connection: steps.append(1) or connection.execute("CREATE TABLE extra (x)"),
        FORMAT + 1: lambda _: steps.append(2),
    }
    file = open_database(tmp_path, token_bytes, version=FORMAT + 2, upgrades=upgrades)
    assert file.reader.execute("SELECT value FROM meta WHERE name = 'format'").get == FORMAT + 2
    assert file.reader.execute("SELECT count(*) FROM keys").get == 1
    file.close()
    assert steps == [1, 2]


FORMAT_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE actors (slot INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT NOT NULL, id BLOB NOT NULL, name BLOB,
    UNIQUE (namespace, id));
CREATE TABLE keys (slot INTEGER, key BLOB, value BLOB NOT NULL, PRIMARY KEY (slot, key)) WITHOUT ROWID;
CREATE TABLE alarms (slot INTEGER PRIMARY KEY, due REAL NOT NULL);
CREATE TABLE dropped (slot INTEGER PRIMARY KEY);
INSERT INTO meta VALUES ('format', 1);
INSERT INTO actors VALUES (3, 'rooms', ?, x'61');
INSERT INTO keys VALUES (1, x'00', x'00'), (3, x'6b', x'76');
INSERT INTO alarms VALUES (3, 5.0);
INSERT INTO dropped VALUES (1);
"""


async def test_data_of_the_first_format_is_read_and_gets_a_history(tmp_path: Path) -> None:
    load_checksums()
    old = apsw.Connection(str(tmp_path / "heliograph.db"), vfs=CHECKSUM_VFS)
    reserve_checksums(old)
    old.pragma("journal_mode", "wal")
    old.execute(FORMAT_1, (A.raw,))
    old.close()
    async with running(tmp_path) as store:
        assert (store.list_ids("rooms"), store.alarms()) == ([A], [(A, 5.0)])
        bookmark = store.open(A).bookmark()
        await commit(store, batch(A, 1, {b"k": b"w"}, delete_all=True, alarm=None), batch(B, 1, {b"k": b"b"}))
        point = store.open(A).point(bookmark)
        await commit(store, batch(A, 2, restore_to=point))
        assert (store.open(A).get(b"k"), store.open(A).alarm()) == (b"v", 5.0)
        await trio.testing.wait_all_tasks_blocked()
        assert store.read("SELECT count(*) FROM keys WHERE slot = 1", ()) == [(0,)]


async def test_a_failed_upgrade_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path):
        pass

    def broken(connection: apsw.Connection) -> None:
        connection.execute("CREATE TABLE half (x)")
        connection.execute("SELECT nonsense")

    with pytest.raises(StoreUnusable):
        open_database(tmp_path, token_bytes, version=FORMAT + 1, upgrades={FORMAT: broken})
    async with running(tmp_path):
        assert plain(tmp_path).execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").get == 0


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "heliograph.db").write_text("not a database, " * 1000)
    assert "cannot open" in await refused(tmp_path)


async def test_a_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    connection = plain(tmp_path)
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    assert "is no Heliograph database" in await refused(tmp_path)


async def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot use the data directory" in await refused(tmp_path / "file" / "data")


async def test_what_a_crash_during_creation_leaves_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "heliograph.new").write_bytes(b"half a database")
    async with running(tmp_path) as store:
        assert await commit(store, batch(A, 1, {b"k": b"v"})) == [None]
    assert sorted(os.listdir(tmp_path)) == ["heliograph.db", "lineage", "lock"]


async def test_the_lineage_stays_until_the_data_is_replaced(tmp_path: Path) -> None:
    one = SharedStore(tmp_path, platform=real_platform())
    with pytest.raises(RuntimeError, match="not running"):
        _ = one.lineage
    lineages = []
    for without in (None, None, "lineage", "heliograph.db"):
        if without is not None:
            (tmp_path / without).unlink()
        async with running(tmp_path, real_platform()) as store:
            lineages.append(store.lineage)
    assert lineages[0] == lineages[1]
    assert len(set(lineages)) == 3


# Damage.


async def test_a_flipped_byte_is_refused_and_not_served(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await commit(store, *(batch(A, n, {b"key %d" % n: b"value" * 200}) for n in range(1, 200)))
    path = tmp_path / "heliograph.db"
    data = bytearray(path.read_bytes())
    place = data.index(b"key 150value") + 100
    data[place] ^= 0x01
    path.write_bytes(data)
    async with running(tmp_path) as store:
        with pytest.raises(StorageFailed, match="cannot be read"):
            store.open(A).get(b"key 150")
        assert store.open(A).get(b"key 1") == b"value" * 200
        assert await commit(store, batch(B, 1, {b"k": b"v"})) == [None]


async def test_the_ordinary_shell_can_read_the_file(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await commit(store, batch(A, 1, {b"k": b"v"}))
    import sqlite3

    connection = sqlite3.connect(tmp_path / "heliograph.db")
    assert connection.execute("SELECT name, key, value FROM keys JOIN actors USING (slot)").fetchall() == [
        (b"a", b"k", b"v")
    ]
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


# Failures.


def limit_pages(store: SharedStore, extra: int | None) -> None:
    """Make the disk as small as the database is now, or as large as it likes."""
    assert store._file is not None
    writer = store._file.writer
    pages = writer.pragma("page_count") + extra if extra is not None else 1_000_000
    writer.pragma("max_page_count", pages)


async def test_on_a_full_disk_a_batch_fails_reads_go_on_and_commits_work_again_with_space(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await commit(store, batch(A, 1, {b"k": b"v"}))
        limit_pages(store, 2)
        outcomes = await commit(
            store,
            batch(B, 1, {b"small": b"1"}),
            batch(A, 2, {b"large": b"x" * 100_000}),
            batch(A, 3, {b"k": b"built on it"}),
            batch(B, 2, {b"small": b"2"}),
        )
        assert [type(outcome) for outcome in outcomes] == [type(None), StorageFailed, StorageFailed, type(None)]
        assert "disk is full" in str(outcomes[1])
        assert store.open(A).list(b"", None, None, False) == [(b"k", b"v")]
        assert store.open(B).get(b"small") == b"2"
        limit_pages(store, None)
        assert await commit(store, batch(A, 1, {b"large": b"x" * 100_000})) == [None]
        assert store.open(A).get(b"large") == b"x" * 100_000


async def test_a_failed_commit_fails_every_batch_of_the_group_and_the_next_group_is_fine(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await commit(store, batch(A, 1, {b"k": b"v"}))
        assert store._file is not None
        store._file.writer.set_commit_hook(lambda: True)
        outcomes = await commit(store, batch(A, 2, {b"k": b"w"}), batch(B, 1, {b"k": b"w"}))
        assert [type(outcome) for outcome in outcomes] == [StorageFailed, StorageFailed]
        assert store.open(B).get(b"k") is None
        store._file.writer.set_commit_hook(None)
        assert await commit(store, batch(A, 1, {b"k": b"x"}), batch(B, 1, {b"k": b"x"})) == [None, None]
        assert store.open(A).get(b"k") == store.open(B).get(b"k") == b"x"


async def test_a_new_actor_of_a_failed_group_is_made_again(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        limit_pages(store, 2)
        outcomes = await commit(store, batch(A, 1, {b"large": b"x" * 100_000}), batch(B, 1, {b"k": b"1"}))
        assert [outcome is None for outcome in outcomes] == [False, True]
        limit_pages(store, None)
        assert await commit(store, batch(A, 1, {b"k": b"2"}), batch(B, 2, {b"k": b"2"})) == [None, None]
        assert {who.name for who in store.list_ids("rooms")} == {"a", "b"}
        assert store.open(A).get(b"k") == store.open(B).get(b"k") == b"2"


# Housekeeping.


async def test_what_delete_all_left_behind_is_swept_when_there_is_nothing_to_commit(tmp_path: Path) -> None:
    async with running(tmp_path, retention=NONE) as store:
        await commit(store, *(batch(A, n, {b"%d/%d" % (n, m): b"v" for m in range(100)}) for n in range(1, 41)))
        await commit(store, batch(A, 41, {b"k": b"v"}, delete_all=True))
        assert store.open(A).list(b"", None, None, False) == [(b"k", b"v")]
        await trio.testing.wait_all_tasks_blocked()
        assert store.read("SELECT count(*) FROM keys", ()) == [(1,)]
        assert store.read("SELECT count(*) FROM dropped", ()) == [(0,)]


async def test_a_sweep_that_a_crash_cut_short_goes_on_at_the_next_start(shared_disk: Disk) -> None:
    shared_disk.retention = NONE
    async with shared_disk.running() as store:
        await commit(store, batch(A, 1, {b"%d" % n: b"v" for n in range(3_000)}))
        await commit(store, batch(A, 2, delete_all=True, alarm=None))
        shared_disk.crash()
    async with shared_disk.running() as store:
        assert isinstance(store, SharedStore)
        assert await commit(store, batch(B, 1, {b"k": b"v"})) == [None]
        assert store.open(A).list(b"", None, None, False) == []
        await trio.testing.wait_all_tasks_blocked()
        assert store.read("SELECT count(*) FROM keys", ()) == [(1,)]


async def test_the_log_is_moved_into_the_database_before_it_grows_large(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        for n in range(1, 8):
            await commit(store, batch(A, n, {b"%d" % m: bytes([n]) * 4_000 for m in range(1_500)}))
        await trio.testing.wait_all_tasks_blocked()
        assert (tmp_path / "heliograph.db-wal").stat().st_size < 40_000_000
        assert (tmp_path / "heliograph.db").stat().st_size > 5_000_000
    assert not (tmp_path / "heliograph.db-wal").exists()


async def test_a_group_is_bounded_in_bytes(tmp_path: Path) -> None:
    async with running(tmp_path, group_bytes=10_000) as store:
        outcomes = await commit(store, *(batch(actor(str(n)), 1, {b"k": b"x" * 4_000}) for n in range(20)))
        assert outcomes == [None] * 20


async def test_a_group_that_is_being_committed_when_the_store_stops_becomes_durable(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    begun, outcomes = trio.Event(), list[Exception | None]()

    async def commit_slowly(fn: Callable[..., Any], /, *args: Any) -> Any:
        begun.set()
        await trio.sleep(1)
        return fn(*args)

    async with running(tmp_path, attrs.evolve(virtual_platform(), run_blocking=commit_slowly)) as store:
        store.submit(batch(A, 1, {b"k": b"v"}), outcomes.append)
        await begun.wait()
    assert outcomes == [None]


async def test_a_commit_begins_as_soon_as_nothing_more_is_submitted(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    groups, outcomes = list[int](), list[Exception | None]()

    def begin(fn: Callable[..., Any], /, *args: Any) -> Begun:
        groups.append(len(args[0]))

        async def end() -> Any:
            await trio.sleep(1)
            return fn(*args)

        return Later(end)

    async with running(tmp_path, attrs.evolve(virtual_platform(), begin_commit=begin)) as store:
        store.begin_commit()
        assert groups == [], "there is nothing to commit"
        store.submit(batch(A, 1, {b"k": b"1"}), outcomes.append)
        store.submit(batch(B, 1, {b"k": b"1"}), outcomes.append)
        store.begin_commit()
        assert groups == [2], "without a turn of the loop"
        store.submit(batch(A, 2, {b"k": b"2"}), outcomes.append)
        store.begin_commit()
        await trio.sleep(0.5)
        store.begin_commit()
        assert groups == [2], "one group at a time"
        store.submit(batch(A, 3, {b"k": b"3"}), outcomes.append)
        await trio.sleep(2)
        assert (groups, outcomes, store.open(A).get(b"k")) == ([2, 2], [None] * 4, b"3")
        store.submit(batch(A, 4, {b"k": b"4"}), outcomes.append)
        store.begin_commit()
    assert (groups, outcomes) == ([2, 2, 1], [None] * 5), "what has begun when the store stops ends"
    async with running(tmp_path) as store:
        assert store.open(A).get(b"k") == b"4"


async def test_the_log_has_room_and_a_crash_takes_none_of_it_for_a_commit(shared_disk: Disk) -> None:
    sizes, pages = list[int](), 4_096 + 24
    async with shared_disk.running() as store:
        assert shared_disk.data is not None
        log = shared_disk.data / "heliograph.db-wal"
        for n in range(1, 61):
            await commit(store, batch(A, n, {b"n": b"%d" % n}))
            sizes.append(log.stat().st_size)
        assert len(set(sizes)) < 15, "it grows in large pieces, not with each commit"
        await commit(store, batch(A, 61, {b"%d" % n: bytes(4_000) for n in range(1_000)}))
        used = sum(1 for frame in frames(log) if any(frame))
        assert used > 1_000
        assert log.stat().st_size <= 32 + (used + 64) * pages, "and has no more than so much"
        shared_disk.crash()
    async with shared_disk.running() as store:
        assert store.open(A).get(b"n") == b"60"
        assert len(store.open(A).list(b"", None, None, False)) == 1_001
        await commit(store, batch(A, 1, {b"n": b"again"}))
        shared_disk.crash()
    async with shared_disk.running() as store:
        assert store.open(A).get(b"n") == b"again"


def frames(log: Path) -> Iterator[bytes]:
    content = log.read_bytes()
    return (content[at : at + 24 + 4_096] for at in range(32, len(content), 24 + 4_096))


@pytest.mark.real
async def test_real_threads_commit_while_the_loop_reads(tmp_path: Path) -> None:
    async with running(tmp_path, real_platform()) as store:
        for n in range(1, 51):
            ended = trio.Event()
            for who in (A, B):
                store.submit(batch(who, n, {b"n": b"%d" % n}), lambda _, ended=ended: ended.set())  # type: ignore[misc]
            while not ended.is_set():
                assert store.open(A).get(b"n") in {None if n == 1 else b"%d" % (n - 1), b"%d" % n}
                await trio.lowlevel.checkpoint()
    async with running(tmp_path, real_platform()) as store:
        assert store.open(A).get(b"n") == store.open(B).get(b"n") == b"50"
