"""What one live instance has written and the store has not made durable yet, laid over what is durable."""

from __future__ import annotations

import builtins
from collections import deque
from collections.abc import Callable, Sequence

import attrs
import trio

from runtime.ids import ActorId
from runtime.storage.store import KEEP, Done, Keep, ReadHandle, WriteBatch

_UNWRITTEN = object()


@attrs.define(eq=False)
class _OpenBatch:
    delete_all: bool = False
    writes: dict[bytes, bytes | None] = attrs.field(factory=dict)
    alarm: float | Keep | None = KEEP
    restore_next: int | None = None


class Overlay:
    """Reads and writes of one instance in bytes.

    Three layers, newest first: the open batch, the sealed batches (merged), the durable keys of the read handle.
    While a mark is set, changes of the open batch are in an undo log, so that a transaction can take its part back.
    """

    __slots__ = (
        "_actor",
        "_alarm",
        "_cleared",
        "_handle",
        "_history",
        "_last",
        "_marks",
        "_open",
        "_sealed",
        "_submit",
        "_unconfirmed",
        "_undo",
    )

    def __init__(
        self, actor: ActorId, handle: ReadHandle, submit: Callable[[WriteBatch, Done], None], *, history: bool = True
    ) -> None:
        self._actor = actor
        self._handle = handle
        self._submit = submit
        self._history = history
        self._open: _OpenBatch | None = None
        self._last = 0  # number of the newest sealed batch
        self._sealed: dict[bytes, tuple[int, bytes | None]] = {}
        self._cleared = 0  # number of the newest sealed delete_all, 0 once that is durable
        self._alarm: float | Keep | None = KEEP  # sealed or durable; KEEP: nobody asked yet
        self._unconfirmed: deque[WriteBatch] | None = None  # sealed, not durable yet; most actors have none
        self._undo: builtins.list[tuple[bytes | None, object]] | None = None  # None while there are no marks
        self._marks = 0

    @property
    def database(self) -> None:
        """There is no SQL."""

    async def prepare(self) -> float | Keep | None:
        """Bring the actor back to a bookmark if an earlier instance asked for it. Raises: InvalidBookmark."""
        point = self._handle.restore_next()
        if point is None:
            return KEEP
        await self._commit(WriteBatch(actor=self._actor, sequence=0, writes={}, restore_to=point))
        return self.alarm()

    def close(self) -> None:
        """Nothing to close."""

    @property
    def is_open(self) -> bool:
        """A batch was begun and is not sealed."""
        return self._open is not None

    @property
    def last_sealed(self) -> int:
        """The number of the newest sealed batch; 0 before the first."""
        return self._last

    # Reads.

    def get(self, key: bytes) -> bytes | None:
        """The newest value of a key."""
        batch = self._open
        if batch is not None:
            value = batch.writes.get(key, _UNWRITTEN)
            if value is not _UNWRITTEN:
                return value  # type: ignore[return-value]
            if batch.delete_all:
                return None
        if self._sealed:
            entry = self._sealed.get(key)
            if entry is not None:
                return entry[1]
        return None if self._cleared else self._handle.get(key)

    def list(self, start: bytes, end: bytes | None, limit: int | None, reverse: bool) -> Sequence[tuple[bytes, bytes]]:
        """The newest pairs of a range, as `ReadHandle.list`."""
        written = self._written_between(start, end)
        if not self._reads_through:
            durable: Sequence[tuple[bytes, bytes]] = ()
        else:
            # Each written key hides at most one durable pair, so this many are enough.
            wanted = None if limit is None else limit + len(written)
            durable = self._handle.list(start, end, wanted, reverse)
        if not written:
            return durable
        merged = [pair for pair in durable if pair[0] not in written]
        merged += [(key, value) for key, value in written.items() if value is not None]
        merged.sort(reverse=reverse)
        return merged[:limit]

    def alarm(self) -> float | None:
        """The newest due time."""
        if self._open is not None and self._open.alarm is not KEEP:
            return self._open.alarm
        if self._alarm is KEEP:
            self._alarm = self._handle.alarm()  # only this instance changes it
        return self._alarm

    @property
    def _reads_through(self) -> bool:
        return not self._cleared and not (self._open is not None and self._open.delete_all)

    def _written_between(self, start: bytes, end: bytes | None) -> dict[bytes, bytes | None]:
        written: dict[bytes, bytes | None] = {}
        batch = self._open
        if self._sealed and not (batch is not None and batch.delete_all):
            written |= {k: v for k, (_, v) in self._sealed.items() if start <= k and (end is None or k < end)}
        if batch is not None:
            written |= {k: v for k, v in batch.writes.items() if start <= k and (end is None or k < end)}
        return written

    # Writes: all of them join the open batch.

    def begin(self) -> None:
        """Open a batch unless one is open. A batch that was begun is sealed even when it ends up empty."""
        if self._open is None:
            self._open = _OpenBatch()

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set a key; None deletes."""
        assert self._open is not None
        writes = self._open.writes
        if self._undo is not None:
            self._undo.append((key, writes.get(key, _UNWRITTEN)))
        writes[key] = value

    def clear(self, *, keep_alarm: bool) -> None:
        """Delete every key, and the alarm. It cannot be undone, so no mark may be set."""
        assert self._open is not None
        assert not self._marks
        self._open.delete_all = True
        self._open.writes.clear()
        if not keep_alarm:
            self._open.alarm = None

    def set_alarm(self, time: float | None) -> None:
        """Set or delete the alarm."""
        assert self._open is not None
        if self._undo is not None:
            self._undo.append((None, self._open.alarm))
        self._open.alarm = time

    def mark(self) -> int:
        """Set a mark to undo to; each is taken back by `undo` or `keep`, the newest first."""
        self._marks += 1
        if self._undo is None:
            self._undo = []
        return len(self._undo)

    def keep(self) -> None:
        """Take the newest mark back; what was written since belongs to the mark before it, if any."""
        self._marks -= 1
        if not self._marks:
            self._undo = None

    def undo(self, mark: int) -> None:
        """Take the newest mark back, and every put and alarm change since."""
        self._marks -= 1
        batch = self._open
        changes = self._undo
        assert changes is not None
        if not self._marks:
            self._undo = None
        while len(changes) > mark:
            key, before = changes.pop()
            assert batch is not None
            if key is None:
                batch.alarm = before  # type: ignore[assignment]
            elif before is _UNWRITTEN:
                del batch.writes[key]
            else:
                batch.writes[key] = before  # type: ignore[assignment]

    # The history.

    async def bookmark(self) -> str:
        """A point of the history that has everything that is sealed."""
        await self._commit(WriteBatch(actor=self._actor, sequence=0, writes={}, mark=True))
        return self._handle.bookmark()

    async def bookmark_at(self, time_s: float) -> str:
        """The newest point with nothing from after a time. Raises: InvalidBookmark."""
        await self.bookmark()  # what was just changed is before a point, too
        return self._handle.bookmark_at(time_s)

    async def _commit(self, batch: WriteBatch) -> None:
        ended = trio.Event()
        errors: list[Exception] = []

        def done(error: Exception | None) -> None:
            errors.extend([] if error is None else [error])
            ended.set()

        self._submit(batch, done)
        await ended.wait()
        if errors:
            raise errors[0]

    async def point(self, bookmark: str) -> int:
        """The point that a bookmark names, if the actor can be brought back there. Raises: InvalidBookmark."""
        return self._handle.point(bookmark)

    def restore_next(self, point: int) -> None:
        """The next instance begins there; joins the open batch."""
        self.begin()
        assert self._open is not None
        self._open.restore_next = point

    def restored(self) -> int | None:
        """Where the history stood after the last restore."""
        return self._handle.restored()

    # The life of a batch.

    def seal(self) -> WriteBatch | None:
        """Close the open batch and give it a number; None when there is none."""
        opened = self._open
        if opened is None:
            return None
        assert not self._marks
        self._open = None
        self._last = number = self._last + 1
        if opened.delete_all:
            self._sealed.clear()
            self._cleared = number
        for key, value in opened.writes.items():
            self._sealed[key] = (number, value)
        if opened.alarm is not KEEP:
            self._alarm = opened.alarm
        batch = WriteBatch(
            actor=self._actor,
            sequence=number,
            delete_all=opened.delete_all,
            writes=opened.writes,
            alarm=opened.alarm,
            history=self._history,
            restore_next=opened.restore_next,
        )
        if self._unconfirmed is None:
            self._unconfirmed = deque()
        self._unconfirmed.append(batch)
        return batch

    def committed(self, sequence: int) -> None:
        """Forget what is durable now: every batch up to this number."""
        unconfirmed = self._unconfirmed
        while unconfirmed and unconfirmed[0].sequence <= sequence:
            batch = unconfirmed.popleft()
            for key in batch.writes:
                entry = self._sealed.get(key)
                if entry is not None and entry[0] == batch.sequence:
                    del self._sealed[key]
        if not unconfirmed:
            assert not self._sealed
            self._unconfirmed, self._sealed = None, {}  # used ones are large, and a hundred thousand may idle
        if self._cleared <= sequence:
            self._cleared = 0

    def drop_open(self) -> None:
        """Forget the open batch and all marks; sealed batches still count."""
        self._open = None
        self._undo = None
        self._marks = 0
