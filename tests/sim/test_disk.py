"""The simulated disk loses what was not synced and nothing else; real SQLite on it keeps its promise, or breaks it."""

import gc
import itertools
import random
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest
import trio

from runtime.errors import StorageFailed
from runtime.limits import StorageLimits
from runtime.sim.disk import SimulatedDisk
from runtime.sim.image import PAGE_BYTES
from runtime.storage.checksums import CHECKSUM_VFS
from runtime.storage.database_file import renew_log, sync_path
from runtime.storage.object_file import begin_use, open_object
from runtime.storage.shared import SharedStore
from runtime.testing.platform import virtual_platform
from tests.storage.harness import actor, batch, commit

LIMITS = StorageLimits().of_sql_classes()


@pytest.fixture
def make_disk(tmp_path):
    gc.freeze()  # each disk collects garbage when it is done with; there need not be that of other tests in it
    counted = itertools.count()

    def make(seed=0, step=lambda *_: None):
        folder = tmp_path / str(next(counted))
        folder.mkdir()
        return SimulatedDisk(folder, random.Random(seed), step)

    yield make
    gc.unfreeze()


def _open(image, synchronous="FULL"):
    connection = apsw.Connection(str(image.folder / "x.db"), vfs=CHECKSUM_VFS)
    assert connection.pragma("journal_mode", "wal") == "wal"
    connection.pragma("synchronous", synchronous)
    connection.pragma("wal_autocheckpoint", 8)
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    return connection


def _rows(image):
    connection = _open(image)
    try:
        return [row[0] for row in connection.execute("SELECT x FROM t ORDER BY x")]
    finally:
        connection.close()


def _lost(disk, synchronous, power=True):
    """Whether any of fifty committed rows is gone after the end."""
    with disk.mounted():
        image = disk.image()
        connection = _open(image, synchronous)
        for number in range(50):
            connection.execute("INSERT INTO t VALUES (?)", (number,))
        after = disk.crash(image, power=power)
        connection.close()
        try:
            return _rows(after) != list(range(50))
        except apsw.Error:
            return True


def test_full_loses_nothing(make_disk):
    assert not any(_lost(make_disk(seed), "FULL") for seed in range(30))


def test_normal_loses_commits_when_the_power_goes(make_disk):
    assert any(_lost(make_disk(seed), "NORMAL") for seed in range(30))


def test_normal_loses_nothing_when_only_the_process_ends(make_disk):
    assert not any(_lost(make_disk(seed), "NORMAL", power=False) for seed in range(30))


def test_a_power_cut_in_any_operation_leaves_whole_transactions(make_disk):
    assert sum(_cut_in_operation(make_disk, at) for at in range(1, 120)) > 50


def _cut_in_operation(make_disk, at):
    """Whether the power went before the operation with that number."""
    left, died = at, []

    def step(what, name):
        nonlocal left
        left -= 1
        if left == 0:
            died.append(disk.crash(image, power=True))

    disk = make_disk(at, step)
    with disk.mounted():
        image = disk.image()
        acknowledged = -1
        connection = _open(image)
        for number in range(12):
            connection.execute("INSERT INTO t VALUES (?)", (number,))
            if not died:
                acknowledged = number
        connection.close()
        if died:
            found = _rows(died[0])
            assert found in (list(range(acknowledged + 1)), list(range(acknowledged + 2)))
    return bool(died)


def test_a_failed_sync_is_an_error_and_a_full_disk_another_one(make_disk):
    disk = make_disk()
    with disk.mounted():
        image = disk.image()
        connection = _open(image)
        image.failing = 1
        with pytest.raises(apsw.IOError):
            connection.execute("INSERT INTO t VALUES (1)")
        image.full = True
        with pytest.raises(apsw.FullError):
            connection.execute("INSERT INTO t VALUES (2)")
        image.full = False
        connection.execute("INSERT INTO t VALUES (3)")
        after = disk.crash(image, power=True)
        connection.close()
        assert _rows(after) == [3]


