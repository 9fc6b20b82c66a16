"""The seam between an actor's storage and where it lives: one `Keyspace` per live instance, one `Backend` per kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from runtime.ids import ActorId
from runtime.limits import StorageLimits
from runtime.storage.overlay import Overlay
from runtime.storage.store import Done, Keep, Store, WriteBatch

if TYPE_CHECKING:
    from runtime.storage.object_keys import ObjectKeys


class Keyspace(Protocol):
    """Keys and alarm of one live instance, in bytes, with one open batch.

    Every write joins the open batch, which `seal` closes. `mark` and `undo` take a part of it back.
    """

    @property
    def database(self) -> ObjectKeys | None:
        """What SQL statements run on; None where there is no SQL."""
        ...

    async def prepare(self) -> float | Keep | None:
        """Make it usable, once, before the instance is constructed.

        Returns:
            The alarm, when the index of alarms did not know it; else KEEP.

        Raises:
            StorageFailed: it cannot be opened.
        """
        ...

    @property
    def is_open(self) -> bool:
        """A batch was begun and is not sealed."""
        ...

    @property
    def last_sealed(self) -> int:
        """The number of the newest sealed batch; 0 before the first."""
        ...

    def get(self, key: bytes) -> bytes | None:
        """The newest value of a key."""
        ...

    def list(self, start: bytes, end: bytes | None, limit: int | None, reverse: bool) -> Sequence[tuple[bytes, bytes]]:
        """The newest pairs with `start <= key < end` in byte order (descending if reverse), at most `limit`."""
        ...

    def alarm(self) -> float | None:
        """The newest due time."""
        ...

    def begin(self) -> None:
        """Open a batch unless one is open. A batch that was begun is sealed even when it ends up empty."""
        ...

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set a key; None deletes."""
        ...

    def clear(self, *, keep_alarm: bool) -> None:
        """Delete everything. It cannot be undone, so no mark may be set."""
        ...

    def set_alarm(self, time: float | None) -> None:
        """Set or delete the alarm."""
        ...

    def mark(self) -> int:
        """Set a mark to undo to; each is taken back by `undo` or `keep`, the newest first."""
        ...

    def keep(self) -> None:
        """Take the newest mark back; what was written since belongs to the mark before it, if any."""
        ...

    def undo(self, mark: int) -> None:
        """Take the newest mark back, and everything written since."""
        ...

    def seal(self) -> WriteBatch | None:
        """Close the open batch and give it a number; None when there is none. It goes to `Backend.submit`."""
        ...

    def committed(self, sequence: int) -> None:
        """Every batch up to this number is durable."""
        ...

    def drop_open(self) -> None:
        """Forget the open batch and all marks; sealed batches still count."""
        ...

    def close(self) -> None:
        """The instance has ended; what is sealed still becomes durable."""
        ...

    # The history of what was durable.

    async def bookmark(self) -> str:
        """A point of it that has everything that is sealed. Keeps the turn."""
        ...

    async def bookmark_at(self, time_s: float) -> str:
        """The newest point with nothing from after a time. Keeps the turn. Raises: InvalidBookmark."""
        ...

    async def point(self, bookmark: str) -> int:
        """The point that a bookmark names, if the actor can be brought back there. Keeps the turn.

        Raises:
            InvalidBookmark: it cannot.
        """
        ...

    def restore_next(self, point: int) -> None:
        """The next instance begins there; joins the open batch."""
        ...

    def restored(self) -> int | None:
        """A number that is another one after every restore; None before the first."""
        ...


class Copying(Protocol):
    """A copy of what an actor has stored, as of when this was made."""

    async def finish(self) -> None:
        """Wait until it is durable. Raises: StorageFailed."""
        ...

    def give_up(self) -> None:
        """Nobody finishes it: let go of what it holds. Harmless afterwards."""
        ...


class Backend(Protocol):
    """Where the storage of one kind of actor classes lives."""

    @property
    def limits(self) -> StorageLimits:
        """What one storage call may carry."""
        ...

    def attach(self, actor: ActorId, *, history: bool) -> Keyspace:
        """The keys of a new instance; loads nothing.

        Args:
            history: what it writes can be undone by a restore.
        """
        ...

    def submit(self, batch: WriteBatch, done: Done) -> None:
        """Take a sealed batch; never waits. `done` is called as `Store.submit` says."""
        ...

    def begin_commit(self) -> None:
        """Nothing more is submitted at once, as `Store.begin_commit`."""
        ...

    async def stored_bytes(self) -> Mapping[str, int]:
        """What files take on the disk, histories with them, by namespace; under "" what all namespaces share.

        Raises:
            StorageFailed: the disk does not answer.
        """
        ...

    def copying(self, source: ActorId, target: ActorId) -> Copying:
        """Copy what an actor has sealed to one that has stored nothing.

        Without an instance of the source, or with one that is still being opened, as of a moment during the copy.
        """
        ...


class SharedBackend:
    """Classes without SQL: all actors in the one store of the server."""

    def __init__(self, store: Store, limits: StorageLimits) -> None:
        self.limits = limits
        self.submit = store.submit
        self.begin_commit = store.begin_commit
        self._store = store

    def attach(self, actor: ActorId, *, history: bool) -> Keyspace:
        """The keys of a new instance: what it has written, laid over what is durable."""
        return Overlay(actor, self._store.open(actor), self.submit, history=history)

    async def stored_bytes(self) -> Mapping[str, int]:
        """Of the whole store: how much of it is whose would take a look at everything."""
        return {"": self._store.stored_bytes}

    def copying(self, source: ActorId, target: ActorId) -> Copying:
        """Copy what an actor has sealed: the store does it between two batches."""
        return _SharedCopying(self._store, source, target)


class _SharedCopying:
    def __init__(self, store: Store, source: ActorId, target: ActorId) -> None:
        self._ended = trio.Event()
        self._error: Exception | None = None
        store.submit(WriteBatch(actor=target, sequence=0, copy_of=source, writes={}), self._done)

    def _done(self, error: Exception | None) -> None:
        self._error = error
        self._ended.set()

    async def finish(self) -> None:
        await self._ended.wait()
        if self._error is not None:
            raise self._error

    def give_up(self) -> None:
        """It goes on."""
