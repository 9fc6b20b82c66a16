"""Both stores behind one face, with a crash that keeps exactly what was durable."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from runtime.ids import ActorId, id_from_name
from runtime.limits import StorageLimits
from runtime.storage.bookmarks import Retention
from runtime.storage.memory import MemoryStore
from runtime.storage.overlay import Overlay
from runtime.storage.shared import SharedStore
from runtime.storage.storage import Storage
from runtime.storage.store import KEEP, Store, WriteBatch
from runtime.testing.platform import virtual_platform

NOW = 1_000.0


@attrs.define(eq=False)
class Disk:
    """Where a store lives: it can be opened, closed, and lose its power.

    Kinds are "memory", "shared", and "rebuilding": a shared one that builds anew whatever it brings back.
    """

    kind: str
    folder: Path
    boots: Any = attrs.field(factory=itertools.count)
    memory: MemoryStore | None = None
    data: Path | None = None
    retention: Retention = attrs.field(factory=Retention)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Store]:
        store = self._store()
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            yield store
            nursery.cancel_scope.cancel()

    def _store(self) -> Store:
        if self.kind == "memory":
            self.memory = self.memory or MemoryStore(retention=self.retention)
            return self.memory
        if self.data is None:
            self.data = self.folder / f"boot{next(self.boots)}"
        more: dict[str, Any] = {"in_place_bytes": 0} if self.kind == "rebuilding" else {}
        return SharedStore(self.data, platform=virtual_platform(), retention=self.retention, **more)

    def crash(self) -> None:
        """Cut the power now; leave the running store afterwards and open another."""
        if self.memory is not None:
            self.memory.crash()
        else:
            assert self.data is not None
            before, self.data = self.data, self.folder / f"boot{next(self.boots)}"
            self.data.mkdir(parents=True)
            for name in ("heliograph.db", "heliograph.db-wal", "lineage"):
                if (before / name).exists():
                    shutil.copy(before / name, self.data / name)


class Gate:
    """A cell that does nothing but commit when it is told to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.storage: Storage
        self.durable = 0
        self.errors: list[Exception] = []
        self.broken: Exception | None = None
        self.waits_for: list[int] = []
        self.settled = trio.Event()

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken

    def wrote(self, *, confirmed: bool) -> None:
        if confirmed:
            self.waits_for.append(self.storage.sequence)

    def clearing(self) -> None:
        pass

    async def sync(self) -> None:
        self.seal()
        wanted = self.storage.sequence
        while self.durable < wanted:
            await self.settled.wait()

    async def critical_section(self, fn: Callable[[], Any], /) -> Any:
        self.seal()
        return await fn()

    def seal(self) -> None:
        batch = self.storage.take_batch()
        if batch is not None:
            self.store.submit(batch, lambda error: self._done(batch.sequence, error))

    def _done(self, sequence: int, error: Exception | None) -> None:
        if error is None:
            self.durable = sequence
            self.storage.committed(sequence)
        else:
            self.errors.append(error)
            self.broken = error
        self.settled.set()
        self.settled = trio.Event()


def open_storage(store: Store, actor: ActorId, *, alarm: bool = True, lax: bool = False) -> tuple[Storage, Gate]:
    gate = Gate(store)
    limits = StorageLimits(keys_per_call=1_000_000) if lax else StorageLimits()
    gate.storage = Storage(
        Overlay(actor, store.open(actor), store.submit),
        gate,
        limits=limits,
        has_alarm_handler=alarm,
        now=lambda: NOW,
        lineage=store.lineage,
    )
    return gate.storage, gate


def actor(name: str = "a", namespace: str = "rooms") -> ActorId:
    return id_from_name(namespace, name)


def batch(
    who: ActorId,
    sequence: int = 1,
    writes: dict[bytes, bytes | None] | None = None,
    *,
    delete_all: bool = False,
    alarm: Any = KEEP,
    **more: Any,
) -> WriteBatch:
    return WriteBatch(actor=who, sequence=sequence, writes=writes or {}, delete_all=delete_all, alarm=alarm, **more)


async def commit(store: Store, *batches: WriteBatch) -> list[Exception | None]:
    """Submit at once and wait for every outcome."""
    outcomes: list[Exception | None] = []
    ended = trio.Event()

    def done(error: Exception | None) -> None:
        outcomes.append(error)
        if len(outcomes) == len(batches):
            ended.set()

    for one in batches:
        store.submit(one, done)
    await ended.wait()
    return outcomes
