"""What an actor sees as `ctx.storage`, claim by claim (Durable Objects: key-value storage, transactions, alarms)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from runtime.errors import LimitExceeded
from runtime.storage.storage import Storage
from runtime.storage.store import KEEP, Store
from runtime.storage.transaction import Transaction
from tests.storage.harness import NOW, Gate, actor, open_storage

A = actor("a")


@pytest.fixture
async def opened(store: Store) -> tuple[Storage, Gate]:
    return open_storage(store, A)


@pytest.fixture
async def storage(opened: tuple[Storage, Gate]) -> Storage:
    return opened[0]


@pytest.fixture
async def gate(opened: tuple[Storage, Gate]) -> Gate:
    return opened[1]


# Keys and values.


async def test_a_stored_value_is_independent_of_the_one_given(storage: Storage) -> None:
    value = {"list": [1]}
    storage.put("k", value)
    value["list"].append(2)
    assert storage.get("k") == {"list": [1]}
    assert storage.get("k", dict[str, list[int]]) == {"list": [1]}


async def test_none_is_a_value_and_a_missing_key_gives_the_default(storage: Storage) -> None:
    storage.put("k", None)
    assert storage.get("k", default="d") is None
    assert storage.get("missing") is None
    assert storage.get("missing", int, 7) == 7
    assert storage.list() == {"k": None}


async def test_get_many_is_in_key_order_without_missing_or_double_keys(storage: Storage) -> None:
    storage.put_many({"b": 2, "a": 1})
    assert list(storage.get_many(["b", "x", "a", "b"], int).items()) == [("a", 1), ("b", 2)]


async def test_delete_says_what_existed_and_writes_nothing_else(storage: Storage, gate: Gate) -> None:
    assert storage.delete("k") is False
    batch = storage.take_batch()
    assert batch is not None
    assert not batch.writes
    storage.put_many({"a": 1, "b": 2})
    assert storage.delete_many(["a", "a", "x", "b"]) == 2
    assert storage.delete("a") is False


async def test_keys_are_in_the_order_of_their_utf8_bytes(storage: Storage) -> None:
    keys = ["", "\0", "A", "_", "a", "é", "\uffff", "😀"]
    storage.put_many(dict.fromkeys(reversed(keys), 1))
    assert list(storage.list()) == keys


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "a ab abc b c"),
        ({"start": "ab"}, "ab abc b c"),
        ({"start_after": "ab"}, "abc b c"),
        ({"end": "b"}, "a ab abc"),
        ({"prefix": "ab"}, "ab abc"),
        ({"prefix": "ab", "start": "abc"}, "abc"),
        ({"prefix": "a", "end": "abc", "start_after": "a"}, "ab"),
        ({"start": "ab", "end": "c", "reverse": True}, "b abc ab"),
        ({"start": "ab", "reverse": True, "limit": 2}, "c b"),
        ({"limit": 2}, "a ab"),
        ({"start": "c", "end": "a"}, ""),
        ({"prefix": "z"}, ""),
        ({"prefix": ""}, "a ab abc b c"),
    ],
)
async def test_list_options_combine_by_intersection(storage: Storage, options: dict[str, Any], expected: str) -> None:
    for key in ("a", "b", "abc"):
        storage.put(key, 0)
    await storage.sync()
    storage.put_many({"ab": 0, "c": 0, "b": 1})
    assert list(storage.list(**options)) == expected.split()


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2"])
async def test_list_refuses_a_limit_that_is_no_positive_number(storage: Storage, limit: Any) -> None:
    with pytest.raises(TypeError, match="List limit must be positive"):
        storage.list(limit=limit)


async def test_list_refuses_two_lower_bounds(storage: Storage) -> None:
    with pytest.raises(TypeError, match="both start and start_after"):
        storage.list(start="a", start_after="b")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: s.put("k" * 2_051, 1), "key is 2,051 bytes; at most 2,048 (limits.KEY_BYTES)"),
        (lambda s: s.get("é" * 1_025), "key is 2,050 bytes; at most 2,048 (limits.KEY_BYTES)"),
        (lambda s: s.put("k", b"x" * 131_072), "value of 'k' is 131,077 bytes; at most 131,072 (limits.VALUE_BYTES)"),
        (lambda s: s.get_many(map(str, range(129))), "129 keys in one call; at most 128 (limits.KEYS_PER_CALL)"),
        (lambda s: s.put_many(dict.fromkeys(map(str, range(129)))), "129 keys in one call"),
        (lambda s: s.put_many({"ok": 1, "k" * 2_049: 1}), "key is 2,049 bytes"),
        (lambda s: s.put_many({"ok": 1, "large": "x" * 140_000}), "value of 'large' is 140,005 bytes"),
    ],
)
async def test_a_limit_names_itself_and_what_was_seen_and_nothing_is_written(
    storage: Storage, call: Callable[[Storage], Any], said: str
) -> None:
    with pytest.raises(LimitExceeded) as caught:
        call(storage)
    assert said in str(caught.value)
    assert caught.value.actual > caught.value.limit
    assert storage.take_batch() is None


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.put("k", object()),
        lambda s: s.put_many({"ok": 1, "k": print}),
        lambda s: s.put(5, 1),
        lambda s: s.delete_many("abc"),
    ],
)
async def test_what_is_no_key_or_value_is_refused_and_nothing_is_written(
    storage: Storage, call: Callable[[Storage], Any]
) -> None:
    with pytest.raises(TypeError):
        call(storage)
    assert storage.take_batch() is None


# Batches.


async def test_writes_up_to_a_seal_are_one_numbered_batch(storage: Storage) -> None:
    assert storage.sequence == 0
    storage.put("a", 1)
    storage.delete("a")
    storage.put("b", 2)
    storage.set_alarm(NOW + 5)
    assert storage.sequence == 1
    batch = storage.take_batch()
    assert batch is not None
    assert (batch.sequence, set(batch.writes), batch.alarm) == (1, {b"a", b"b"}, NOW + 5)
    assert storage.take_batch() is None
    assert storage.sequence == 1
    storage.delete_all()
    assert storage.sequence == 2
    batch = storage.take_batch()
    assert batch is not None
    assert (batch.delete_all, batch.alarm, batch.sequence) == (True, None, 2)


async def test_reads_see_open_and_sealed_writes_before_they_are_durable(storage: Storage, gate: Gate) -> None:
    storage.put_many({"durable": 1, "gone": 1})
    await storage.sync()
    storage.delete("gone")
    storage.put("sealed", 1)
    gate.seal()
    storage.put("open", 1)
    for _ in range(2):
        assert storage.list() == {"durable": 1, "open": 1, "sealed": 1}
        assert storage.get("gone") is None
        await storage.sync()


async def test_a_dropped_batch_is_forgotten_and_sealed_ones_stay(storage: Storage, gate: Gate) -> None:
    storage.put("sealed", 1)
    gate.seal()
    storage.put("open", 1)
    storage.drop_open()
    assert storage.list() == {"sealed": 1}
    assert storage.sequence == 1


async def test_after_delete_all_nothing_older_is_seen_at_any_stage(storage: Storage, gate: Gate) -> None:
    storage.put("durable", 1)
    await storage.sync()
    storage.put("sealed", 1)
    gate.seal()
    storage.put("open", 1)
    storage.delete_all()
    storage.put("new", 1)
    for step in (lambda: None, gate.seal, lambda: storage.put("last", 1)):
        step()
        assert set(storage.list()) - {"last"} == {"new"}
        assert storage.get("durable") is storage.get("sealed") is storage.get("open") is None
    await storage.sync()
    assert storage.list() == {"last": 1, "new": 1}


async def test_unconfirmed_writes_shut_no_gate(storage: Storage, gate: Gate) -> None:
    storage.put("a", 1, allow_unconfirmed=True)
    storage.put_many({"b": 1}, allow_unconfirmed=True)
    storage.delete("a", allow_unconfirmed=True)
    assert gate.waits_for == []
    storage.put("c", 1)
    assert gate.waits_for == [1]


async def test_a_broken_instance_has_no_storage(storage: Storage, gate: Gate) -> None:
    gate.broken = RuntimeError("Durable Object storage is no longer accessible.")
    for call in (
        storage.get_alarm,
        storage.delete_all,
        storage.list,
        lambda: storage.get("k"),
        lambda: storage.put("k", 1),
    ):
        with pytest.raises(RuntimeError, match="no longer accessible"):
            call()
    with pytest.raises(RuntimeError):
        await storage.sync()


async def test_a_limit_counts_what_is_left_after_deletions_that_are_not_durable_yet(storage: Storage) -> None:
    storage.put_many(dict.fromkeys("abcdef", 1))
    await storage.sync()
    storage.delete_many(["a", "b", "e"])
    storage.put("d", 2)
    assert storage.list(limit=2) == {"c": 1, "d": 2}
    assert list(storage.list(limit=2, reverse=True)) == ["f", "d"]


async def test_a_newer_write_is_not_forgotten_when_an_older_one_becomes_durable(storage: Storage) -> None:
    storage.put("k", "older")
    storage.set_alarm(NOW + 1)
    storage.take_batch()
    storage.put("k", "newer")
    storage.set_alarm(NOW + 2)
    storage.take_batch()
    storage.committed(1)
    assert storage.get("k") == "newer"
    assert storage.get_alarm() == NOW + 2


# Transactions.


async def test_a_transaction_gives_its_value_and_keeps_its_writes(storage: Storage) -> None:
    async def body(txn: Transaction) -> int:
        txn.put("a", 1)
        storage.put("b", 2)
        txn.put_many({"c": 3, "d": 4})
        assert txn.delete("d")
        assert txn.delete_many(["x"]) == 0
        assert txn.get_many(["a"]) == {"a": 1}
        assert txn.list(int, prefix="b") == {"b": 2}
        return txn.get("a", int) + 1

    assert await storage.transaction(body) == 2
    await storage.sync()
    assert storage.list() == {"a": 1, "b": 2, "c": 3}


async def test_an_exception_undoes_the_transaction_alarm_included_and_is_raised(storage: Storage, gate: Gate) -> None:
    storage.put("a", "before")
    storage.set_alarm(NOW + 1)

    async def body(txn: Transaction) -> None:
        txn.put("a", "inside")
        txn.put("b", "inside")
        storage.set_alarm(NOW + 2)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await storage.transaction(body)
    assert storage.list() == {"a": "before"}
    assert storage.get_alarm() == NOW + 1
    assert gate.broken is None


async def test_rollback_undoes_now_and_the_body_goes_on(storage: Storage) -> None:
    async def body(txn: Transaction) -> str:
        txn.put("a", 1)
        txn.rollback()
        txn.rollback()
        assert storage.get("a") is None
        with pytest.raises(RuntimeError, match=r"Cannot get\(\) on rolled back transaction"):
            txn.get("a")
        storage.put("plain", 1)
        return "value"

    assert await storage.transaction(body) == "value"
    assert storage.list() == {"plain": 1}


async def test_a_handle_is_dead_after_its_transaction(storage: Storage) -> None:
    kept: list[Transaction] = []

    async def body(txn: Transaction) -> None:
        kept.append(txn)

    await storage.transaction(body)
    for call in (lambda t: t.put("a", 1), lambda t: t.rollback(), lambda t: t.list()):
        with pytest.raises(RuntimeError, match="already committed: did you move `txn` outside"):
            call(kept[0])


async def test_an_inner_rollback_keeps_the_outer_writes(storage: Storage) -> None:
    async def inner(txn: Transaction) -> None:
        txn.put("a", "inner")
        txn.put("inner", 1)
        raise ValueError

    async def outer(txn: Transaction) -> None:
        txn.put("a", "outer")
        with pytest.raises(ValueError):
            await storage.transaction(inner)
        with pytest.raises(ZeroDivisionError):
            storage.transaction_sync(lambda: storage.put("sync", 1) or 1 // 0)

    await storage.transaction(outer)
    assert storage.list() == {"a": "outer"}


async def test_an_outer_rollback_takes_the_inner_writes_along(storage: Storage) -> None:
    async def outer(txn: Transaction) -> None:
        storage.transaction_sync(lambda: storage.put("inner", 1))
        await storage.transaction(put_kept)
        assert storage.list() == {"inner": 1, "kept": 1}
        txn.rollback()

    async def put_kept(txn: Transaction) -> None:
        txn.put("kept", 1)

    await storage.transaction(outer)
    assert storage.list() == {}


async def test_delete_all_is_refused_inside(storage: Storage) -> None:
    storage.put("a", 1)

    async def body(txn: Transaction) -> None:
        for call in (txn.delete_all, storage.delete_all):
            with pytest.raises(RuntimeError, match=r"Cannot call delete_all\(\) within a transaction"):
                call()

    await storage.transaction(body)
    with pytest.raises(RuntimeError, match="within a transaction"):
        storage.transaction_sync(storage.delete_all)
    assert storage.list() == {"a": 1}


async def test_no_batch_is_taken_while_a_transaction_runs_and_its_writes_count_from_its_end(
    storage: Storage, gate: Gate
) -> None:
    async def body(txn: Transaction) -> None:
        txn.put("a", 1)
        assert storage.take_batch() is None
        assert storage.sequence == 0
        await storage.sync()
        assert gate.waits_for == []

    await storage.transaction(body)
    assert gate.waits_for == [1]
    assert storage.sequence == 1
    assert storage.take_batch() is not None


async def test_what_was_written_before_a_transaction_is_a_batch_of_its_own(storage: Storage, gate: Gate) -> None:
    storage.put("before", 1)

    async def body(txn: Transaction) -> None:
        await storage.sync()
        assert gate.durable == 1
        txn.put("inside", 1)

    await storage.transaction(body)
    batch = storage.take_batch()
    assert batch is not None
    assert set(batch.writes) == {b"inside"}


async def test_transaction_sync_joins_the_surrounding_batch(storage: Storage, gate: Gate) -> None:
    storage.put("before", 1)
    assert storage.transaction_sync(lambda: storage.put("inside", 1) or "value") == "value"
    assert set(gate.waits_for) == {1}
    storage.drop_open()
    assert storage.list() == {}


@pytest.mark.parametrize(
    "write",
    [
        lambda storage: storage.delete("k"),
        lambda storage: storage.delete_many(["k", "l"]),
        lambda storage: storage.put_many({}),
        lambda storage: storage.transaction_sync(lambda: None),
    ],
)
async def test_effects_wait_for_a_write_that_changes_nothing_like_for_any(storage: Storage, gate: Gate, write) -> None:
    write(storage)
    assert gate.waits_for == [1]
    batch = storage.take_batch()
    assert batch is not None
    assert not batch.writes


# The alarm.


async def test_an_alarm_that_is_set_to_its_own_time_is_no_write(storage: Storage, gate: Gate) -> None:
    storage.set_alarm(NOW + 10)
    await storage.sync()
    gate.waits_for.clear()
    storage.set_alarm(NOW + 10)
    assert gate.waits_for == []
    assert storage.take_batch() is None
    storage.set_alarm(NOW + 11)
    assert gate.waits_for == [2]


async def test_the_alarm_is_replaced_deleted_and_durable(storage: Storage, store: Store) -> None:
    assert storage.get_alarm() is None
    storage.set_alarm(NOW + 10)
    storage.set_alarm(NOW + 5)
    assert storage.get_alarm() == NOW + 5
    await storage.sync()
    assert storage.get_alarm() == NOW + 5
    assert store.alarms() == [(A, NOW + 5)]
    storage.delete_alarm()
    assert storage.get_alarm() is None
    await storage.sync()
    assert store.alarms() == []


async def test_a_past_alarm_means_now(storage: Storage) -> None:
    storage.set_alarm(1)
    assert storage.get_alarm() == NOW


@pytest.mark.parametrize("time_s", [0, -1.0, math.nan, math.inf])
async def test_an_impossible_alarm_time_is_refused(storage: Storage, time_s: float) -> None:
    with pytest.raises(TypeError, match="alarm time <= 0"):
        storage.set_alarm(time_s)


@pytest.mark.parametrize("time_s", ["5", True, None])
async def test_an_alarm_time_that_is_no_number_is_refused(storage: Storage, time_s: Any) -> None:
    with pytest.raises(TypeError, match="needs seconds since the Unix epoch"):
        storage.set_alarm(time_s)


async def test_without_a_handler_an_alarm_cannot_be_set(store: Store) -> None:
    storage, _ = open_storage(store, A, alarm=False)
    with pytest.raises(TypeError, match=r"must have an alarm\(\) handler"):
        storage.set_alarm(NOW + 1)
    storage.delete_alarm()
    assert storage.get_alarm() is None


async def test_deleting_no_alarm_writes_nothing(storage: Storage) -> None:
    storage.delete_alarm()
    assert storage.take_batch() is None


async def _ring(storage: Storage) -> None:
    storage.set_alarm(NOW + 1)
    await storage.sync()
    storage.begin_alarm()


async def test_while_the_handler_runs_there_is_no_alarm_and_it_goes_with_the_last_writes(storage: Storage) -> None:
    await _ring(storage)
    assert storage.get_alarm() is None
    storage.put("last", 1)
    storage.end_alarm(success=True)
    batch = storage.take_batch()
    assert batch is not None
    assert (set(batch.writes), batch.alarm) == ({b"last"}, None)


async def test_a_failed_handler_leaves_the_alarm(storage: Storage) -> None:
    await _ring(storage)
    storage.put("kept", 1)
    storage.end_alarm(success=False)
    batch = storage.take_batch()
    assert batch is not None
    assert batch.alarm is KEEP
    assert storage.get_alarm() == NOW + 1


async def test_an_alarm_set_in_the_handler_stays(storage: Storage) -> None:
    await _ring(storage)
    storage.set_alarm(NOW + 9)
    assert storage.get_alarm() == NOW + 9
    await storage.sync()
    storage.end_alarm(success=True)
    assert storage.get_alarm() == NOW + 9
    assert storage.take_batch() is None


@pytest.mark.parametrize("delete", [Storage.delete_alarm, Storage.delete_all])
async def test_an_alarm_is_deleted_also_while_its_handler_runs(
    storage: Storage, delete: Callable[[Storage], object]
) -> None:
    storage.set_alarm(NOW + 1)
    delete(storage)
    assert storage.get_alarm() is None
    await _ring(storage)
    delete(storage)
    storage.end_alarm(success=False)
    await storage.sync()
    assert storage.get_alarm() is None


async def test_an_alarm_set_in_a_rolled_back_part_of_the_handler_is_hidden_again(storage: Storage) -> None:
    await _ring(storage)

    def inner() -> None:
        storage.set_alarm(NOW + 9)
        raise KeyError

    with pytest.raises(KeyError):
        storage.transaction_sync(inner)
    assert storage.get_alarm() is None
    storage.end_alarm(success=True)
    assert storage.get_alarm() is None
    await storage.sync()
    assert storage.get_alarm() is None
