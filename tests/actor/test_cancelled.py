"""A node that is cancelled from outside ends in order, whatever its handlers wait for."""

from __future__ import annotations

import attrs
import pytest
import structlog
import trio

from runtime import Actor, App, Namespace
from runtime.node import open_node
from runtime.storage.memory import MemoryStore
from runtime.testing import virtual_platform


class Waiting(Actor["Env"]):
    """Waits in each way there is."""

    async def sleep(self) -> None:
        self.ctx.storage.put("slept", True)
        await self.ctx.sleep(1_000)

    async def call(self) -> None:
        self.ctx.storage.put("called", True)
        await self.env.waiting.get_by_name("other").sleep()

    async def outside(self) -> None:
        self.ctx.storage.put("outside", True)
        await self.ctx.outside(trio.sleep_forever)

    async def hold(self) -> None:
        self.ctx.storage.put("held", True)
        await trio.sleep_forever()

    async def stored(self) -> list[str]:
        return list(self.ctx.storage.list())


@attrs.frozen
class Env:
    waiting: Namespace[Waiting]


app = App(env=Env, routes={})


def running(store, objects=None):
    log = structlog.get_logger("test")
    return open_node(app, settings=app.settings(), store=store, platform=virtual_platform(), log=log, objects=objects)


async def ask(node, method):
    await getattr(node.env.waiting.get_by_name("w"), method)()


@pytest.mark.parametrize("methods", [["sleep"], ["call"], ["outside"], ["hold"], ["sleep", "call", "outside", "hold"]])
async def test_a_node_that_is_cancelled_ends_whatever_its_handlers_wait_for(autojump_clock, methods):
    with trio.fail_after(10):
        with trio.move_on_after(1) as scope:
            async with running(MemoryStore()) as node, trio.open_nursery() as callers:
                for method in methods:
                    callers.start_soon(ask, node, method)
    assert scope.cancelled_caught


async def test_what_was_sealed_before_the_cancellation_is_committed(autojump_clock):
    store = MemoryStore()
    with trio.move_on_after(0.5):
        async with running(store) as node:
            await node.env.waiting.get_by_name("w").sleep()
    async with running(store) as node:
        assert await node.env.waiting.get_by_name("w").stored() == ["slept"]


async def test_a_node_that_is_cancelled_while_it_starts_ends_whenever_that_is(autojump_clock, tmp_path):
    async def cancel_after(steps, scope):
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    for steps in range(60):
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    nursery.start_soon(cancel_after, steps, scope)
                    async with running(MemoryStore(), tmp_path / str(steps)):
                        await trio.sleep_forever()
                assert scope.cancelled_caught
