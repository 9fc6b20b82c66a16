"""The memory store loses and fails on demand."""

from __future__ import annotations

from typing import Any

import trio

from runtime.errors import StorageFailed
from runtime.storage.memory import MemoryStore
from tests.storage.harness import actor, batch, commit

A, B = actor("a"), actor("b")


async def test_a_commit_takes_its_delay(autojump_clock: Any) -> None:
    store = MemoryStore(delay=2.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        started = trio.current_time()
        await commit(store, batch(A, 1, {b"k": b"v"}))
        assert trio.current_time() == started + 2.0
        nursery.cancel_scope.cancel()


async def test_a_crash_during_a_commit_loses_it_and_everything_after_without_a_word(autojump_clock: Any) -> None:
    store, outcomes = MemoryStore(delay=2.0), list[Exception | None]()
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        store.submit(batch(A, 1, {b"k": b"1"}), outcomes.append)
        await trio.sleep(1)
        store.submit(batch(A, 2, {b"k": b"2"}), outcomes.append)
        store.crash()
        await nursery.start(store.run)
        await commit(store, batch(B, 1, {b"k": b"b"}))
        nursery.cancel_scope.cancel()
    assert outcomes == []
    assert store.open(A).get(b"k") is None
    assert store.open(B).get(b"k") == b"b"


async def test_a_failed_commit_takes_the_whole_group_and_what_was_built_on_it(autojump_clock: Any) -> None:
    store, outcomes = MemoryStore(delay=1.0), list[Exception | None]()
    failure = StorageFailed("no")
    store.fail_next(failure)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        store.submit(batch(A, 1, {b"k": b"1"}), outcomes.append)
        store.submit(batch(B, 1, {b"k": b"1"}), outcomes.append)
        await trio.sleep(0.5)
        store.submit(batch(A, 2, {b"k": b"2"}), outcomes.append)
        assert await commit(store, batch(actor("c"), 1, {b"k": b"1"})) == [None]
        nursery.cancel_scope.cancel()
    assert outcomes == [failure, failure, failure]
    assert store.open(A).get(b"k") is None


async def test_a_failure_of_one_actor_leaves_the_others_alone() -> None:
    store, failure = MemoryStore(), StorageFailed("no")
    store.fail_next(failure, actor=A)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        assert await commit(store, batch(B, 1, {b"k": b"b"})) == [None]
        assert await commit(store, batch(A, 1, {b"k": b"1"}), batch(B, 2, {b"k": b"c"})) == [failure, None]
        nursery.cancel_scope.cancel()
