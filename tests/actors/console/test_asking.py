"""Asking an actor again only once something has run in it."""

from __future__ import annotations

import attrs
import pytest
import trio

from actors.console.asking import Asking
from runtime import Actor, App, Namespace, Operator
from runtime.testing import start_server


class Lamp(Actor["Env"]):
    """Is on or off."""

    on = False
    asked = 0

    async def status(self):
        self.asked += 1
        return self.on

    async def switch(self, after_s=0.0):
        await self.ctx.sleep(after_s)
        self.on = not self.on

    async def times(self):
        return self.asked


@attrs.frozen
class Env:
    lamps: Namespace[Lamp]
    operator: Operator


app = App(env=Env, routes={})


@pytest.fixture
def lamp_of():
    def found(server):
        lamp = server.env.lamps.get_by_name("one")
        asking = Asking(server.env.operator, "status")
        return lamp, lambda: asking.answer("lamps", "one", lamp.status)

    return found


async def test_what_rests_is_asked_once_and_leaves_memory(autojump_clock, lamp_of):
    async with start_server(app) as server:
        lamp, ask = lamp_of(server)
        assert await ask() is False  # not in memory before
        for _ in range(8):
            assert await ask() is False
            await trio.sleep(1)
        assert await lamp.times() == 2
        for _ in range(20):
            await ask()
            await trio.sleep(1)
        assert server.live_actors == 0


async def test_what_has_run_is_asked_again(autojump_clock, lamp_of):
    async with start_server(app) as server:
        lamp, ask = lamp_of(server)
        for expected in (False, True, False):
            assert await ask() is expected
            assert await ask() is expected
            await lamp.switch()
            await trio.sleep(1)


async def test_what_changes_while_it_is_asked_is_seen_the_next_time(autojump_clock, lamp_of):
    async with start_server(app) as server:
        lamp, ask = lamp_of(server)

        async def switch(after_s):
            await lamp.switch(after_s)

        for after_s in (0.0, 0.5):
            before = await ask()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(switch, after_s)
                nursery.start_soon(ask)
            await trio.sleep(1)
            assert await ask() is not before
