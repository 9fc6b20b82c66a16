"""What every store promises: batches whole, in order, failures apart, and nothing durable lost."""

from __future__ import annotations

import trio

from runtime.ids import facet_address
from runtime.storage.store import Store
from tests.storage.harness import Disk, actor, batch, commit

A, B = actor("a"), actor("b")


async def test_a_batch_is_durable_when_done_is_called(store: Store) -> None:
    assert store.open(A).get(b"k") is None
    assert await commit(store, batch(A, 1, {b"k": b"1", b"": b"", b"\x00": b"\x00"})) == [None]
    reads = store.open(A)
    assert (reads.get(b"k"), reads.get(b""), reads.get(b"\x00")) == (b"1", b"", b"\x00")
    assert store.backlog_bytes == 0


async def test_actors_do_not_see_each_other(store: Store) -> None:
    twin = actor("a", "other")
    await commit(store, batch(A, 1, {b"k": b"a"}), batch(B, 1, {b"k": b"b"}), batch(twin, 1, {b"k": b"t"}))
    assert [store.open(who).get(b"k") for who in (A, B, twin)] == [b"a", b"b", b"t"]


async def test_of_batches_submitted_at_once_the_later_one_wins(store: Store) -> None:
    await commit(
        store,
        batch(A, 1, {b"x": b"1", b"y": b"1", b"z": b"1"}),
        batch(A, 2, {b"x": b"2", b"y": None}),
        batch(A, 3, {b"y": b"3", b"z": None}),
    )
    assert store.open(A).list(b"", None, None, False) == [(b"x", b"2"), (b"y", b"3")]


async def test_outcomes_come_in_submission_order(store: Store) -> None:
    order: list[tuple[str | None, int]] = []
    for sequence in (1, 2):
        for who in (A, B):
            one = batch(who, sequence, {b"k": b"v"})
            store.submit(one, lambda _, one=one: order.append((one.actor.name, one.sequence)))  # type: ignore[misc]
    await commit(store, batch(A, 3))
    assert order == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


async def test_list_gives_a_range_in_byte_order(store: Store) -> None:
    keys = [b"", b"\x00", b"a", b"a\x00", b"b", "é".encode(), b"\xff"]
    await commit(store, batch(A, 1, {key: b"v" + key for key in reversed(keys)}))
    reads = store.open(A)
    assert [k for k, _ in reads.list(b"", None, None, False)] == keys
    assert [k for k, _ in reads.list(b"", None, None, True)] == keys[::-1]
    assert [k for k, _ in reads.list(b"a", b"b", None, False)] == [b"a", b"a\x00"]
    assert [k for k, _ in reads.list(b"a", b"\xff", 2, True)] == ["é".encode(), b"b"]


async def test_delete_all_removes_keys_of_one_actor_and_leaves_the_alarm_to_the_batch(store: Store) -> None:
    await commit(store, batch(A, 1, {b"k": b"1", b"l": b"1"}, alarm=5.0), batch(B, 1, {b"k": b"b"}))
    await commit(store, batch(A, 2, {b"n": b"2"}, delete_all=True))
    assert store.open(A).list(b"", None, None, False) == [(b"n", b"2")]
    assert store.open(A).alarm() == 5.0
    assert store.open(B).get(b"k") == b"b"
    await commit(store, batch(A, 3, delete_all=True, alarm=None))
    assert store.open(A).list(b"", None, None, False) == []
    assert store.open(A).alarm() is None
    assert store.list_ids("rooms") == [B]


async def test_delete_all_between_other_batches_of_a_group_keeps_the_order(store: Store) -> None:
    await commit(
        store,
        batch(A, 1, {b"old": b"1"}, alarm=1.0),
        batch(A, 2, {b"new": b"2"}, delete_all=True),
        batch(A, 3, {b"newer": b"3"}),
        batch(B, 1, delete_all=True),
    )
    assert store.open(A).list(b"", None, None, False) == [(b"new", b"2"), (b"newer", b"3")]
    assert store.alarms() == [(A, 1.0)]


