"""Timers that are due while their actor is busy: only one of them queues for the turn at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from runtime import Actor, App, Context, Namespace
from runtime.testing import start_server


class Busy(Actor["Env"]):
    """Is busy for ten seconds, and notes what runs afterwards."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self.log: list[str] = []

    async def read(self) -> list[str]:
        return self.log

    async def note(self, text: str) -> None:
        self.log.append(text)

    async def work(self) -> None:
        await self.ctx.block_concurrency_while(self._wait)
        self.log.append("worked")

    async def nap(self, seconds: float) -> None:
        await self.ctx.sleep(seconds)
        self.log.append(f"slept {seconds:g} s")

    async def work_with_timers(self, *delays: float) -> None:
        for delay in delays:
            self._set(delay)
        await self.work()

    async def change_their_mind(self) -> None:
        self._set(1)
        second = self.ctx.set_timeout(2, self.note, "timer of 2 s")
        self._set(3)
        self.ctx.set_timeout(1, self._cancel, second.cancel)
        await self.work()

    async def work_in_sections(self) -> None:
        """Both with timers that are due while the inner one runs."""

        async def outer() -> None:
            self._set(1, " of the section")
            self._set(2, " of the section")
            await self.ctx.block_concurrency_while(self._wait)
            self.log.append("section ends")

        self._set(3)
        await self.ctx.block_concurrency_while(outer)
        self.log.append("goes on")

    async def sections_one_after_another(self) -> None:
        async def first() -> None:
            self._set(1, " of the section")
            await self.ctx.block_concurrency_while(self._wait)

        await self.ctx.block_concurrency_while(first)
        await self.ctx.block_concurrency_while(lambda: self.note("second section"))

    async def timers_inside_and_outside(self) -> None:
        self._set(1)

        async def section() -> None:
            self._set(2, " of the section")
            self._set(3, " of the section")
            await self._wait()

        await self.ctx.block_concurrency_while(section)
        self.log.append("goes on")

    def _set(self, delay: float, whose: str = "") -> None:
        self.ctx.set_timeout(delay, self.note, f"timer of {delay:g} s{whose}")

    async def _cancel(self, cancel: Callable[[], None]) -> None:
        cancel()

    async def _wait(self) -> None:
        await self.ctx.sleep(10)


@attrs.frozen
class Env:
    actors: Namespace[Busy]


app = App(env=Env, routes={})


async def seen(*calls: Callable[[Busy], Awaitable[None]]) -> list[str]:
    """What runs, when an event comes five seconds after some calls."""
    async with start_server(app) as server, trio.open_nursery() as nursery:
        actor = server.env.actors.get_by_name("a")

        async def make(call: Callable[[Busy], Awaitable[None]]) -> None:
            await call(actor)

        for call in calls:
            nursery.start_soon(make, call)
            await trio.sleep(0.1)
        await trio.sleep(5)
        await actor.note("event")
        await trio.sleep(1)
        return await actor.read()


async def test_an_event_goes_before_all_late_timers_but_the_first(autojump_clock):
    log = await seen(lambda actor: actor.work_with_timers(1, 2, 3))
    assert log == ["worked", "timer of 1 s", "event", "timer of 2 s", "timer of 3 s"]


async def test_late_timers_keep_the_order_of_their_times(autojump_clock):
    log = await seen(lambda actor: actor.work_with_timers(3, -1, 1, 0, 2))
    assert log == [
        "worked", "timer of -1 s", "event", "timer of 0 s", "timer of 1 s", "timer of 2 s", "timer of 3 s"
    ]  # fmt: skip


async def test_a_late_sleep_is_one_of_them(autojump_clock):
    log = await seen(lambda actor: actor.nap(2), lambda actor: actor.work_with_timers(1, 3))
    assert log == ["worked", "timer of 1 s", "event", "slept 2 s", "timer of 3 s"]


async def test_a_late_timer_that_is_cancelled_holds_up_nobody(autojump_clock):
    log = await seen(lambda actor: actor.change_their_mind())
    assert log == ["worked", "timer of 1 s", "event", "timer of 3 s"]


async def test_a_timer_that_waits_for_a_section_does_not_hold_up_those_of_the_section(autojump_clock):
    log = await seen(lambda actor: actor.timers_inside_and_outside())
    assert log == [
        "timer of 2 s of the section", "timer of 3 s of the section", "goes on", "timer of 1 s", "event"
    ]  # fmt: skip


async def test_a_section_that_ends_hands_its_turn_to_the_first_that_waits_inside(autojump_clock):
    log = await seen(lambda actor: actor.work_in_sections())
    assert log == [
        "section ends", "goes on", "timer of 1 s of the section", "timer of 3 s", "event", "timer of 2 s of the section"
    ]  # fmt: skip


async def test_who_got_the_turn_of_a_section_goes_before_the_next_section(autojump_clock):
    log = await seen(lambda actor: actor.sections_one_after_another())
    assert log == ["timer of 1 s of the section", "second section", "event"]
