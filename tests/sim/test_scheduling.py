"""Trio repeats itself under the simulator; when a new version cannot, this is where it shows first."""

import gc
import hashlib
import random

import pytest
import trio
import trio._core._run as trio_run
import trio.testing

from runtime.sim.scheduling import Delaying, SchedulerUnknown, Shuffle, check_private_names, repeatable


def _order(seed, order):
    """Which of twenty tasks runs when, in a hash."""
    seen = hashlib.sha256()

    async def worker(name, lock, woken):
        for _ in range(5):
            await trio.lowlevel.checkpoint()
            async with lock:
                seen.update(f"{name} {random.getrandbits(32)}".encode())
                await trio.sleep(0.25)
        woken.set()

    async def main():
        lock, events = trio.Lock(), [trio.Event() for _ in range(20)]
        async with trio.open_nursery() as nursery:
            for at, event in enumerate(events):
                nursery.start_soon(worker, at, lock, event)
            for event in events:
                await event.wait()

    with repeatable(str(seed), order):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return seen.hexdigest()


def test_this_version_of_trio_has_the_private_names():
    check_private_names()


def test_a_version_of_trio_without_them_is_refused(monkeypatch):
    monkeypatch.delattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING")
    with pytest.raises(SchedulerUnknown, match="use the version that this release was tested with"):
        check_private_names()


def test_one_seed_gives_one_order_and_many_seeds_give_many():
    assert len({_order(1, Shuffle("1")) for _ in range(20)}) == 1
    assert len({_order(seed, Shuffle(str(seed))) for seed in range(20)}) == 20


def test_with_one_late_task_too():
    assert len({_order(1, Delaying("1")) for _ in range(20)}) == 1
    assert len({_order(seed, Delaying(str(seed))) for seed in range(20)}) == 20


def test_afterwards_everything_is_as_it_was():
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r, random.getstate()
    with repeatable("1", Shuffle("1")):
        assert random.getrandbits(64) != random.getrandbits(64)
    assert (trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r, random.getstate()) == before
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
