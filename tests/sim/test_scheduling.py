"""Trio repeats itself under the simulator; when a new version cannot, this is where it shows first."""

import gc
import hashlib
import random

import pytest
import trio
import trio._core._run as trio_run
import trio.testing

from runtime.sim.scheduling import ORDERS, SchedulerUnknown, Shuffle, check_private_names, drawn_order, repeatable


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


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_one_seed_gives_one_order_and_many_seeds_give_many(order):
    assert len({_order(1, order("1")) for _ in range(20)}) == 1
    assert len({_order(seed, order(str(seed))) for seed in range(20)}) == 20


def _late(seed, order):
    """Whether a task that is ready was passed by another one forty times, which a mistake may need."""
    steps = 0
    passed = []

    async def ahead():
        nonlocal steps
        for _ in range(60):
            steps += 1
            await trio.lowlevel.checkpoint()

    async def behind():
        passed.append(steps)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(behind)
            nursery.start_soon(ahead)

    with repeatable(str(seed), order):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return passed[0] >= 40


def test_priorities_find_what_needs_a_task_to_be_late_for_long_and_shuffling_does_not():
    assert not any(_late(seed, ORDERS["shuffle"](str(seed))) for seed in range(100))
    assert any(_late(seed, ORDERS["pct"](str(seed))) for seed in range(10))


def test_a_task_that_never_waits_starves_nobody_for_ever():
    async def main():
        done = trio.Event()

        async def busy():
            while not done.is_set():
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(busy)
            nursery.start_soon(busy)
            await trio.lowlevel.checkpoint()
            done.set()

    for seed in range(10):
        with repeatable(str(seed), ORDERS["pct"](str(seed))):
            trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_seed_draws_its_strategy():
    drawn = [drawn_order(seed) for seed in range(100)]
    assert set(drawn) == set(ORDERS)
    assert drawn.count("shuffle") > 35


def test_afterwards_everything_is_as_it_was():
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r, random.getstate()
    with repeatable("1", Shuffle("1")):
        assert random.getrandbits(64) != random.getrandbits(64)
    assert (trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r, random.getstate()) == before
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
