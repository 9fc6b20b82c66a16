"""The only place where bytes are written to a client.

A `FrameStream` is the sending half of one WebSocket. A push writes at once what the kernel takes; the rest goes to a
byte-bounded queue with a writer task that exists only while there is a queue, or a close to finish. Nobody ever
waits for a slow reader: at the bound it is closed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Protocol

import attrs
import trio

from runtime import limits
from runtime.frames import encode_close
from runtime.platform import Writer
from runtime.transport.wire import number_of, round_trip_of

CLOSE_S = 10.0
SLOW_REASON = "reader is too slow"
_WRITE_BYTES = 65_536  # one write of queued frames: bounds the copy that a partial write repeats
_TLS_BYTES = 16_384  # one TLS record: what a stream that only its task can write to must take within the stall limit

# The states, in the order in which a stream goes through them (DIRECT and QUEUED alternate).
_CORKED = 0  # the handshake's answer is not written yet: everything queues
_DIRECT = 1  # nothing is queued: a push writes
_QUEUED = 2  # the writer task has something to do
_CLOSING = 3  # a close frame was pushed; nothing follows it
_LOST = 4  # the connection broke or ended
_CUT = 5  # the actor side dropped it


class StartSoon(Protocol):
    """A nursery's `start_soon`."""

    def __call__(self, fn: Callable[[], Awaitable[object]], /) -> object:
        """Start `fn()` as a task of the nursery."""
        ...


