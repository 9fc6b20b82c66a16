"""`durable(State)`: a default until assigned, one batch with the rest, upgraded or refused, never stale."""

from __future__ import annotations

import attrs
import pytest

from runtime import codec
from runtime.storage.durable import StateVersionError, durable
from runtime.storage.storage import Storage
from runtime.storage.store import Store
from runtime.storage.transaction import Transaction
from tests.storage.harness import Gate, actor, open_storage

A = actor("a")


@attrs.frozen
class Counter:
    count: int = 0
    names: tuple[str, ...] = ()


@attrs.frozen
class Ctx:
    storage: Storage


@attrs.define(eq=False)
class Room:
    ctx: Ctx
    state = durable(Counter)


def room(store: Store) -> tuple[Room, Gate]:
    storage, gate = open_storage(store, A)
    return Room(Ctx(storage)), gate


async def test_a_state_that_was_never_assigned_is_its_default_and_stores_nothing(store: Store) -> None:
    it, gate = room(store)
    assert it.state == Counter()
    assert gate.storage.take_batch() is None


async def test_an_assigned_state_is_there_for_the_next_instance(store: Store) -> None:
    it, gate = room(store)
    value = Counter(2, ("x",))
    it.state = value
    it.ctx.storage.put("other", 1)
    assert it.state is value
    batch = gate.storage.take_batch()
    assert batch is not None
    assert set(batch.writes) == {b"_durable/state", b"other"}
    gate.store.submit(batch, lambda _: None)
    it, gate = room(store)
    assert it.state == Counter()
    await gate.storage.sync()
    it.ctx.storage.put("wait", 1)
    await it.ctx.storage.sync()
    it, _ = room(store)
    assert it.state == value
    assert it.state is it.state


async def test_a_rolled_back_assignment_is_gone(store: Store) -> None:
    it, _ = room(store)
    it.state = Counter(1)

    def inner() -> None:
        it.state = Counter(2)
        assert it.state == Counter(2)
        raise KeyError

    with pytest.raises(KeyError):
        it.ctx.storage.transaction_sync(inner)
    assert it.state == Counter(1)

    async def body(txn: Transaction) -> None:
        it.state = Counter(3)
        txn.rollback()
        assert it.state == Counter(1)

    await it.ctx.storage.transaction(body)
    assert it.state == Counter(1)


async def test_delete_all_and_plain_writes_are_seen(store: Store) -> None:
    it, _ = room(store)
    it.state = Counter(1)
    it.ctx.storage.put("_durable/state", [1, {"count": 9}])
    assert it.state == Counter(9)
    it.ctx.storage.delete_all()
    assert it.state == Counter()


async def test_older_states_are_upgraded_through_every_step(store: Store) -> None:
    it, _ = room(store)
    it.ctx.storage.put("_durable/state", [1, {"n": 4}])

    @attrs.define(eq=False)
    class Newer:
        ctx: Ctx
        state = durable(
            Counter,
            version=3,
            upgrades={1: lambda old: {"count": old["n"]}, 2: lambda old: {**old, "names": ("upgraded",)}},
        )

    assert Newer(it.ctx).state == Counter(4, ("upgraded",))


async def test_a_newer_state_is_refused_with_both_versions(store: Store) -> None:
    it, _ = room(store)
    it.ctx.storage.put("_durable/state", [2, {"count": 1}])
    with pytest.raises(StateVersionError, match="version 2, this code knows 1") as caught:
        _ = it.state
    assert (caught.value.attribute, caught.value.stored, caught.value.known) == ("state", 2, 1)


async def test_a_state_that_does_not_fit_is_refused(store: Store) -> None:
    it, _ = room(store)
    it.ctx.storage.put("_durable/state", [1, {"count": "many"}])
    with pytest.raises(codec.UndecodableError, match="count"):
        _ = it.state


async def test_only_values_of_the_class_are_stored(store: Store) -> None:
    it, _ = room(store)
    with pytest.raises(TypeError, match="state holds a Counter; got int 5"):
        it.state = 5  # type: ignore[assignment]


async def test_a_renamed_attribute_keeps_its_key(store: Store) -> None:
    it, _ = room(store)
    it.state = Counter(7)

    @attrs.define(eq=False)
    class Renamed:
        ctx: Ctx
        counter = durable(Counter, key="state")

    assert Renamed(it.ctx).counter == Counter(7)


def test_a_class_that_can_change_unnoticed_or_lacks_an_upgrade_is_refused() -> None:
    with pytest.raises(TypeError, match="needs a frozen"):
        durable(attrs.make_class("Loose", {"x": attrs.field(default=0)}))
    with pytest.raises(TypeError, match="no upgrade from version 2"):
        durable(Counter, version=3, upgrades={1: dict})
    with pytest.raises(TypeError, match="needs a value for"):
        durable(attrs.make_class("Bare", ["x"], frozen=True))
