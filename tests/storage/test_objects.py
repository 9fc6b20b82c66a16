"""The files of SQL classes: opened and closed, synced, checkpointed, found again after a crash."""

from __future__ import annotations

import apsw
import attrs
import pytest
import structlog
import trio

from runtime import Actor, App, Namespace, StorageFailed
from runtime.limits import StorageLimits
from runtime.node import open_node
from runtime.storage.checksums import CHECKSUM_VFS, reserve_checksums
from runtime.storage.memory import MemoryStore
from runtime.storage.object_file import logs_left_behind, object_path, open_object
from runtime.testing import start_server
from runtime.testing.disk import VirtualDisk
from runtime.testing.platform import virtual_platform


class Note(Actor["Env"]):
    """Keeps a number in a key and in a table."""

    storage = "sql"

    async def write(self, number):
        self.ctx.storage.put("n", number)
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS t (x)")
        self.ctx.storage.sql.exec("INSERT INTO t VALUES (?)", number)

    async def read(self):
        rows = [x for (x,) in self.ctx.storage.sql.exec("SELECT x FROM t").raw()] if await self.has_table() else []
        return self.ctx.storage.get("n"), rows

    async def has_table(self):
        return bool(self.ctx.storage.sql.exec("PRAGMA table_list(t)").to_array())

    async def write_much(self, count):
        for _ in range(count):
            self.ctx.storage.put("big", self.ctx.token(100_000))
            await self.ctx.sleep(0.001)

    async def write_big(self):
        self.ctx.storage.put("big", self.ctx.token(100_000))

    async def clear(self):
        self.ctx.storage.delete_all()

    async def wake_in(self, seconds):
        self.ctx.storage.set_alarm(self.ctx.now() + seconds)

    async def alarm(self, info):
        self.ctx.storage.put("woken", self.ctx.id.name)

    async def woken(self):
        return self.ctx.storage.get("woken")


class Old(Note):
    """As it was before the class got a database."""

    storage = "shared"

    async def write(self, number):
        self.ctx.storage.put("n", number)


@attrs.frozen
class Env:
    notes: Namespace[Note]


@attrs.frozen
class OldEnv:
    notes: Namespace[Old]


APP = App(env=Env, routes={})


def path_of(server, note):
    return object_path(server.disk.folder, note.id)


@pytest.fixture
async def server(autojump_clock):
    async with start_server(APP) as running:
        yield running


async def test_what_was_acknowledged_is_there_after_a_crash_and_what_was_not_is_gone(autojump_clock):
    async with start_server(APP) as server:
        await server.env.notes.get_by_name("a").write(1)
        server.disk._delay = lambda: 5.0
        async with trio.open_nursery() as nursery:

            async def lost():
                with trio.move_on_after(2):
                    await server.env.notes.get_by_name("a").write(2)
                    raise AssertionError("it was told before it was durable")

            nursery.start_soon(lost)
            await trio.sleep(1)
            await server.crash()
        await server.start()
        assert await server.env.notes.get_by_name("a").read() == (1, [1])


async def test_an_eviction_closes_the_file_and_moves_its_log_into_it(autojump_clock, server):
    note = server.env.notes.get_by_name("a")
    await note.write(1)
    path = path_of(server, note)
    assert path.with_name(f"{path.name}-wal").exists()
    await trio.sleep(15)
    assert server.live_actors == 0
    assert sorted(entry.name for entry in path.parent.iterdir()) == [f"{path.stem}.history", path.name]
    assert await note.read() == (1, [1])


async def test_an_object_that_stores_nothing_leaves_no_file(autojump_clock, server):
    note = server.env.notes.get_by_name("a")
    assert await note.read() == (None, [])
    await server.evict(note)
    await trio.sleep(1)
    assert not path_of(server, note).exists()
    await note.write(1)
    await server.evict(note)
    await trio.sleep(1)
    assert path_of(server, note).exists()
    assert [actor.name for actor in server.env.notes.list_ids()] == ["a"]
    await note.clear()
    await server.evict(note)
    await trio.sleep(1)
    assert not path_of(server, note).exists()
    assert server.env.notes.list_ids() == []


async def test_a_file_is_an_ordinary_database_with_checksums(autojump_clock, server):
    note = server.env.notes.get_by_name("a")
    await note.write(7)
    await server.evict(note)
    await trio.sleep(1)
    connection = apsw.Connection(str(path_of(server, note)), flags=apsw.SQLITE_OPEN_READONLY)
    assert connection.execute("SELECT x FROM t").get == 7
    assert connection.reserve_bytes() == 8
    connection.close()


