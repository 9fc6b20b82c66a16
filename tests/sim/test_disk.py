"""The simulated disk loses what was not synced and nothing else; real SQLite on it keeps its promise, or breaks it."""

import itertools
import random

import apsw
import pytest

from runtime.sim.disk import SimulatedDisk
from runtime.storage.checksums import CHECKSUM_VFS


@pytest.fixture
def make_disk(tmp_path):
    counted = itertools.count()

    def make(seed=0, step=lambda *_: None):
        folder = tmp_path / str(next(counted))
        folder.mkdir()
        return SimulatedDisk(folder, random.Random(seed), step)

    return make


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


def test_afterwards_sqlite_uses_the_real_disk_again(make_disk, tmp_path):
    with make_disk().mounted():
        assert "heliograph-sim" in apsw.vfs_names()
    assert "heliograph-sim" not in apsw.vfs_names()
    connection = apsw.Connection(str(tmp_path / "real.db"))
    connection.execute("CREATE TABLE t (x)")
    connection.close()