def test_what_a_dead_process_still_writes_reaches_nobody(make_disk):
    disk = make_disk()
    with disk.mounted():
        image = disk.image()
        connection = _open(image)
        after = disk.crash(image, power=False)
        connection.execute("INSERT INTO t VALUES (1)")
        connection.close()
        assert _rows(after) == []


def _names_after(make_disk, act, *, syncs, power=True):
    """Names in a folder after the end, for many choices of what is kept; `act` gets the folder after a first sync."""
    found = set()
    for seed in range(40):
        disk = make_disk(seed)
        with disk.mounted():
            image = disk.image()
            _put(image.folder / "old", b"old")
            sync_path(image.folder)
            act(image.folder)
            if syncs:
                sync_path(image.folder)
            after = disk.crash(image, power=power)
            found.add(" ".join(f"{path.name}={path.read_text()}" for path in sorted(after.folder.iterdir())))
    return found


def _put(path, content):
    path.write_bytes(content)
    sync_path(path)


@pytest.mark.parametrize(
    ("act", "done", "undone"),
    [
        (lambda folder: _put(folder / "new", b"new"), "new=new old=old", "old=old"),
        (lambda folder: (folder / "old").rename(folder / "new"), "new=old", "old=old"),
        (lambda folder: (folder / "old").unlink(), "", "old=old"),
        (
            lambda folder: (_put(folder / "draft", b"new"), (folder / "draft").rename(folder / "old")),
            "old=new",
            "old=old",
        ),
    ],
    ids=["made", "renamed", "removed", "replaced"],
)
def test_a_name_lasts_when_its_folder_was_synced(make_disk, act, done, undone):
    assert _names_after(make_disk, act, syncs=True) == {done}
    assert _names_after(make_disk, act, syncs=False, power=False) == {done}
    assert _names_after(make_disk, act, syncs=False) == {done, undone}


def test_what_is_written_without_a_sync_may_be_there_or_not(make_disk):
    assert len(_names_after(make_disk, lambda folder: (folder / "old").write_bytes(b"longer"), syncs=True)) > 2


def test_a_folder_that_may_not_be_there_takes_everything_along(make_disk):
    def act(folder):
        (folder / "below").mkdir()
        _put(folder / "below" / "new", b"new")
        sync_path(folder / "below")

    left = set()
    for seed in range(40):
        disk = make_disk(seed)
        with disk.mounted():
            image = disk.image()
            act(image.folder)
            after = disk.crash(image, power=True)
            left.add((after.folder / "below" / "new").exists())
    assert left == {True, False}


def test_what_one_process_wrote_is_no_more_durable_for_the_next(make_disk):
    lost = []
    for seed in range(20):
        disk = make_disk(seed)
        with disk.mounted():
            image = disk.image()
            (image.folder / "x").write_bytes(b"new")
            then = disk.crash(image, power=False)
            assert (then.folder / "x").read_bytes() == b"new"
            last = disk.crash(then, power=True)
            lost.append(not (last.folder / "x").exists())
    assert any(lost)


def _left_behind(make_disk, seed, renew):
    """What is gone that was shown or committed after a process had ended whose last sync had failed."""
    disk = make_disk(seed)
    with disk.mounted():
        image = disk.image()
        connection = _open(image)
        connection.execute("INSERT INTO t VALUES (1)")
        image.failing = 1
        with pytest.raises(apsw.IOError):
            connection.execute("INSERT INTO t VALUES (2)")
        after = disk.crash(image, power=False)
        connection.close()
        renew(after.folder / "x.db-wal")
        connection = _open(after)
        shown = [row[0] for row in connection.execute("SELECT x FROM t")]
        connection.execute("INSERT INTO t VALUES (3)")
        last = disk.crash(after, power=True)
        connection.close()
        return set(shown) | {3} != set(_rows(last))


