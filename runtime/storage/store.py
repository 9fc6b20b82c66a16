"""The seam to what is durable: a store of all actors of a server, and the batch it commits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final, Protocol

import attrs
import trio

from runtime.ids import ActorId


class StoreUnusable(Exception):
    """The store refuses to open; the message says why and what to do."""


class Keep(Enum):
    """The alarm stays as it is."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


@attrs.frozen(kw_only=True)
class WriteBatch:
    """Everything one actor wrote between two real waits; committed whole or not at all.

    Attributes:
        actor: whose. Its name is stored with it, so that alarms reach the actor under its name.
        sequence: 1, 2, 3 … per live instance; batches of an actor commit in this order.
        copy_of: first take over every key that another actor has, from the batches submitted before this one; for an
            actor that has stored nothing. It keeps history if the other one does.
        delete_all: remove every key first (the alarm only if `alarm` says so).
        writes: key (UTF-8 bytes) to value; None deletes.
        alarm: the new due time (wall clock, seconds), None to delete it, KEEP to leave it.
        history: what it changes can be restored; without, nothing from before it can be.
        restore_to: first bring keys and alarm back to this point of the history.
        restore_next: remember this point for the next instance.
        mark: make the moment before its writes a point of the history.
    """

    actor: ActorId
    sequence: int
    copy_of: ActorId | None = None
    delete_all: bool = False
    writes: Mapping[bytes, bytes | None]
    alarm: float | Keep | None = KEEP
    history: bool = True
    restore_to: int | None = None
    restore_next: int | None = None
    mark: bool = False

    @property
    def only_put(self) -> tuple[bytes, bytes] | None:
        """The key and the value if one is put and nothing else is done."""
        if len(self.writes) != 1 or self.alarm is not KEEP or self.delete_all or self.mark or self.copy_of is not None:
            return None
        if self.restore_to is not None or self.restore_next is not None:
            return None
        ((key, value),) = self.writes.items()
        return None if value is None else (key, value)

    @property
    def is_nothing(self) -> bool:
        """Beside a `delete_all` there is nothing to do."""
        if self.restore_next is not None:
            return False
        if self.delete_all and self.alarm in {None, KEEP}:
            return all(value is None for value in self.writes.values())
        return not self.writes and self.alarm is KEEP

    @property
    def size(self) -> int:
        """Bytes of keys and values, for bounding groups."""
        return sum(len(k) + len(v or b"") for k, v in self.writes.items()) + 64


class ReadHandle(Protocol):
    """Reads of one actor's durable keys: local, synchronous, short."""

    def get(self, key: bytes) -> bytes | None:
        """The durable value of a key."""
        ...

    def list(self, start: bytes, end: bytes | None, limit: int | None, reverse: bool) -> Sequence[tuple[bytes, bytes]]:
        """Durable pairs with `start <= key < end` in byte order (descending if reverse), at most `limit`."""
        ...

    def alarm(self) -> float | None:
        """The durable due time."""
        ...

    # The history of the store, as this actor may use it. A batch with `mark` makes a point of it.

    def bookmark(self) -> str:
        """The newest point."""
        ...

    def bookmark_at(self, time_s: float) -> str:
        """The newest point with nothing from after a time (wall clock, seconds). Raises: InvalidBookmark."""
        ...

    def point(self, bookmark: str) -> int:
        """The point that a bookmark names, if this actor can be brought back there. Raises: InvalidBookmark."""
        ...

    def restore_next(self) -> int | None:
        """The point that the next instance is to begin from."""
        ...

    def restored(self) -> int | None:
        """Where the history stood after the last restore of this actor."""
        ...


Done = Callable[[Exception | None], None]


class Store(Protocol):
    """Durable keys and alarms of many actors."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open, call `task_status.started()`, commit what is submitted until cancelled; then finish and close."""
        ...

    def open(self, actor: ActorId) -> ReadHandle:
        """A handle for reads; loads nothing."""
        ...

    def submit(self, batch: WriteBatch, done: Done) -> None:
        """Take a batch; never waits.

        `done(None)` is called on the loop when the batch is durable, `done(error)` when it is not and never will be;
        in submission order per actor. A batch that fails takes the later batches of its actor that were already
        submitted along, and no other actor's unless the whole transaction failed.
        """
        ...

    def begin_commit(self) -> None:
        """Nothing more is submitted at once: a commit may begin. Without it, one begins in the loop's next turn."""
        ...

    def alarms(self) -> Sequence[tuple[ActorId, float]]:
        """Every pending alarm."""
        ...

    def list_ids(self, namespace: str) -> Sequence[ActorId]:
        """Every actor of a namespace that has stored something, facets left out."""
        ...

    def list_below(self, actor: ActorId) -> Sequence[ActorId]:
        """Every facet of an actor, and of its facets, that has stored something."""
        ...

    @property
    def lineage(self) -> str:
        """A random id that changes with every restore of an older copy."""
        ...

    @property
    def backlog_bytes(self) -> int:
        """Submitted and not yet durable."""
        ...

    @property
    def stored_bytes(self) -> int:
        """What is durable takes so many, histories with it. Raises: StorageFailed."""
        ...
