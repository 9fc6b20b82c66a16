"""A restore of much: built anew in bounded pieces, and seen by nobody before it is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio

from runtime.errors import StorageFailed
from runtime.storage.database_file import DATABASE
from runtime.storage.shared import SharedStore
from runtime.storage.store import Store
from tests.storage.harness import Disk, actor, batch, commit

A, B = actor("a"), actor("b")

Pairs = dict[bytes, bytes]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk("rebuilding", tmp_path)


def pairs(store: Store) -> Pairs:
    return dict(store.open(A).list(b"", None, None, False))


async def bookmark(store: Store) -> int:
    """The point of now."""
    await commit(store, batch(A, 0, mark=True))
    return store.open(A).point(store.open(A).bookmark())


async def changed(store: Store) -> tuple[int, Pairs, Pairs]:
    """Store something, and change all kinds of it: the point before the changes, what there was, what there is."""
    old: Pairs = {b"%d" % n: b"old" for n in range(20)} | {b"": b"empty"}
    await commit(store, batch(A, 1, dict(old), alarm=5.0), batch(B, 1, {b"1": b"b"}))
    point = await bookmark(store)
    await commit(store, batch(A, 2, {b"%d" % n: b"new" for n in range(10, 30)} | {b"": None, b"1": None}, alarm=None))
    await bookmark(store)
    await commit(store, batch(A, 3, {b"1": b"again", b"25": None, b"26": b"newer", b"27": None, b"12": None}))
    return point, old, pairs(store)


def left_over(store: Store) -> list[tuple[int]]:
    """The rows of slots that are nobody's."""
    assert isinstance(store, SharedStore)
    known = "SELECT slot FROM actors UNION SELECT slot FROM dropped"
    return store.read(f"SELECT count(*) FROM keys WHERE slot NOT IN ({known})", ())


async def test_everything_that_was_changed_is_as_it_was_and_can_be_had_again(disk: Disk) -> None:
    async with disk.running() as store:
        point, old, new = await changed(store)
        undo = await bookmark(store)
        for target, found, alarm in ((point, old, 5.0), (undo, new, None), (point, old, 5.0), (point, old, 5.0)):
            assert await commit(store, batch(A, 0, restore_to=target)) == [None]
            assert (pairs(store), store.open(A).alarm()) == (found, alarm)
        await commit(store, batch(A, 1, {b"2": b"on it"}))
        assert pairs(store) == old | {b"2": b"on it"}
        assert store.open(B).get(b"1") == b"b"
        assert left_over(store) == [(0,)]


async def test_a_group_may_change_an_actor_before_and_after_it_is_brought_back(disk: Disk) -> None:
    async with disk.running() as store:
        point, old, _ = await changed(store)
        between = await bookmark(store)
        outcomes = await commit(
            store,
            batch(A, 4, {b"3": b"late", b"new": b"late"}, alarm=9.0),
            batch(A, 0, restore_to=point),
            batch(A, 1, {b"4": b"after"}),
            batch(B, 2, {b"1": b"c"}),
            batch(A, 0, restore_to=between),
            batch(A, 0, restore_to=point),
            batch(A, 1, {b"5": b"last"}),
        )
        assert outcomes == [None] * 7
        assert pairs(store) == old | {b"5": b"last"}
        assert store.open(A).alarm() == 5.0
        assert store.open(B).get(b"1") == b"c"


async def test_what_a_delete_all_took_is_built_anew_too(disk: Disk) -> None:
    async with disk.running() as store:
        point, old, new = await changed(store)
        full = await bookmark(store)
        await commit(store, batch(A, 4, {b"n": b"1"}, delete_all=True))
        for target, found in ((point, old), (full, new), (point, old)):
            assert await commit(store, batch(A, 0, restore_to=target)) == [None]
            assert pairs(store) == found


async def test_wherever_a_crash_comes_an_actor_is_as_it_was_before_or_as_it_is_after(
    disk: Disk, tmp_path: Path
) -> None:
    moments: list[Path] = []

    def keep() -> bool:
        assert disk.data is not None
        moments.append(tmp_path / f"moment{len(moments)}")
        shutil.copytree(disk.data, moments[-1])
        return False

    async with disk.running() as store:
        assert isinstance(store, SharedStore)
        point, old, new = await changed(store)
        await commit(store, batch(A, 4, restore_next=point))
        assert store._file is not None
        store._file.writer.set_commit_hook(keep)
        assert await commit(store, batch(A, 0, restore_to=point)) == [None]
        store._file.writer.set_commit_hook(None)
        assert pairs(store) == old
    seen: list[bool] = []
    for moment in moments:
        then = Disk("rebuilding", tmp_path, data=moment)
        async with then.running() as store:
            seen.append(store.open(A).restore_next() is None)
            assert pairs(store) == (old if seen[-1] else new)
            await commit(store, batch(B, 2, {b"1": b"c"}))
            await trio.testing.wait_all_tasks_blocked()
            assert isinstance(store, SharedStore)
            assert store.read("SELECT count(*) FROM dropped WHERE since < 0", ()) == [(0,)]
            assert left_over(store) == [(0,)]
            assert await commit(store, batch(A, 0, restore_to=point)) == [None]
            assert pairs(store) == old
            assert store.open(A).restore_next() is None
    assert seen == sorted(seen)
    assert seen.count(False) >= 4


async def test_a_restore_for_which_the_disk_is_too_small_fails_and_leaves_nothing(tmp_path: Path) -> None:
    async with Disk("shared", tmp_path).running() as store:
        assert isinstance(store, SharedStore)
        point = await _rewrite(store, 5_000)
        assert store._file is not None
        writer = store._file.writer
        writer.pragma("max_page_count", writer.pragma("page_count") + 2_000)
        (outcome,) = await commit(store, batch(A, 0, restore_to=point))
        assert isinstance(outcome, StorageFailed)
        assert store.open(A).get(b"17")[:1] == b"n"  # type: ignore[index]
        await trio.testing.wait_all_tasks_blocked()
        assert store.read("SELECT count(*) FROM keys", ()) == [(5_000,)]
        writer.pragma("max_page_count", 1_000_000)
        assert await commit(store, batch(A, 0, restore_to=point)) == [None]
        assert store.open(A).get(b"17")[:1] == b"o"  # type: ignore[index]


async def test_the_log_stays_short_while_much_is_brought_back(tmp_path: Path) -> None:
    disk = Disk("shared", tmp_path)
    async with disk.running() as store:
        point = await _rewrite(store, 12_000)
        assert disk.data is not None
        log = disk.data / f"{DATABASE}-wal"
        assert log.stat().st_size < 30_000_000
        assert await commit(store, batch(A, 0, restore_to=point)) == [None]
        assert log.stat().st_size < 30_000_000
        assert all(value[:1] == b"o" for value in pairs(store).values())


async def _rewrite(store: Store, keys: int) -> int:
    """Values of 4,000 bytes, all written twice; the point between."""
    point = 0
    for sequence, what in enumerate((b"old", b"new")):
        point = await bookmark(store)
        for first in range(0, keys, 1_000):
            writes: dict[bytes, bytes | None] = {b"%d" % n: what.ljust(4_000) for n in range(first, first + 1_000)}
            assert await commit(store, batch(A, sequence, writes)) == [None]
    return point
