"""The body of a response that an actor writes while its client reads it.

What is written leaves in order behind the output gate, as everything does, and waits in a bounded queue for whoever
reads: the connection of the client, or another actor. While it is read the actor stays in memory. (Durable Objects: a
`Response` with a `ReadableStream`; `write`, `close` and `abort` are those of its writable half.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Callable
from functools import partial
from typing import Any

import trio

from runtime import limits
from runtime.actor.cell import Cell
from runtime.actor.frame import current_frame
from runtime.actor.input_gate import Job, plain_wait
from runtime.actor.result import DONE, Result

Wake = Callable[[Result], None]


class ResponseStream:
    """Chunks on their way from an actor to whoever reads its response; made by `ctx.response_stream`.

    The reading side iterates over it and closes it with `aclose`; several chunks may come as one.
    """

    __slots__ = (
        "_arrived",
        "_backlog_bytes",
        "_broken",
        "_cell",
        "_chunks",
        "_finished",
        "_lent",
        "_on_end",
        "_over",
        "_room",
        "_stall_s",
        "_taken_at",
        "_unread",
        "_writable",
    )

    def __init__(
        self, cell: Cell, on_end: Callable[[], None], backlog_bytes: int, stall_s: float = limits.SOCKET_BACKLOG_S
    ) -> None:
        self._cell = cell
        self._on_end = on_end
        self._backlog_bytes = backlog_bytes
        self._stall_s = stall_s
        self._taken_at = 0.0  # trio's clock: when something was taken last, or began to wait
        self._chunks: deque[bytes] = deque()
        self._unread = 0
        self._writable = True
        self._finished = False  # the last chunk has arrived
        self._broken = ""  # why the rest will not come
        self._over = False  # nobody reads any more
        self._lent = False  # it has left with a response
        self._arrived: Wake | None = None
        self._room: dict[Wake, None] = {}

    # The actor's side.

    @property
    def backlog_bytes(self) -> int:
        """Written and not yet read."""
        return self._unread

    @property
    def closed(self) -> bool:
        """Nothing more can be written: it was closed or aborted, or its reader is gone."""
        return not self._writable or self._over

    async def write(self, chunk: bytes) -> None:
        """Write a chunk once less than 64 KiB wait to be read; other events run meanwhile.

        Raises:
            trio.ClosedResourceError: after close() or abort(). trio.BrokenResourceError: the reader is gone.
        """
        self._check()
        if self._unread >= limits.STREAM_HIGH_WATER_BYTES:
            await self._cell.wait(self._arm_room)
            self._check()
        self._emit(chunk)

    def push(self, chunk: bytes) -> None:
        """Write a chunk without waiting for the reader; ignored once the stream is closed or its reader is gone.

        Whoever reads too slowly is cut off: when more would wait than the bound, or when something waits and nothing
        was taken for 5 s, the response ends incomplete.
        """
        if self.closed:
            return
        stalled = bool(self._chunks) and trio.current_time() >= self._taken_at + self._stall_s
        if stalled or self._unread + len(chunk) > self._backlog_bytes:
            self._writable = False
            self._break("the client reads too slowly")  # what the gate holds for it is dropped
        else:
            self._emit(chunk)

    def close(self) -> None:
        """End the response after everything written so far; a second call is ignored."""
        if self._writable:
            self._writable = False
            self._let_out(self._finish)

    def abort(self, reason: str = "the actor aborted the response") -> None:
        """Cut the response off after everything written so far: its client sees that it is incomplete."""
        if self._writable:
            self._writable = False
            self._let_out(partial(self._break_after, reason))

    def _check(self) -> None:
        if self._over:
            raise trio.BrokenResourceError("nobody reads this response any more")
        if not self._writable:
            raise trio.ClosedResourceError("this response was closed; nothing more can be written")

    def _emit(self, chunk: bytes) -> None:
        if not isinstance(chunk, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a chunk of a response is {type(chunk).__name__}; it must be bytes")
        self._unread += len(chunk)
        self._let_out(partial(self._put, chunk))

    def _let_out(self, effect: Callable[[], None]) -> None:
        cell = self._cell
        if cell.output.open:
            cell.check()
            effect()
        else:
            cell.emit(effect)

    def _arm_room(self, wake: Wake) -> Callable[[], None] | None:
        if self._over or self._unread < limits.STREAM_HIGH_WATER_BYTES:
            wake(DONE)
            return None
        self._room[wake] = None

        def disarm() -> None:
            self._room.pop(wake, None)

        return disarm

    def lend(self) -> None:
        """It leaves with a response: from now on it keeps the instance in memory until it has been read."""
        if not self._lent and not self._over:
            self._lent = True
            self._cell.busy(1)
            self._cell.holdings.keep_reference(self)

    def release(self) -> None:
        """The instance has ended, and the rest will not come."""
        self._over = True
        self._break("the actor has ended")

    # What has left the actor.

    def _put(self, chunk: bytes) -> None:
        if chunk and not self._over and not self._broken:
            if not self._chunks:
                self._taken_at = trio.current_time()
            self._chunks.append(chunk)
            self._wake_reader()

    def _finish(self) -> None:
        self._finished = True
        self._wake_reader()

    def _break_after(self, reason: str) -> None:
        if self._chunks:
            self._finished = True
            self._broken = self._broken or reason
            self._wake_reader()
        else:
            self._break(reason)

    def _break(self, reason: str) -> None:
        self._broken = self._broken or reason
        self._chunks.clear()
        self._unread = 0
        self._wake_all()
        self._wake_reader()

    def _wake_reader(self) -> None:
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            arrived(DONE)

    def _wake_all(self) -> None:
        room, self._room = self._room, {}
        for wake in room:
            wake(DONE)

    # The reader's side.

    def __aiter__(self) -> ResponseStream:
        return self

    async def __anext__(self) -> bytes:
        """What has arrived, at most 64 KiB or one chunk.

        Raises:
            trio.BrokenResourceError: the rest will not come: the actor aborted it, or ended.
        """
        if not self._chunks and not self._finished and not self._broken:
            frame = current_frame.get()
            await (plain_wait(self._arm_arrival) if frame is None else frame.cell.wait(self._arm_arrival))
        if self._chunks:
            return self._take()
        if self._broken:
            raise trio.BrokenResourceError(self._broken)
        self._end()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Read no more. Its actor is told; harmless when it was read to its end."""
        self._end()

    def _arm_arrival(self, wake: Wake) -> Callable[[], None]:
        if self._arrived is not None:
            raise RuntimeError("this response is being read already; read it in one place")
        self._arrived = wake
        return self._disarm

    def _disarm(self) -> None:
        self._arrived = None

    def _take(self) -> bytes:
        parts = [self._chunks.popleft()]
        size = len(parts[0])
        while self._chunks and size + len(self._chunks[0]) <= limits.STREAM_HIGH_WATER_BYTES:
            parts.append(self._chunks.popleft())
            size += len(parts[-1])
        self._unread -= size
        self._taken_at = trio.current_time()
        if self._unread < limits.STREAM_HIGH_WATER_BYTES:
            self._wake_all()
        return b"".join(parts)

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        self._finished = True
        self._chunks.clear()
        self._wake_all()
        cell = self._cell
        if not self._lent or cell.broken is not None:
            return
        cell.holdings.drop_reference(self)
        self._on_end()
        cell.busy(-1)


def stream_chunks(cell: Cell, chunks: AsyncIterable[bytes]) -> ResponseStream:
    """A stream of what an actor's handler returned to be iterated over: that goes on as an event of the actor.

    It takes turns, is cancelled when the reader is gone, and is asked for more while less than 64 KiB wait.
    """
    scope = trio.CancelScope()
    stream = ResponseStream(cell, scope.cancel, limits.STREAM_HIGH_WATER_BYTES)

    async def pump(_: Any) -> None:
        with scope:
            try:
                async for chunk in chunks:
                    await stream.write(chunk)
                stream.close()
            except trio.BrokenResourceError:
                if not stream._over:
                    raise
            finally:
                stream.abort("the actor failed")  # nothing, when it was closed
                aclose = getattr(chunks, "aclose", None)
                if aclose is not None:
                    await aclose()

    cell.own_gate().enter(Job("body of a response", pump))
    return stream