async def test_a_damaged_page_is_refused(autojump_clock, server):
    note = server.env.notes.get_by_name("a")
    for number in range(200):
        await note.write(number)
    await note.write_much(3)
    await server.evict(note)
    await trio.sleep(1)
    path = path_of(server, note)
    data = bytearray(path.read_bytes())
    data[2 * 4096 + 2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match=r"SQLITE_IOERR|cannot be opened|cannot be closed"):
        await note.read()


async def test_long_logs_are_moved_while_the_object_is_in_use(autojump_clock, server):
    note = server.env.notes.get_by_name("a")
    path = path_of(server, note)
    await note.write_much(100)
    log = path.with_name(f"{path.name}-wal")
    assert log.stat().st_size < 9_000_000  # 10 MB were written
    await note.write(1)
    assert await note.read() == (1, [1])


async def test_a_log_that_is_written_to_has_room_and_a_crash_takes_none_of_it_for_a_commit(autojump_clock):
    async with start_server(APP) as server:
        note = server.env.notes.get_by_name("a")
        path = path_of(server, note)
        log = path.with_name(f"{path.name}-wal")
        sizes = []
        for number in range(60):
            await note.write(number)
            sizes.append(log.stat().st_size)
        assert len(set(sizes)) < 12  # it grows in large pieces, not with each commit
        await server.crash()
        await server.start()
        note = server.env.notes.get_by_name("a")
        assert await note.read() == (59, list(range(60)))
        await note.write(60)
        assert await note.read() == (60, list(range(61)))


async def test_the_log_of_an_object_that_is_written_without_a_pause_begins_anew(autojump_clock, tmp_path):
    platform = virtual_platform()

    async def run_slowly(fn, *args):
        await trio.sleep(0.1)  # goes by when nobody writes
        return fn(*args)

    async with open_node(
        APP,
        settings=APP.settings(),
        store=MemoryStore(),
        platform=attrs.evolve(platform, run_blocking=run_slowly),
        log=structlog.get_logger(),
        objects=tmp_path,
    ) as node:
        note = node.env.notes.get_by_name("a")

        async def write_on():
            for _ in range(125):
                await note.write_big()

        async with trio.open_nursery() as writers:
            for _ in range(8):
                writers.start_soon(write_on)
        (log,) = tmp_path.rglob("*.sqlite-wal")
        assert log.stat().st_size < 50_000_000  # 100 MB were written
        await note.write(1)
        assert await note.read() == (1, [1])


async def test_the_longest_idle_object_leaves_when_too_many_are_open(autojump_clock, tmp_path):
    network = virtual_platform()
    async with open_node(
        APP,
        settings=APP.settings(),
        store=MemoryStore(),
        platform=network,
        log=structlog.get_logger(),
        objects=tmp_path,
        open_objects=3,
    ) as node:
        for number in range(10):
            await node.env.notes.get_by_name(str(number)).write(number)
            assert len(logs_left_behind(tmp_path)) <= 4
        assert [await node.env.notes.get_by_name(str(n)).read() for n in range(10)] == [(n, [n]) for n in range(10)]
    assert logs_left_behind(tmp_path) == []
    assert not (tmp_path / "in-use").exists()


async def test_an_alarm_wakes_a_sleeping_object_also_after_a_restart(autojump_clock, server):
    note = server.env.notes.get_by_name("a")
    await note.wake_in(100)
    await server.evict(note)
    await server.restart()
    await trio.sleep(101)
    assert await server.env.notes.get_by_name("a").woken() == "a"
    assert server.store.alarms() == []


async def test_an_alarm_the_index_missed_is_found_at_the_next_start(autojump_clock):
    # The object's log was durable before the index was: the power went in between.
    store = MemoryStore(delay=lambda: slow)
    slow = 0.0
    async with start_server(APP, store=store) as server:
        await server.env.notes.get_by_name("a").write(1)
        slow = 5.0
        async with trio.open_nursery() as nursery:

            async def unanswered():
                with trio.move_on_after(2):
                    await server.env.notes.get_by_name("a").wake_in(50)
                    raise AssertionError("it was told before it was durable")

            nursery.start_soon(unanswered)
            await trio.sleep(1)
            await server.crash()
        slow = 0.0
        assert store.alarms() == []
        await server.start()
        assert [actor.name for actor, _ in store.alarms()] == ["a"]
        await trio.sleep(60)
        assert await server.env.notes.get_by_name("a").woken() == "a"


