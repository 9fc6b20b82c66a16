"""Blocking calls in threads. Real ones: what they wait for is an event, never a time."""

from __future__ import annotations

import threading  # noqa: TID251 -- what is tested

import pytest
import trio

from runtime.threads import LOOK_S, THREADS, Look, Threads


@pytest.fixture(params=["run", "begin"])
def run(request):
    threads = Threads()

    async def begin(fn, *args):
        await trio.lowlevel.checkpoint_if_cancelled()
        return await threads.begin(fn, *args).end()

    return threads.run if request.param == "run" else begin


async def test_a_call_gives_its_value_or_its_error(run):
    assert await run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await run(divmod, 7, 0)


async def test_the_loop_goes_on_while_a_call_takes_long(run):
    released = threading.Event()

    async def release():
        released.set()

    async with trio.open_nursery() as nursery:
        for _ in range(20):  # the first ones may be looked for, those after a long one are not
            released.clear()
            nursery.start_soon(release)
            assert await run(released.wait, 60)


async def test_more_calls_than_threads_all_come_to_an_end(run):
    ended = []

    async def call(number):
        ended.append(await run(abs, -number))

    async with trio.open_nursery() as nursery:
        for number in range(3 * THREADS):
            nursery.start_soon(call, number)
    assert sorted(ended) == list(range(3 * THREADS))


async def test_a_cancelled_caller_waits_for_the_end_of_its_call(run):
    released, ended = threading.Event(), []

    def block():
        ended.append(released.wait(60))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, block)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()
        assert ended == []
        released.set()
    assert ended == [True]


async def test_a_call_of_a_cancelled_caller_is_not_begun(run):
    begun = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await run(begun.append, 1)
    assert begun == []


def waited(look, awake_s, slept_s, calls=1_000):
    """How many of the last hundred of so many calls the loop stays awake for when each way takes so long."""
    times = 0
    for number in range(calls):
        awake = look.pays()
        times += awake and number >= calls - 100
        look.took(awake_s if awake else slept_s, awake=awake)
    return times


def test_the_loop_stays_awake_for_a_call_while_that_is_quicker():
    look = Look()
    assert waited(look, awake_s=0.5 * LOOK_S, slept_s=0.8 * LOOK_S) > 90
    assert waited(look, awake_s=0.9 * LOOK_S, slept_s=0.6 * LOOK_S) < 10, "something else needs its core now"
    assert waited(look, awake_s=0.5 * LOOK_S, slept_s=0.8 * LOOK_S) > 90, "and now it does not"


def test_the_loop_sleeps_while_calls_take_long():
    look = Look()
    assert waited(look, awake_s=20 * LOOK_S, slept_s=20 * LOOK_S) == 0
    assert waited(look, awake_s=0.5 * LOOK_S, slept_s=0.8 * LOOK_S) > 90
    assert look.longest_s <= LOOK_S


def test_one_call_that_takes_long_does_not_decide():
    look = Look()
    waited(look, awake_s=0.2 * LOOK_S, slept_s=0.8 * LOOK_S)
    look.took(1_000 * LOOK_S, awake=True)
    assert waited(look, awake_s=0.2 * LOOK_S, slept_s=0.8 * LOOK_S, calls=300) > 90