def test_a_log_that_was_left_behind_lasts_once_it_is_written_again(make_disk):
    assert any(_left_behind(make_disk, seed, lambda _: None) for seed in range(20)), "a failed sync leaves a hole"
    assert not any(_left_behind(make_disk, seed, renew_log) for seed in range(20))


def test_a_folder_whose_sync_failed_is_synced_by_who_comes_next(make_disk):
    for seed in range(20):
        disk = make_disk(seed)
        with disk.mounted():
            image = disk.image()
            path = Path("objects", "tables", "5d", "x.sqlite")
            begin_use(image.folder / "objects")
            image.failing = 1
            with pytest.raises(StorageFailed):
                open_object(image.folder / path, LIMITS, lambda: 1.0, keeps=False)
            file = open_object(image.folder / path, LIMITS, lambda: 1.0, keeps=False)
            file.connection.execute("CREATE TABLE t (x)")
            image.sync_path(file.log)
            after = disk.crash(image, power=True)
            file.close(keep_log=True)
            assert (after.folder / path).exists()


@asynccontextmanager
async def running(folder):
    store = SharedStore(folder, platform=virtual_platform())
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def test_what_was_refused_after_a_failed_sync_stays_away_once_anything_else_was_stored(make_disk):
    async def after(*later):
        disk = make_disk()
        with disk.mounted():
            image = disk.image()
            async with running(image.folder) as store:
                await commit(store, batch(actor(), 1, {b"k": b"old"}), batch(actor("b"), 1, {b"k": b"1"}))
                image.failing = 1
                assert await commit(store, batch(actor(), 2, {b"k": b"refused"})) != [None]
                for one in later:
                    assert await commit(store, one) == [None]
                crashed = disk.crash(image, power=False)
            async with running(crashed.folder) as store:
                return store.open(actor()).get(b"k")

    assert await after() == b"refused", "the log has it"
    assert await after(batch(actor("b"), 2, {b"k": b"2"})) == b"old"
    assert await after(batch(actor("b"), 2, {b"k": b"1"})) == b"old", "nothing was changed"
    assert await after(batch(actor("b"), 2, {b"no such key": None})) == b"old"
    assert await after(batch(actor("b"), 2, {})) == b"old"


def test_bits_that_flipped_close_to_each_other_are_put_right(make_disk):
    disk = make_disk()
    with disk.mounted():
        image = disk.image()
        path = image.folder / "x.db"
        path.write_bytes(content := bytes([0] * 100 + [7] * 20 + [0] * 100))
        assert all(image.flip(random.Random(seed)) is not None for seed in (1, 1, 2, 3))
        assert path.read_bytes() != content
        with image.whole():
            assert path.read_bytes() == content
        assert path.read_bytes() != content
        image.repair()
        assert path.read_bytes() == content


def test_a_bit_that_flipped_at_the_end_of_a_page_is_put_right_though_the_next_page_was_written(make_disk):
    disk = make_disk()
    with disk.mounted():
        image = disk.image()
        path = image.folder / "x.db"
        path.write_bytes(bytes(PAGE_BYTES - 2) + b"xy" + bytes(PAGE_BYTES))
        assert any(image.flip(random.Random(seed)) is not None for seed in range(9))
        with path.open("r+b") as file:
            file.seek(PAGE_BYTES)
            file.write(b"z" * PAGE_BYTES)
        image.repair()
        assert path.read_bytes() == bytes(PAGE_BYTES - 2) + b"xy" + b"z" * PAGE_BYTES


def test_afterwards_sqlite_uses_the_real_disk_again(make_disk, tmp_path):
    with make_disk().mounted():
        assert "heliograph-sim" in apsw.vfs_names()
    assert "heliograph-sim" not in apsw.vfs_names()
    connection = apsw.Connection(str(tmp_path / "real.db"))
    connection.execute("CREATE TABLE t (x)")
    connection.close()


def test_what_sqlite_takes_for_chance_follows_from_the_seed(make_disk):
    def drawn(seed):
        with make_disk(seed).mounted():
            return apsw.randomness(16)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert apsw.randomness(16) != drawn(1)
