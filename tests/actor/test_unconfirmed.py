"""`allow_unconfirmed`: effects do not wait for such a write, and its failure ends the instance all the same."""

from __future__ import annotations

import attrs
import pytest
import trio

from runtime import Actor, App, Namespace, StorageFailed
from runtime.storage.memory import MemoryStore
from runtime.testing import start_server

COMMIT_S = 0.5


class Ledger(Actor["Env"]):
    """Writes in both ways."""

    async def note(self, value: int, *, unconfirmed: bool) -> int:
        self.ctx.storage.put("value", value, allow_unconfirmed=unconfirmed)
        return value

    async def note_and_wait(self, value: int) -> int:
        self.ctx.storage.put("value", value, allow_unconfirmed=True)
        await self.ctx.sleep(10 * COMMIT_S)
        return value

    async def read(self) -> int | None:
        return self.ctx.storage.get("value", int)


@attrs.frozen
class Env:
    ledgers: Namespace[Ledger]


app = App(env=Env, routes={})


def slow_store() -> MemoryStore:
    return MemoryStore(delay=COMMIT_S)


async def test_an_answer_waits_for_a_write_but_not_for_an_unconfirmed_one(autojump_clock):
    async with start_server(app, store=slow_store()) as server:
        ledger = server.env.ledgers.get_by_name("a")
        begun = trio.current_time()
        assert await ledger.note(1, unconfirmed=True) == 1
        assert trio.current_time() == begun
        await trio.sleep(2 * COMMIT_S)
        begun = trio.current_time()
        assert await ledger.note(2, unconfirmed=False) == 2
        assert trio.current_time() >= begun + COMMIT_S


async def test_an_answer_after_a_confirmed_write_waits_for_an_unconfirmed_one_in_its_batch_too(autojump_clock):
    async with start_server(app, store=slow_store()) as server:
        ledger = server.env.ledgers.get_by_name("a")
        first = ledger.note(1, unconfirmed=False)
        assert await ledger.note(2, unconfirmed=True) == 2
        assert await first == 1


async def test_an_unconfirmed_write_that_fails_takes_the_instance_and_who_waits_along(autojump_clock):
    async with start_server(app, store=slow_store()) as server:
        ledger = server.env.ledgers.get_by_name("a")
        await ledger.note(1, unconfirmed=False)
        server.store.fail_next(StorageFailed("disk gone"))
        with pytest.raises(StorageFailed, match="disk gone"):
            await ledger.note_and_wait(2)
        assert await server.env.ledgers.get_by_name("a").read() == 1


async def test_an_answer_that_left_before_an_unconfirmed_write_failed_was_a_promise_of_nothing(autojump_clock):
    async with start_server(app, store=slow_store()) as server:
        server.store.fail_next(StorageFailed("disk gone"))
        assert await server.env.ledgers.get_by_name("a").note(1, unconfirmed=True) == 1
        await trio.sleep(2 * COMMIT_S)
        assert await server.env.ledgers.get_by_name("a").read() is None