@attrs.define(eq=False)
class FrameStream:
    """The sending half of a WebSocket: ordered, bounded, and pushing never waits.

    It starts corked: what is pushed before `uncork` leaves after the handshake's answer. One push is one unit: it may
    hold several complete frames, and once part of it has left, all of it leaves before a close frame.

    Args:
        stream: the connection; nobody else may send on it.
        write: of `stream`, from `Platform.writer`.
        start_soon: of a nursery that outlives the connection.
        backlog_bytes: bound of the queue, the push about to be queued included; beyond it the socket is closed.
        slow_code: the close code for that, and for a queue without progress for `stall_s` seconds.
        close_s: seconds from our close frame to the end of the connection, whatever the peer does.
    """

    _stream: trio.abc.Stream = attrs.field(alias="stream")
    _write: Writer = attrs.field(alias="write", kw_only=True)
    _start_soon: StartSoon = attrs.field(alias="start_soon", kw_only=True)
    _limit: int = attrs.field(default=limits.SOCKET_BACKLOG_BYTES, alias="backlog_bytes", kw_only=True)
    _slow_code: int = attrs.field(default=1013, alias="slow_code", kw_only=True)
    _stall_s: float = attrs.field(default=limits.SOCKET_BACKLOG_S, alias="stall_s", kw_only=True)
    _close_s: float = attrs.field(default=CLOSE_S, alias="close_s", kw_only=True)

    _backlog: int = attrs.field(default=0, init=False)
    _state: int = attrs.field(default=_CORKED, init=False)
    _queue: deque[bytes] | None = attrs.field(default=None, init=False)
    _sent: int = attrs.field(default=0, init=False)  # bytes of the queue's first item that have left
    _writer: trio.CancelScope | None = attrs.field(default=None, init=False)
    _deadline: float = attrs.field(default=math.inf, init=False)  # of a connection that closes
    _peer_closed: bool = attrs.field(default=False, init=False)
    _failed: bool = attrs.field(default=False, init=False)
    _changed: Callable[[], None] | None = attrs.field(default=None, init=False)

    # The actor's side.

    @property
    def backlog_bytes(self) -> int:
        """Accepted and not yet taken by the kernel."""
        return self._backlog

    @property
    def round_trip_s(self) -> float | None:
        """The round trip of the TCP connection, smoothed, as the kernel knows it; None where nobody does."""
        return None if self._state >= _LOST else round_trip_of(self._stream)

    @property
    def connection_number(self) -> int | None:
        """Which one it is of the connections that can be made to fail; None where none can."""
        return number_of(self._stream)

    def push(self, data: bytes, /) -> None:
        """Send complete frames; never waits. Ignored once the connection closes or is lost."""
        if self._state != _DIRECT:
            if self._state < _CLOSING:
                self._enqueue(data)
            return
        writer = self._write
        try:
            taken = writer.write(writer.target, data)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._break()
            return
        if taken != len(data):
            self.push_rest(data, taken)

    @property
    def direct(self) -> Writer | None:
        """The write of the connection while nothing is queued and nothing closes; what it leaves, `push_rest` takes."""
        return self._write if self._state == _DIRECT else None

    def push_rest(self, data: bytes, taken: int, /) -> None:
        """Send complete frames of which `direct` has taken the first bytes."""
        self._enter(_QUEUED)
        self._enqueue(data, taken)
        self._start_writer()

    def close(self, code: int | None, reason: str = "", /) -> None:
        """Send a close frame after everything pushed so far; only the first call counts."""
        if self._state >= _CLOSING:
            return
        before = self._state
        self._enter(_CLOSING)
        self._deadline = trio.current_time() + self._close_s
        self._append(encode_close(code, fit_reason(reason)))
        if before == _DIRECT:
            self._write_head()
        if before != _CORKED:
            self._start_writer()

    def cut(self) -> None:
        """Drop the connection at once, without a close frame; never waits."""
        if self._state < _LOST:
            self._enter(_CUT)
            self._clear()
            self._start_writer().cancel()  # the task that closes the stream

    def configure(
        self, *, backlog_bytes: int, slow_code: int, stall_s: float, changed: Callable[[], None] | None = None
    ) -> None:
        """Set what a slow reader may make the server hold, for how long, and the code it is closed with.

        Args:
            changed: called whenever `direct` becomes another one from now on; as before by default.
        """
        self._changed = changed or self._changed
        self._limit = backlog_bytes
        self._stall_s = stall_s
        self._slow_code = slow_code

    # The connection's side.

    @property
    def was_cut(self) -> bool:
        """The actor side dropped the connection, so nobody needs to be told that it ended."""
        return self._state == _CUT

    def uncork(self, answer: bytes) -> None:
        """Send the handshake's answer, and after it what was pushed meanwhile."""
        if self._state >= _LOST:
            return
        held = b"".join(self._queue or ())
        self._clear()
        self._append(answer + held)
        if self._state == _CORKED:
            self._state = _QUEUED
        self._write_head()
        if self._queue is None and self._state == _QUEUED:
            self._enter(_DIRECT)
        elif self._state < _LOST:
            self._start_writer()

    def fail(self, code: int, reason: str) -> None:
        """The peer broke a rule: send a close frame and end our half without waiting for the peer's."""
        self._failed = True
        self.close(code, reason)

    def peer_closed(self) -> None:
        """The peer's close frame arrived: once ours has left too, the connection ends."""
        self._peer_closed = True
        if self._state == _CLOSING and self._queue is None and self._writer is not None:
            self._writer.cancel()

    def lost(self) -> None:
        """The connection has ended; what is still queued is dropped."""
        self._enter(max(self._state, _LOST))
        self._clear()
        if self._writer is not None:
            self._writer.cancel()

    def _enter(self, state: int) -> None:
        differs = (self._state == _DIRECT) != (state == _DIRECT)
        self._state = state
        if differs and self._changed is not None:
            self._changed()

    # The queue.

    def _enqueue(self, data: bytes, sent: int = 0) -> None:
        self._append(data)
        self._take(sent)
        if self._backlog > self._limit:
            self._close_slow()

    def _append(self, data: bytes) -> None:
        if not data:
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(data)
        self._backlog += len(data)

    def _take(self, taken: int) -> None:
        if taken == 0 or self._queue is None:
            return
        self._backlog -= taken
        taken += self._sent
        while self._queue and taken >= len(self._queue[0]):
            taken -= len(self._queue.popleft())
        self._sent = taken
        if not self._queue:
            self._queue = None

    def _gather(self, size: int) -> bytes:
        assert self._queue is not None
        chunk = self._queue[0][self._sent : self._sent + size]
        if len(self._queue) == 1 or len(chunk) == size:
            return chunk
        parts, room = [chunk], size - len(chunk)
        for item in islice(self._queue, 1, None):
            parts.append(item[:room])
            room -= len(parts[-1])
            if room == 0:
                break
        return b"".join(parts)

    def _clear(self) -> None:
        self._queue = None
        self._backlog = self._sent = 0

    def _close_slow(self) -> None:
        # What the kernel has half of must be finished, or the close frame would land in its middle.
        half, sent = (self._queue[0], self._sent) if self._queue and self._sent else (b"", 0)
        self._clear()
        if half:
            self._append(half)
            self._take(sent)
        self.close(self._slow_code, SLOW_REASON)

    def _write_head(self) -> bool:
        """Write what the kernel takes of the queue now; False when that was nothing."""
        if self._queue is None:
            return True
        try:
            taken = self._write(self._gather(_WRITE_BYTES))
        except BlockingIOError:
            return False
        except OSError:
            self._break()
            return True
        self._take(taken)
        return taken > 0

    def _break(self) -> None:
        # The reader may still find the peer's last frames, its close frame among them; then it calls `lost`.
        if self._state < _LOST:
            self._enter(_LOST)
            self._deadline = trio.current_time() + self._close_s
        self._clear()
        self._start_writer()

    # The writer task.

    def _start_writer(self) -> trio.CancelScope:
        if self._writer is None:
            self._writer = trio.CancelScope()
            self._start_soon(self._write_queue)
        return self._writer

    async def _write_queue(self) -> None:
        assert self._writer is not None
        with self._writer:
            try:
                if await self._empty_queue():
                    if self._state == _QUEUED:
                        self._enter(_DIRECT)
                        self._writer = None
                        return
                    await self._await_peer()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._break()
                await trio.sleep_until(self._deadline)
        await trio.aclose_forcefully(self._stream)

    async def _empty_queue(self) -> bool:
        """Write everything; False when the connection closes and its time is over."""
        while self._queue:
            torn = False
            with trio.move_on_at(min(trio.current_time() + self._stall_s, self._deadline)) as patience:
                await self._stream.wait_send_all_might_not_block()
                if not self._write_head():
                    # A stream of layers, such as TLS: only a whole send_all may write to it.
                    chunk = self._gather(_TLS_BYTES)
                    self._take(len(chunk))
                    torn = True
                    await self._stream.send_all(chunk)
                    torn = False
            if patience.cancelled_caught:
                if torn or trio.current_time() >= self._deadline:
                    return False
                if self._state == _QUEUED:
                    self._close_slow()
        return True

    async def _await_peer(self) -> None:
        """Give the peer until the deadline to close its side."""
        if self._failed and self._state == _CLOSING and isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        if self._state != _CLOSING or not self._peer_closed:
            await trio.sleep_until(self._deadline)


async def send_response(stream: trio.abc.SendStream, data: bytes, *, stall_s: float) -> None:
    """Send the bytes of an HTTP response.

    Raises:
        trio.BrokenResourceError: the client is gone, or took no 64 KiB within `stall_s` seconds.
    """
    for start in range(0, len(data), _WRITE_BYTES):
        with trio.move_on_after(stall_s) as patience:
            await stream.send_all(data[start : start + _WRITE_BYTES])
        if patience.cancelled_caught:
            raise trio.BrokenResourceError(f"the client took less than 64 KiB in {stall_s:g} s")


def fit_reason(reason: str) -> str:
    """A close reason cut to the 123 bytes that fit a close frame (RFC 6455, section 5.5)."""
    return reason.encode()[: limits.CLOSE_REASON_BYTES].decode(errors="ignore")
