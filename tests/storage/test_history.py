"""The history: every state that was durable can be had again, by bookmark and by time, and a restore can be undone."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import apsw
import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import InvalidBookmark, StorageFailed
from runtime.ids import ActorId
from runtime.storage.bookmarks import Retention, bookmark_text
from runtime.storage.checksums import CHECKSUM_VFS
from runtime.storage.database_file import DATABASE
from runtime.storage.memory import MemoryStore
from runtime.storage.shared import SharedStore
from runtime.storage.store import Store
from runtime.testing.platform import virtual_platform
from tests.storage.harness import Disk, actor, batch, commit

A, B = actor("a"), actor("b")


@pytest.fixture(params=["memory", "shared", "rebuilding"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return Disk(request.param, tmp_path)


State = tuple[dict[bytes, bytes], float | None]


def state(store: Store, who: ActorId) -> State:
    reads = store.open(who)
    return dict(reads.list(b"", None, None, False)), reads.alarm()


async def bookmark(store: Store) -> str:
    """A bookmark of now."""
    await commit(store, batch(A, 0, mark=True))
    return store.open(A).bookmark()


async def restore(store: Store, who: ActorId, bookmark: str) -> Exception | None:
    """Bring an actor back, as a batch of its next instance does."""
    point = store.open(who).point(bookmark)
    (outcome,) = await commit(store, batch(who, 0, restore_to=point))
    return outcome


async def test_an_actor_is_brought_back_and_forth_and_the_others_stay(store: Store) -> None:
    await commit(store, batch(A, 1, {b"x": b"1", b"y": b"1"}, alarm=5.0), batch(B, 1, {b"k": b"b"}))
    first = await bookmark(store)
    await commit(store, batch(A, 2, {b"x": b"2", b"y": None, b"z": b"2"}, alarm=None), batch(B, 2, {b"k": b"c"}))
    second = await bookmark(store)
    assert first < second
    assert await restore(store, A, first) is None
    assert state(store, A) == ({b"x": b"1", b"y": b"1"}, 5.0)
    assert store.alarms() == [(A, 5.0)]
    assert store.open(B).get(b"k") == b"c"
    third = await bookmark(store)
    assert await restore(store, A, second) is None
    assert state(store, A) == ({b"x": b"2", b"z": b"2"}, None)
    assert await restore(store, A, third) is None
    assert state(store, A) == ({b"x": b"1", b"y": b"1"}, 5.0)


async def test_what_delete_all_took_comes_back(store: Store) -> None:
    await commit(store, batch(A, 1, {b"%d" % n: b"v" for n in range(2_000)}, alarm=7.0))
    full = await bookmark(store)
    await commit(store, batch(A, 2, {b"n": b"2"}, delete_all=True, alarm=None))
    other = await bookmark(store)
    await commit(store, batch(A, 3, delete_all=True))
    empty = await bookmark(store)
    assert store.list_ids("rooms") == []
    for point, keys, alarm in ((other, 1, None), (full, 2_000, 7.0), (empty, 0, None), (full, 2_000, 7.0)):
        assert await restore(store, A, point) is None
        assert (len(state(store, A)[0]), state(store, A)[1]) == (keys, alarm)
        assert store.list_ids("rooms") == ([A] if keys else [])
    await commit(store, batch(A, 4, {b"0": b"w"}))
    assert await restore(store, A, other) is None
    assert state(store, A) == ({b"n": b"2"}, None)


async def test_a_batch_of_two_delete_alls_and_writes_between_is_one_step(store: Store) -> None:
    await commit(store, batch(A, 1, {b"x": b"1"}))
    before = await bookmark(store)
    await commit(
        store,
        batch(A, 2, {b"y": b"2"}, delete_all=True),
        batch(A, 3, {b"x": b"3"}),
        batch(A, 4, {b"z": b"4"}, delete_all=True, alarm=3.0),
    )
    after = await bookmark(store)
    await restore(store, A, before)
    assert state(store, A) == ({b"x": b"1"}, None)
    await restore(store, A, after)
    assert state(store, A) == ({b"z": b"4"}, 3.0)


async def test_an_actor_goes_back_to_before_it_existed(store: Store) -> None:
    await commit(store, batch(B, 1, {b"k": b"v"}))
    before = await bookmark(store)
    await commit(store, batch(A, 1, {b"k": b"v"}, alarm=1.0))
    await restore(store, A, before)
    assert state(store, A) == ({}, None)
    assert store.list_ids("rooms") == [B]
    await commit(store, batch(A, 2, {b"k": b"v"}))
    assert len(store.list_ids("rooms")) == 2


async def test_a_bookmark_of_a_time_has_nothing_later_and_misses_at_most_a_second(
    disk: Disk, autojump_clock: trio.testing.MockClock
) -> None:
    async with disk.running() as store:
        now = trio.current_time if isinstance(store, MemoryStore) else store._platform.now  # type: ignore[attr-defined]
        began = now()
        for n in range(1, 201):
            await trio.sleep(0.3)
            await commit(store, *(batch(who, n, {b"n": b"%d" % n}) for who in (A, B)))
            if n % 50 == 0:
                await trio.sleep(100)
        await bookmark(store)
        reads = store.open(A)
        for after in (1_000, 0.1, 1.7, 10, 20, 100, 115, 115.5, 250, 350):
            await restore(store, A, reads.bookmark_at(began + after))
            exact = sum(0.3 * n + 100 * ((n - 1) // 50) <= after + 1e-9 for n in range(1, 201))
            assert exact - 4 <= int(reads.get(b"n") or b"0") <= exact, after
        with pytest.raises(InvalidBookmark, match="too early"):
            reads.bookmark_at(began - 1)


async def test_a_key_that_changes_all_the_time_is_recorded_once_a_second(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with Disk("shared", tmp_path).running() as store:
        assert isinstance(store, SharedStore)
        for n in range(1, 1_001):
            await trio.sleep(0.01)
            await commit(store, batch(A, n, {b"n": b"%d" % n}, alarm=float(n)))
        rows = store.read("SELECT key IS NULL, count(*) FROM history GROUP BY 1 ORDER BY 1", ())
        assert dict(rows)[1] <= 12
        assert dict(rows)[0] <= 24


async def test_bookmarks_that_lead_nowhere_are_told_apart(store: Store) -> None:
    await commit(store, batch(A, 1, {b"k": b"v"}))
    reads = store.open(A)
    newest = await bookmark(store)
    for text, said in (
        ("yesterday", "is no bookmark"),
        (bookmark_text((1 << 64) - 1, store.lineage), "is unknown"),
        (f"{newest[:26]}-0123456789abcdef", "is of other data"),
        (bookmark_text(0, store.lineage), "is too old"),
    ):
        with pytest.raises(InvalidBookmark, match=said):
            reads.point(text)
    assert reads.point(newest) > 0


async def test_bookmarks_grow_over_restarts(disk: Disk) -> None:
    found: list[str] = []
    for n in range(1, 4):
        async with disk.running() as store:
            found.append(await bookmark(store))
            await commit(store, batch(A, 1, {b"n": b"%d" % n}))
            found.append(await bookmark(store))
    assert found == sorted(found)
    async with disk.running() as store:
        await restore(store, A, found[1])
        assert state(store, A) == ({b"n": b"1"}, None)


async def test_every_restore_changes_the_lineage_of_its_actor_alone(disk: Disk) -> None:
    async with disk.running() as store:
        await commit(store, batch(A, 1, {b"k": b"v"}), batch(B, 1, {b"k": b"v"}))
        lineages = [store.open(A).restored()]
        assert lineages == [None]
        for _ in range(2):
            await restore(store, A, await bookmark(store))
            lineages.append(store.open(A).restored())
        assert store.open(B).restored() is None
        await commit(store, batch(A, 2, delete_all=True))
    async with disk.running() as store:
        assert store.open(A).restored() == lineages[-1]
    assert len(set(lineages)) == 3


async def test_the_point_of_the_next_instance_is_remembered_until_it_was_restored(disk: Disk) -> None:
    async with disk.running() as store:
        await commit(store, batch(A, 1, {b"k": b"1"}))
        point = store.open(A).point(await bookmark(store))
        await commit(store, batch(A, 2, {b"k": b"2"}, restore_next=point))
        assert (store.open(A).restore_next(), store.open(B).restore_next()) == (point, None)
    async with disk.running() as store:
        assert store.open(A).restore_next() == point
        await commit(store, batch(A, 0, restore_to=point))
        assert store.open(A).restore_next() is None
        assert state(store, A) == ({b"k": b"1"}, None)


async def test_a_restore_that_is_refused_is_forgotten_and_changes_nothing(store: Store) -> None:
    await commit(store, batch(A, 1, {b"k": b"1"}, restore_next=99))
    outcomes = await commit(store, batch(A, 0, restore_to=99), batch(B, 1, {b"k": b"b"}))
    assert [type(outcome) for outcome in outcomes] == [InvalidBookmark, type(None)]
    assert store.open(A).restore_next() is None
    assert state(store, A) == ({b"k": b"1"}, None)
    assert store.open(B).get(b"k") == b"b"


async def test_a_class_without_history_cannot_be_brought_back_and_writes_none(disk: Disk) -> None:
    async with disk.running() as store:
        await commit(store, batch(A, 1, {b"k": b"1"}, history=False), batch(B, 1, {b"k": b"1"}))
        then = await bookmark(store)
        await commit(store, batch(A, 2, {b"k": b"2"}, delete_all=True, alarm=2.0, history=False))
        await commit(store, batch(A, 3, {b"k": None}, alarm=None, history=False), batch(B, 2, {b"k": b"2"}))
        with pytest.raises(InvalidBookmark, match="kept no history"):
            store.open(A).point(then)
        assert await restore(store, B, then) is None
        assert store.open(B).get(b"k") == b"1"
        if isinstance(store, SharedStore):
            mine = "SELECT count(*) FROM history JOIN actors ON owner = number WHERE namespace = ? AND name = 'a'"
            assert store.read(f"{mine} AND key = 0", ("rooms",)) == [(0,)]


async def test_a_class_that_begins_to_keep_history_is_restored_no_further_than_that(store: Store) -> None:
    await commit(store, batch(A, 1, {b"k": b"1"}))
    early = await bookmark(store)
    await commit(store, batch(A, 2, {b"k": b"2"}, history=False))
    await commit(store, batch(A, 3, {b"k": b"3"}))
    later = await bookmark(store)
    await commit(store, batch(A, 4, {b"k": b"4"}))
    with pytest.raises(InvalidBookmark, match="kept no history"):
        store.open(A).point(early)
    await restore(store, A, later)
    assert store.open(A).get(b"k") == b"3"


# Retention.


async def test_what_is_too_old_is_forgotten(disk: Disk, autojump_clock: trio.testing.MockClock) -> None:
    disk.retention = Retention(age_s=10_000)
    async with disk.running() as store:
        bookmarks: list[str] = []
        for n in range(1, 21):
            await trio.sleep(1_000)
            await commit(store, batch(A, n, {b"n": b"%d" % n}))
            bookmarks.append(await bookmark(store))
        await trio.sleep(5_000)
        await commit(store, batch(B, 1, {b"k": b"v"}))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(InvalidBookmark, match="too old"):
            store.open(A).point(bookmarks[9])
        await restore(store, A, bookmarks[16])
        assert store.open(A).get(b"n") == b"17"


async def test_what_is_too_much_is_forgotten_the_oldest_first(disk: Disk) -> None:
    disk.retention = Retention(total_bytes=100_000)
    bookmarks: list[str] = []
    for n in range(1, 5):
        async with disk.running() as store:
            await commit(store, batch(A, n, {b"%d" % m: bytes([n]) * 400 for m in range(100)}))
            bookmarks.append(await bookmark(store))
            await trio.testing.wait_all_tasks_blocked()
    async with disk.running() as store:
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(InvalidBookmark, match="too old"):
            store.open(A).point(bookmarks[0])
        await restore(store, A, bookmarks[2])
        assert store.open(A).get(b"5") == b"\3" * 400


async def test_an_actor_that_deleted_everything_is_gone_with_its_history(tmp_path: Path) -> None:
    disk = Disk("shared", tmp_path)
    for retention in (Retention(), Retention(age_s=0, total_bytes=0)):
        disk.retention = retention
        async with disk.running() as store:
            assert isinstance(store, SharedStore)
            if retention == Retention():
                await commit(store, batch(A, 1, {b"%d" % n: b"v" for n in range(3_000)}, alarm=2.0))
                await commit(store, batch(A, 2, delete_all=True, alarm=None))
                await commit(store, batch(B, 1, {b"k": b"v"}))
            await trio.testing.wait_all_tasks_blocked()
            kept = [store.read(f"SELECT count(*) FROM {table}", ())[0][0] for table in ("actors", "keys", "dropped")]
            assert kept == ([2, 3_001, 1] if retention == Retention() else [1, 1, 0])
            assert store.read("SELECT count(*) > 0 FROM history", ()) == [(1,)]


async def test_sweeping_keeps_up_with_commits_that_never_pause(tmp_path: Path) -> None:
    store = SharedStore(
        tmp_path, platform=virtual_platform(), retention=Retention(total_bytes=2 << 20), group_bytes=1 << 20
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        rounds = [batch(A, n, {b"%d" % m: bytes([n]) * 4_000 for m in range(250)}) for n in range(1, 101)]
        assert await commit(store, *rounds) == [None] * 100
        await trio.testing.wait_all_tasks_blocked()
        (size,) = store.read("SELECT sum(length(value)) FROM history", ())[0]
        assert size < 30 << 20
        nursery.cancel_scope.cancel()


# What the history takes.


def texts(seed: int, size: int) -> dict[bytes, bytes | None]:
    rng = random.Random(seed)
    words = [rng.randbytes(3).hex().encode() for _ in range(500)]
    return {b"%d" % n: b" ".join(rng.choices(words, k=size // 7 + 1))[:size] for n in range(200)}


async def test_values_of_every_length_come_back_byte_for_byte(disk: Disk) -> None:
    rng = random.Random(1)
    old: dict[bytes, bytes] = {}
    for n, size in enumerate([*range(0, 2_000, 7), 5_000, 128_000]):
        old[b"random %d" % n] = rng.randbytes(size)
        old[b"zeros %d" % n] = bytes(size)
        old[b"text %d" % n] = (b"as texts are, the same again, " * (size // 30 + 1))[:size]
    async with disk.running() as store:
        await commit(store, batch(A, 1, {**old}))
        then = await bookmark(store)
        await commit(store, batch(A, 2, {key: b"new" if n % 2 else None for n, key in enumerate(old)}))
        after = await bookmark(store)
        for target, found in ((then, old), (after, {key: b"new" for n, key in enumerate(old) if n % 2}), (then, old)):
            await restore(store, A, target)
            assert state(store, A) == (found, None)


async def test_the_history_takes_less_than_what_it_is_of_when_that_can_be_deflated(tmp_path: Path) -> None:
    async with Disk("shared", tmp_path).running() as store:
        assert isinstance(store, SharedStore)
        await commit(store, batch(A, 1, texts(1, 1_000)))
        await bookmark(store)
        await commit(store, batch(A, 2, texts(2, 1_000)))
        rows = store.read("SELECT sum(length(value)), count(size) FROM history WHERE typeof(key) = 'blob'", ())
        size, deflated = rows[0]
        assert deflated == 25
        assert 150_000 < size < 195_000


async def test_a_history_from_before_values_were_deflated_still_leads_back(tmp_path: Path) -> None:
    disk = Disk("shared", tmp_path)
    async with disk.running() as store:
        await commit(store, batch(A, 1, {b"k": b"old" * 50}))
        then = await bookmark(store)
        await commit(store, batch(A, 2, {b"k": b"new"}))
    assert disk.data is not None
    database = apsw.Connection(str(disk.data / DATABASE), vfs=CHECKSUM_VFS)
    database.execute("ALTER TABLE history DROP COLUMN size; UPDATE meta SET value = 3 WHERE name = 'format'")
    database.close()
    async with disk.running() as store:
        await commit(store, batch(A, 1, texts(1, 1_000)))
        between = await bookmark(store)
        await commit(store, batch(A, 2, texts(2, 1_000)))
        for target, found in ((then, {b"k": b"old" * 50}), (between, {b"k": b"new", **texts(1, 1_000)})):
            await restore(store, A, target)
            assert state(store, A) == (found, None)


# Failures.


async def test_a_failed_batch_leaves_no_history(tmp_path: Path) -> None:
    disk = Disk("shared", tmp_path)
    async with disk.running() as store:
        assert isinstance(store, SharedStore)
        await commit(store, batch(A, 1, {b"k": b"1"}), batch(B, 1, {b"k": b"1"}))
        then = await bookmark(store)
        assert store._file is not None
        store._file.writer.pragma("max_page_count", store._file.writer.pragma("page_count") + 2)
        outcomes = await commit(store, batch(A, 2, {b"k": b"2", b"large": b"x" * 100_000}), batch(B, 2, {b"k": b"2"}))
        assert [type(outcome) for outcome in outcomes] == [StorageFailed, type(None)]
        store._file.writer.pragma("max_page_count", 1_000_000)
        await commit(store, batch(A, 1, {b"k": b"3"}))
        for who in (A, B):
            await restore(store, who, then)
            assert store.open(who).get(b"k") == b"1"


async def test_a_put_that_the_disk_refuses_is_not_there_and_those_around_it_lead_back(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with Disk("shared", tmp_path).running() as store:
        assert isinstance(store, SharedStore)
        assert store._file is not None
        points = list[str]()
        for n in range(1, 7):
            points.append(await bookmark(store))
            await commit(store, batch(A, 1, {b"k": b"%d" % n}))
            store._file.writer.pragma("query_only", n % 2 == 0)
            (outcome,) = await commit(store, batch(A, 2, {b"k": b"%d and on" % n}))
            store._file.writer.pragma("query_only", False)
            assert isinstance(outcome, StorageFailed) is (n % 2 == 0)
            assert store.open(A).get(b"k") == (b"%d and on" % n if n % 2 else b"%d" % n)
            await commit(store, batch(A, 3, {b"k": b"%d at last" % n}))
        for n, point in reversed(list(enumerate(points))):
            await restore(store, A, point)
            assert store.open(A).get(b"k") == (b"%d at last" % n if n else None)


async def test_a_restore_that_a_crash_cut_short_did_not_happen(disk: Disk) -> None:
    outcomes: list[Any] = []
    async with disk.running() as store:
        await commit(store, batch(A, 1, {b"k": b"1"}))
        point = store.open(A).point(await bookmark(store))
        await commit(store, batch(A, 2, {b"k": b"2"}, restore_next=point))
        store.submit(batch(A, 0, restore_to=point), outcomes.append)
        disk.crash()
    async with disk.running() as store:
        assert store.open(A).get(b"k") == b"2"
        assert store.open(A).restore_next() == point


# Any history.

keys = st.sampled_from([b"", b"a", b"b", b"c"])
actors = st.sampled_from([A, B])
changes = st.fixed_dictionaries(
    {
        "writes": st.dictionaries(keys, st.none() | st.sampled_from([b"", b"1", b"2"]), max_size=3),
        "delete_all": st.sampled_from([False, False, False, True]),
    },
    optional={"alarm": st.none() | st.sampled_from([1.0, 2.0])},
)
steps = st.one_of(
    st.tuples(st.just("commit"), st.lists(st.tuples(actors, changes), min_size=1, max_size=3)),
    st.tuples(st.just("commit"), st.lists(st.tuples(actors, changes), min_size=1, max_size=3)),
    st.tuples(st.just("restore"), actors, st.integers(0, 99)),
    st.tuples(st.just("look")),
    st.tuples(st.just("look")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("crash")),
)


@attrs.define
class Model:
    """Every state of every actor at every bookmark."""

    now: dict[ActorId, State] = attrs.field(factory=lambda: {A: ({}, None), B: ({}, None)})
    then: list[tuple[str, dict[ActorId, State]]] = attrs.field(factory=list)

    def change(self, who: ActorId, how: dict[str, Any]) -> None:
        values, alarm = self.now[who]
        values = {} if how["delete_all"] else dict(values)
        for key, value in how["writes"].items():
            values.pop(key, None)
            if value is not None:
                values[key] = value
        self.now[who] = values, how.get("alarm", alarm)


async def _run(disk: Disk, program: list[tuple[Any, ...]]) -> None:
    model = Model()
    remaining = iter(program)
    more = True
    while more:
        async with disk.running() as store:
            more = await _boot(disk, store, model, remaining)


async def _boot(disk: Disk, store: Store, model: Model, remaining: Any) -> bool:
    for step in remaining:
        if step[0] == "commit":
            await commit(store, *(batch(who, 1, **how) for who, how in step[1]))
            for who, how in step[1]:
                model.change(who, how)
        elif step[0] == "restore" and model.then:
            point, states = model.then[step[2] % len(model.then)]
            assert await restore(store, step[1], point) is None
            model.now[step[1]] = states[step[1]]
        elif step[0] == "crash":
            disk.crash()
        assert {who: state(store, who) for who in (A, B)} == model.now
        if step[0] == "look":
            model.then.append((await bookmark(store), dict(model.now)))
        assert [one for one, _ in model.then] == sorted(one for one, _ in model.then)
        if step[0] in {"restart", "crash"}:
            return True
    return False


@pytest.mark.parametrize("kind", ["memory", "shared", "rebuilding"])
@given(program=st.lists(steps, max_size=20))
def test_any_state_that_was_durable_can_be_had_again(kind: str, program: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_run, Disk(kind, Path(folder)), program)
