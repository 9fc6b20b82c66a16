"""Blocking calls in threads, and the shortest way back to the task that waits for one.

A task that sleeps is woken through a socket, two turns of the loop and, where the processor has gone to sleep too, an
interrupt; together that takes as long as a good disk needs for a sync. So the loop can stay awake for a short call and
look for its end. It does so for one call at a time, no longer than such calls have taken, only where they are short and
that is quicker, and not while it has anything else to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import attrs
import trio

THREADS = 40  # at once, as trio's own limit
LOOK_S = 0.0003  # for the end of a call, at most
GLANCE_S = 0.00002  # of that between two turns of the loop
BUSY_S = 0.00004  # a turn that takes longer has had something to do
_OF_LAST = 1 / 8  # how much the last call counts in how long they take
_TRIED = 32  # calls, of which one is waited for in the way that has been slower


class Look:
    """Whether to stay awake for a call: while that has been quicker than to sleep, which is seen by trying.

    Where all cores have something to do it is slower: whoever looks takes the time in which the disk would be served.
    """

    __slots__ = ("_awake_s", "_calls", "_slept_s")

    def __init__(self) -> None:
        self._awake_s, self._slept_s = LOOK_S / 4, LOOK_S / 2
        self._calls = 0

    @property
    def longest_s(self) -> float:
        """How long to look for the end of a call."""
        return min(2 * self._awake_s, LOOK_S)

    def pays(self) -> bool:
        """Whether to stay awake for the next call."""
        self._calls += 1
        quicker = self._awake_s <= self._slept_s
        short = min(self._awake_s, self._slept_s) <= LOOK_S
        return short and quicker is not (self._calls % _TRIED == 0)

    def took(self, seconds: float, *, awake: bool) -> None:
        """A call was waited for, awake or not, and so long."""
        if awake:
            self._awake_s += (min(seconds, 8 * LOOK_S) - self._awake_s) * _OF_LAST
        else:
            self._slept_s += (min(seconds, 8 * LOOK_S) - self._slept_s) * _OF_LAST


class Threads:
    """Runs blocking calls in threads, at most `THREADS` at once beside those that are short."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(THREADS)
        self._look = Look()
        self._looking = False

    async def run(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """Run `fn(*args)`. Nothing stops it: a task that is cancelled meanwhile waits for the end.

        As `trio.to_thread.run_sync`, which gives the loop a turn before it starts.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        task = trio.lowlevel.current_task()
        try:
            self._limiter.acquire_on_behalf_of_nowait(task)
        except trio.WouldBlock:
            await self._limiter.acquire_on_behalf_of(task)
        try:
            call = _Call(partial(fn, *args))
            await call.sleep()
            return call.result.unwrap()
        finally:
            self._limiter.release_on_behalf_of(task)

    def begin(self, fn: Callable[..., Any], /, *args: Any) -> ShortCall:
        """Begin with `fn(*args)`, which is short as a rule, and waited for: its end is looked for.

        Whoever begins calls bounds how many there are at once.
        """
        call = _Call(partial(fn, *args))
        os.sched_yield()  # what it waits for begins before the loop goes on: of two on one core only one runs
        return ShortCall(self, call)

    async def end(self, call: _Call) -> None:
        """Wait until a short call has ended; no checkpoint if it has."""
        if call.result is not None:
            return
        if self._looking:
            await call.sleep()
            return
        look = self._look
        awake = look.pays()
        if awake:
            self._looking = True
            try:
                await _look(call, call.begun_s + look.longest_s)
            finally:
                self._looking = False
        await call.sleep()
        look.took(perf_counter() - call.begun_s, awake=awake)


@attrs.frozen
class ShortCall:
    """A short call in a thread. It needs nobody to wait for it."""

    _threads: Threads
    _call: _Call

    async def end(self) -> Any:
        """Wait for the end, and return its value; for one task. Nothing stops it."""
        await self._threads.end(self._call)
        return self._call.result.unwrap()


async def _look(call: _Call, until: float) -> None:
    """Return when the call has ended, when it takes long, or when the loop has something else to do."""
    now = perf_counter()
    while True:
        turn = now
        while call.result is None and now - turn < GLANCE_S:
            os.sched_yield()  # lets go of the interpreter, too
            now = perf_counter()
        if call.result is not None or now > until:
            return
        turn = now
        await trio.lowlevel.cancel_shielded_checkpoint()
        now = perf_counter()
        if now - turn > BUSY_S:
            return


class _Call:
    """A call in a thread, and the task that waits for it.

    Attributes:
        result: an `outcome.Outcome`, once it has ended. begun_s: when it began.
    """

    __slots__ = ("_asleep", "_task", "_token", "begun_s", "result")

    def __init__(self, fn: Callable[[], Any]) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._asleep = False
        self.begun_s = perf_counter()
        self.result: Any = None
        try:
            trio.lowlevel.start_thread_soon(fn, self._ended)
        except RuntimeError as error:  # the system has no thread left
            self.result = _NotBegun(error)

    def _ended(self, result: Any) -> None:
        """In the thread: it has."""
        self.result = result
        if self._asleep:  # else the task looks at the result before it sleeps
            self._token.run_sync_soon(self._wake)

    async def sleep(self) -> None:
        """Until it has ended; no checkpoint if it has."""
        self._task = trio.lowlevel.current_task()
        self._asleep = True
        if self.result is None:
            await trio.lowlevel.wait_task_rescheduled(_sleep_on)
        self._asleep = False

    def _wake(self) -> None:
        if self._asleep and self._task is not None:
            trio.lowlevel.reschedule(self._task)


@attrs.frozen
class _NotBegun:
    """How a call ends for which there was no thread."""

    _error: RuntimeError

    def unwrap(self) -> Any:
        raise self._error


def _sleep_on(_: trio.lowlevel.RaiseCancelT, /) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED  # nothing stops a thread