async def test_alarms_are_listed_with_the_names_of_their_actors(store: Store) -> None:
    nameless = actor("a")
    await commit(store, batch(type(nameless)(A.namespace, A.raw), 1, alarm=3.0))
    assert [(who, who.name, due) for who, due in store.alarms()] == [(A, None, 3.0)]
    await commit(store, batch(A, 2, {b"k": b"v"}), batch(B, 1, alarm=1.5))
    assert sorted((who.name or "", due) for who, due in store.alarms()) == [("a", 3.0), ("b", 1.5)]
    await commit(store, batch(A, 3, alarm=None))
    assert store.alarms() == [(B, 1.5)]
    assert store.open(B).alarm() == 1.5


async def test_names_that_are_no_valid_unicode_are_kept(store: Store) -> None:
    odd = actor("\ud800\0é")
    await commit(store, batch(odd, 1, alarm=1.0))
    assert [who.name for who, _ in store.alarms()] == [odd.name]


async def test_ids_of_a_namespace_are_listed_with_names(store: Store) -> None:
    await commit(store, batch(A, 1, {b"k": b"v"}), batch(B, 1, alarm=1.0), batch(actor("c", "other"), 1, {b"k": b"v"}))
    assert {who.name for who in store.list_ids("rooms")} == {"a", "b"}
    assert store.list_ids("nobody") == []


async def test_facets_are_listed_below_their_actor_and_not_in_its_namespace(store: Store) -> None:
    one, other = facet_address(A, b"1" * 16, "one"), facet_address(A, b"\xff" * 16, "other")
    deep = facet_address(other, b"\xff" * 16, "deep")
    elsewhere = facet_address(B, b"1" * 16, "elsewhere")
    written = [batch(who, 1, {b"k": b"v"}) for who in (A, one, other, deep, elsewhere)]
    await commit(store, *written)
    assert store.list_ids("rooms") == [A]
    assert [(who, who.name) for who in store.list_below(A)] == [(one, "one"), (other, "other"), (deep, "deep")]
    assert store.list_below(other) == [deep]
    await commit(store, batch(other, 2, delete_all=True))
    assert store.list_below(A) == [one, deep]


async def test_an_orderly_end_finishes_what_was_submitted(disk: Disk) -> None:
    outcomes: list[Exception | None] = []
    async with disk.running() as store:
        lineage = store.lineage
        store.submit(batch(A, 1, {b"k": b"v"}), outcomes.append)
    assert outcomes == [None]
    async with disk.running() as store:
        assert store.open(A).get(b"k") == b"v"
        assert store.lineage == lineage


async def test_a_crash_keeps_what_was_durable_and_nothing_of_a_later_batch(disk: Disk) -> None:
    outcomes: list[Exception | None] = []
    async with disk.running() as store:
        await commit(store, batch(A, 1, {b"x": b"1", b"y": b"1"}))
        store.submit(batch(A, 2, {b"x": b"2", b"y": b"2"}), outcomes.append)
        disk.crash()
    async with disk.running() as store:
        assert store.open(A).list(b"", None, None, False) == [(b"x", b"1"), (b"y", b"1")]


async def test_batches_of_many_actors_at_once_all_arrive(store: Store) -> None:
    everyone = [actor(f"actor {n}") for n in range(300)]
    outcomes = await commit(store, *(batch(who, n, {b"n": b"%d" % n}) for n in (1, 2, 3) for who in everyone))
    assert outcomes == [None] * 900
    assert {store.open(who).get(b"n") for who in everyone} == {b"3"}
    await trio.testing.wait_all_tasks_blocked()
    assert len(store.list_ids("rooms")) == 300


async def test_a_copy_has_what_was_submitted_before_it_and_can_be_brought_back_to_before_it(store: Store) -> None:
    before, found = store.open(B).bookmark(), actor("c")
    await commit(
        store,
        batch(A, 1, {b"x": b"1", b"y": b"1"}),
        batch(A, 2, {b"x": b"2"}),
        batch(B, 0, copy_of=A),
        batch(A, 3, {b"x": b"3"}),
        batch(found, 0, copy_of=actor("nobody")),
    )
    assert store.open(B).list(b"", None, None, False) == [(b"x", b"2"), (b"y", b"1")]
    await commit(store, batch(B, 1, {b"y": None, b"z": b"B"}))
    assert store.open(A).list(b"", None, None, False) == [(b"x", b"3"), (b"y", b"1")]
    assert store.open(B).list(b"", None, None, False) == [(b"x", b"2"), (b"z", b"B")]
    await commit(store, batch(B, 0, restore_to=store.open(B).point(before)))
    assert store.open(B).list(b"", None, None, False) == []
