"""Random programs of keys, tables, alarm and transactions over one SQL object, with aborts and power cuts."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from runtime import Actor, ActorError, App, Namespace, SqlError
from runtime.testing import start_server

keys = st.sampled_from(["", "a", "ab", "b", "é", "😀"])
numbers = st.integers(0, 9)
writes = st.one_of(
    st.tuples(st.just("put"), keys, numbers),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("insert"), numbers),
    st.tuples(st.just("remove"), numbers),
    st.tuples(st.just("set_alarm"), st.integers(1000, 2000)),
    st.tuples(st.just("delete_alarm")),
    st.tuples(st.just("duplicate"), numbers),
)
steps = st.recursive(
    writes,
    lambda inner: st.tuples(
        st.sampled_from(["transaction", "transaction_sync"]),
        st.lists(inner, max_size=4),
        st.sampled_from(["return", "raise", "rollback"]),
    ),
    max_leaves=6,
)
waits = st.tuples(st.just("wait"))
events = st.tuples(
    st.just("event"),
    st.lists(st.one_of(steps, steps, waits, st.tuples(st.just("delete_all"))), max_size=6),
    st.sampled_from(["return", "return", "raise", "abort"]),
)
lives = st.sampled_from([("evict",), ("crash",), ("restart",), ("slow",), ("fast",)])
programs = st.lists(st.one_of(events, events, lives), max_size=7)


@attrs.define
class State:
    """What the object should hold."""

    values: dict[str, int] = attrs.field(factory=dict)
    rows: list[int] = attrs.field(factory=list)
    alarm: int | None = None


class Raised(Exception):
    """Ends a transaction or an event."""


class Store(Actor["Env"]):
    """Does what a program says, and keeps a model beside it."""

    storage = "sql"

    async def run(self, program: list[Any], end: str, model: State) -> tuple[str, Any]:
        self.model, self.sealed = model, copy.deepcopy(model)
        self.sql.exec("CREATE TABLE IF NOT EXISTS t (x PRIMARY KEY)")
        for step in program:
            await self.step(step)
            self.compare()
        if end == "raise":
            return "raised", self.model
        return end, self.model

    @property
    def sql(self) -> Any:
        return self.ctx.storage.sql

    async def step(self, step: Any) -> None:
        if step[0] == "wait":
            await self.ctx.sleep(0.01)
        elif step[0] == "transaction":
            await self.transaction(step[1], step[2])
        else:
            self.now(step)

    async def transaction(self, program: list[Any], end: str) -> None:
        before = copy.deepcopy(self.model)

        async def body(txn: Any) -> None:
            for step in program:
                await self.step(step)
            if end == "raise":
                raise Raised
            if end == "rollback":
                txn.rollback()

        with contextlib.suppress(Raised):
            await self.ctx.storage.transaction(body)
        if end != "return":
            self.model = before
        self.compare()

    def now(self, step: Any) -> None:
        storage, model = self.ctx.storage, self.model
        match step:
            case ("put", key, value):
                storage.put(key, value)
                model.values[key] = value
            case ("delete", key):
                assert storage.delete(key) == (model.values.pop(key, None) is not None)
            case ("insert", number):
                if number not in model.rows:
                    self.sql.exec("INSERT INTO t VALUES (?)", number)
                    model.rows.append(number)
            case ("duplicate", number):
                if number in model.rows:
                    with pytest.raises(SqlError, match="UNIQUE"):
                        self.sql.exec("INSERT INTO t SELECT x + 100 FROM t UNION ALL SELECT ?", number)
            case ("remove", number):
                left = [row for row in model.rows if row != number]
                assert self.sql.exec("DELETE FROM t WHERE x = ?", number).rows_written == len(model.rows) - len(left)
                model.rows[:] = left
            case ("set_alarm", seconds):
                storage.set_alarm(self.env_time() + seconds)
                model.alarm = seconds
            case ("delete_alarm",):
                storage.delete_alarm()
                model.alarm = None
            case ("delete_all",):
                storage.delete_all()
                self.model = State()
                self.sql.exec("CREATE TABLE t (x PRIMARY KEY)")
            case ("transaction_sync", program, end):
                self.transaction_now(program, end)

    def transaction_now(self, program: list[Any], end: str) -> None:
        before = copy.deepcopy(self.model)

        def body() -> None:
            for step in program:
                if step[0] != "transaction":
                    self.now(step)
            if end != "return":
                raise Raised

        try:
            self.ctx.storage.transaction_sync(body)
        except Raised:
            self.model = before

    def env_time(self) -> float:
        return 2_000_000_000.0

    def seen(self) -> State:
        storage = self.ctx.storage
        alarm = storage.get_alarm()
        tables = self.sql.exec("PRAGMA table_list(t)").to_array()
        return State(
            dict(storage.list()),
            [x for (x,) in self.sql.exec("SELECT x FROM t ORDER BY rowid").raw()] if tables else [],
            None if alarm is None else round(alarm - self.env_time()),
        )

    def compare(self) -> None:
        seen = self.seen()
        assert (seen.values, sorted(seen.rows), seen.alarm) == (
            self.model.values,
            sorted(self.model.rows),
            self.model.alarm,
        )

    async def look(self) -> State:
        return self.seen()

    async def alarm(self, info: Any) -> None:
        raise AssertionError("it is due long after the test")


class Aborting(Store):
    """Loses what it wrote since its last wait."""

    storage = "sql"

    async def run_and_abort(self, program: list[Any], model: State) -> None:
        await self.run(program, "abort", model)
        self.ctx.abort("stop")


@attrs.frozen
class Env:
    stores: Namespace[Aborting]


APP = App(env=Env, routes={})


def same(a: State, b: State) -> bool:
    return (a.values, sorted(a.rows), a.alarm) == (b.values, sorted(b.rows), b.alarm)


async def machine(program: list[Any]) -> None:
    async with start_server(APP) as server:
        model = State()

        def stub() -> Any:
            return server.env.stores.get_by_name("a")

        for step in [*program, ("crash",)]:
            match step:
                case ("event", body, "abort"):
                    waited = any(part[0] in {"wait", "transaction"} for part in body)
                    with pytest.raises(ActorError, match="stop"):
                        await stub().run_and_abort(body, model)
                    seen = await stub().look()
                    assert waited or same(seen, model)
                    model = seen
                case ("event", body, end):
                    _, model = await stub().run(body, end, model)
                case ("evict",):
                    if server.live_actors:
                        await server.evict(stub())
                case ("crash",):
                    await server.crash()
                    await server.start()
                case ("restart",):
                    await server.restart()
                case ("slow",):
                    server.disk._delay = lambda: 0.5
                case ("fast",):
                    server.disk._delay = lambda: 0.0
            assert same(await stub().look(), model)
            due = {actor.name: round(time - 2_000_000_000) for actor, time in server.store.alarms()}
            assert due == ({} if model.alarm is None else {"a": model.alarm})


@given(program=programs)
def test_an_object_is_its_model_through_everything(program: list[Any]) -> None:
    trio.run(machine, program, clock=trio.testing.MockClock(autojump_threshold=0))
