"""Batches on their way to a store: submission order, groups bounded in bytes, and who hears of which outcome."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import trio

from runtime.ids import ActorId
from runtime.platform import pass_by
from runtime.storage.store import Done, WriteBatch


class CommitQueue:
    """Gathers what is submitted while the last group commits. One task takes groups; everybody submits.

    Args:
        point: marks rare branches, as `Platform.point`.
    """

    __slots__ = ("_arrived", "_group", "_point", "_waiting", "backlog_bytes")

    def __init__(self, point: Callable[[str], None] = pass_by) -> None:
        self._point = point
        self._waiting: deque[tuple[WriteBatch, Done, int]] = deque()
        self._group: list[tuple[WriteBatch, Done, int]] = []
        self._arrived = trio.Event()
        self.backlog_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def submit(self, batch: WriteBatch, done: Done) -> None:
        """Take a batch; never waits."""
        size = batch.size
        self._waiting.append((batch, done, size))
        self.backlog_bytes += size
        self._arrived.set()

    async def wait(self) -> None:
        """Wait until something was submitted."""
        if self._arrived.is_set():
            self._arrived = trio.Event()
        if self._waiting:
            await trio.lowlevel.checkpoint()
        else:
            await self._arrived.wait()

    def take_group(self, bytes_max: int) -> Sequence[WriteBatch]:
        """The next batches in submission order, at least one, up to a size. `settle` them before the next group."""
        assert not self._group
        size = 0
        while self._waiting and (not self._group or size + self._waiting[0][2] <= bytes_max):
            self._group.append(self._waiting.popleft())
            size += self._group[-1][2]
        return [batch for batch, _, _ in self._group]

    def settle(self, failed: Mapping[int, Exception]) -> None:
        """Report the group in submission order; `failed` has errors by place in the group.

        What an actor submitted after a batch of its own that failed was built on it, and fails too: the later ones
        in the group were not written, the waiting ones leave the queue here.
        """
        group, self._group = self._group, []
        errors: dict[ActorId, Exception] = {group[place][0].actor: error for place, error in failed.items()}
        ended: list[tuple[Done, Exception | None]] = [
            (done, failed.get(place)) for place, (_, done, _) in enumerate(group)
        ]
        self.backlog_bytes -= sum(size for _, _, size in group)
        if errors:
            kept: deque[tuple[WriteBatch, Done, int]] = deque()
            for entry in self._waiting:
                error = errors.get(entry[0].actor)
                if error is None:
                    kept.append(entry)
                else:
                    self._point("a waiting batch fails with the one before it")
                    ended.append((entry[1], error))
                    self.backlog_bytes -= entry[2]
            self._waiting = kept
        for done, outcome in ended:
            done(outcome)

    def settle_all(self, error: Exception) -> None:
        """Report that nothing of the group may be stored."""
        self.settle(dict.fromkeys(range(len(self._group)), error))

    def drop(self) -> None:
        """Forget everything without a word, as a crash does."""
        self._waiting.clear()
        self._group.clear()
        self.backlog_bytes = 0
