"""Random programs of storage calls against a dict, over both stores, with commits, aborts and power cuts anywhere."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from runtime.storage.storage import Storage
from runtime.storage.transaction import Transaction
from tests.storage.harness import NOW, Disk, Gate, actor, open_storage

A = actor("a")

keys = st.sampled_from(["", "\0", "a", "aa", "ab", "b", "é", "\uffff", "😀", "zz"])
maybe_key = st.none() | keys
values = st.integers(0, 99) | st.text(max_size=3)
bounds = st.fixed_dictionaries(
    {},
    optional={
        "end": maybe_key,
        "prefix": maybe_key,
        "reverse": st.booleans(),
        "limit": st.none() | st.integers(1, 4),
    },
).flatmap(
    lambda chosen: st.one_of(
        st.just(chosen),
        keys.map(lambda key: {**chosen, "start": key}),
        keys.map(lambda key: {**chosen, "start_after": key}),
    )
)
writes = st.one_of(
    st.tuples(st.just("put"), keys, values),
    st.tuples(st.just("put_many"), st.dictionaries(keys, values, max_size=3)),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("delete_many"), st.lists(keys, max_size=3)),
    st.tuples(st.just("set_alarm"), st.integers(1, 50)),
    st.tuples(st.just("delete_alarm")),
)
reads = st.one_of(st.tuples(st.just("get"), keys), st.tuples(st.just("list"), bounds))
plain = writes | reads
sections = st.recursive(
    plain,
    lambda inner: st.tuples(
        st.sampled_from(["transaction", "transaction_sync"]),
        st.lists(inner, max_size=5),
        st.sampled_from(["return", "raise", "rollback"]),
    ),
    max_leaves=8,
)
lives = st.sampled_from([("seal",), ("settle",), ("abort",), ("crash",), ("restart",), ("delete_all",)])
programs = st.lists(st.one_of(writes, writes, reads, sections, lives), max_size=25)


class Raised(Exception):
    """Ends a transaction."""


@attrs.define
class State:
    """What a dict says the storage holds."""

    values: dict[str, Any] = attrs.field(factory=dict)
    alarm: float | None = None


class Machine:
    """Does each step to the storage and to the model, and compares."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.now = State()
        self.sealed = State()
        self.durable = State()
        self.depth = 0
        self.storage: Storage
        self.gate: Gate

    async def run(self, program: list[tuple[Any, ...]]) -> None:
        """One boot after the other until the program ends."""
        steps = iter([*program, ("settle",), ("list", {}), ("restart",), ("list", {})])
        more = True
        while more:
            async with self.disk.running() as store:
                self.storage, self.gate = open_storage(store, A)
                more = await self._boot(steps)

    async def _boot(self, steps: Any) -> bool:
        for step in steps:
            match step:
                case ("crash",):
                    self.disk.crash()
                    self.now = copy.deepcopy(self.durable)
                    self.sealed = copy.deepcopy(self.durable)
                    return True
                case ("restart",):
                    self.gate.seal()
                    self.durable = copy.deepcopy(self.now)
                    self.sealed = copy.deepcopy(self.now)
                    return True
                case ("abort",):
                    self.storage.drop_open()
                    self.now = copy.deepcopy(self.sealed)
                case ("seal",):
                    self.gate.seal()
                    self.sealed = copy.deepcopy(self.now)
                case ("settle",):
                    await self.storage.sync()
                    self.sealed = copy.deepcopy(self.now)
                    self.durable = copy.deepcopy(self.now)
                case ("delete_all",):
                    self.storage.delete_all()
                    self.now = State()
                case _:
                    await self._step(step)
            if step[0] in {"crash", "restart", "settle"}:
                self.sealed = copy.deepcopy(self.now)
            self._compare()
        return False

    async def _step(self, step: tuple[Any, ...]) -> None:
        if step[0] == "transaction":
            await self._transaction(step[1], step[2])
        elif step[0] == "transaction_sync":
            self._transaction_sync(step[1], step[2])
        else:
            self._plain(step)

    async def _transaction(self, steps: list[tuple[Any, ...]], end: str) -> None:
        self.gate.seal()
        if self.depth == 0:
            self.sealed = copy.deepcopy(self.now)
        before = copy.deepcopy(self.now)

        async def body(txn: Transaction) -> str:
            self.depth += 1
            for step in steps:
                await self._step(step)
            if end == "raise":
                raise Raised
            if end == "rollback":
                txn.rollback()
            return "value"

        if end == "raise":
            with pytest.raises(Raised):
                await self.storage.transaction(body)
        else:
            assert await self.storage.transaction(body) == "value"
        self.depth -= 1
        if end != "return":
            self.now = before

    def _transaction_sync(self, steps: list[tuple[Any, ...]], end: str) -> None:
        before = copy.deepcopy(self.now)

        def body() -> None:
            for step in steps:
                if step[0] == "transaction_sync":
                    self._transaction_sync(step[1], step[2])
                elif step[0] != "transaction":
                    self._plain(step)
            if end != "return":
                raise Raised

        if end == "return":
            self.storage.transaction_sync(body)
        else:
            with pytest.raises(Raised):
                self.storage.transaction_sync(body)
            self.now = before

    def _plain(self, step: tuple[Any, ...]) -> None:
        name, *arguments = step
        expected = getattr(self, f"_model_{name}")(*arguments)
        if name == "list":
            got: Any = list(self.storage.list(**arguments[0]).items())
        elif name == "set_alarm":
            got = self.storage.set_alarm(NOW + arguments[0])
        else:
            call: Callable[..., Any] = getattr(self.storage, name)
            got = call(*arguments)
        assert got == expected, step

    def _model_get(self, key: str) -> Any:
        return self.now.values.get(key)

    def _model_put(self, key: str, value: Any) -> None:
        self.now.values[key] = value

    def _model_put_many(self, entries: dict[str, Any]) -> None:
        self.now.values.update(entries)

    def _model_delete(self, key: str) -> bool:
        return self.now.values.pop(key, None) is not None

    def _model_delete_many(self, names: list[str]) -> int:
        return sum(self._model_delete(key) for key in names)

    def _model_set_alarm(self, seconds: int) -> None:
        self.now.alarm = NOW + seconds

    def _model_delete_alarm(self) -> None:
        self.now.alarm = None

    def _model_list(self, options: dict[str, Any]) -> list[tuple[str, Any]]:
        def order(key: str) -> bytes:
            return key.encode()

        found = sorted(self.now.values.items(), key=lambda pair: order(pair[0]))
        if options.get("start") is not None:
            found = [pair for pair in found if order(pair[0]) >= order(options["start"])]
        if options.get("start_after") is not None:
            found = [pair for pair in found if order(pair[0]) > order(options["start_after"])]
        if options.get("end") is not None:
            found = [pair for pair in found if order(pair[0]) < order(options["end"])]
        if options.get("prefix") is not None:
            found = [pair for pair in found if pair[0].startswith(options["prefix"])]
        if options.get("reverse"):
            found.reverse()
        return found[: options.get("limit")]

    def _compare(self) -> None:
        assert dict(self.storage.list()) == self.now.values
        assert self.storage.get_alarm() == self.now.alarm


@pytest.mark.parametrize("kind", ["memory", "shared"])
@given(program=programs)
def test_storage_behaves_as_a_dict_that_survives_exactly_what_was_durable(
    kind: str, program: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(Machine(Disk(kind, Path(folder))).run, program)