async def test_an_alarm_that_only_the_index_has_runs_nothing(autojump_clock):
    store = MemoryStore()
    async with start_server(APP, store=store) as server:
        server.disk._delay = lambda: 5.0
        async with trio.open_nursery() as nursery:

            async def unanswered():
                with trio.move_on_after(2):
                    await server.env.notes.get_by_name("a").wake_in(50)
                    raise AssertionError("it was told before it was durable")

            nursery.start_soon(unanswered)
            await trio.sleep(1)
            await server.crash()
        server.disk._delay = lambda: 0.0
        assert len(store.alarms()) == 1
        await server.start()
        await trio.sleep(60)
        assert await server.env.notes.get_by_name("a").woken() is None
        assert store.alarms() == []


async def test_a_sync_that_fails_ends_the_instance_and_what_follows_works(autojump_clock, server):
    note = server.env.notes.get_by_name("a")
    await note.write(1)
    server.disk.fail_next(OSError(5, "Input/output error"))
    with pytest.raises(StorageFailed, match="the disk did not take them"):
        await note.write(2)
    again = server.env.notes.get_by_name("a")
    assert (await again.read())[0] in {1, 2}
    await again.write(3)
    assert (await again.read())[0] == 3


async def test_an_index_that_fails_ends_the_instance(autojump_clock, server):
    note = server.env.notes.get_by_name("a")
    await note.write(1)
    server.store.fail_next(StorageFailed("the disk is full"))
    with pytest.raises(StorageFailed, match="the disk is full"):
        await note.wake_in(10)
    await trio.sleep(20)
    assert await server.env.notes.get_by_name("a").woken() in {None, "a"}


async def test_a_class_that_had_keys_without_sql_is_not_opened_empty(autojump_clock):
    store = MemoryStore()
    async with start_server(App(env=OldEnv, routes={}), store=store) as server:
        await server.env.notes.get_by_name("a").write(1)
    async with start_server(APP, store=store) as server:
        with pytest.raises(StorageFailed, match="a class cannot change that"):
            await server.env.notes.get_by_name("a").read()


async def test_an_app_with_sql_classes_needs_a_folder(autojump_clock):
    with pytest.raises(ValueError, match="needs a folder"):
        async with open_node(
            APP, settings=APP.settings(), store=MemoryStore(), platform=virtual_platform(), log=structlog.get_logger()
        ):
            pass


async def test_a_folder_that_cannot_be_used_is_named(autojump_clock, tmp_path):
    (tmp_path / "file").write_text("")
    async with open_node(
        APP,
        settings=APP.settings(),
        store=MemoryStore(),
        platform=virtual_platform(),
        log=structlog.get_logger(),
        objects=tmp_path / "file" / "objects",
    ) as node:
        with pytest.raises(StorageFailed, match="cannot use"):
            await node.env.notes.get_by_name("a").read()


async def test_the_disk_keeps_what_was_there_when_a_sync_began(autojump_clock, tmp_path):
    folder = tmp_path / "n" / "aa"
    folder.mkdir(parents=True)
    disk = VirtualDisk(tmp_path, delay=1.0)
    database, log = folder / "x.sqlite", folder / "x.sqlite-wal"
    database.write_bytes(b"db")
    log.write_bytes(b"1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.sync_file, log)
        await trio.sleep(0.5)
        log.write_bytes(b"2")
    disk.crash()
    assert log.read_bytes() == b"1"


def test_an_object_whose_creation_is_cut_short_keeps_its_history(tmp_path):
    path = tmp_path / "x.sqlite"

    def opened():
        return open_object(path, StorageLimits().of_sql_classes(), lambda: 1_700_000_000.0, keeps=True)

    file = opened()
    file.connection.execute("CREATE TABLE t (x)")
    point = file.points.ask()
    file.connection.execute("DROP TABLE t")
    file.close()
    assert not path.exists()
    begun = apsw.Connection(str(path), vfs=CHECKSUM_VFS)
    reserve_checksums(begun)
    begun.pragma("journal_mode", "wal")
    begun.close()
    file = opened()
    file.history.check(point)
    file.close()
