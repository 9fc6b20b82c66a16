"""A network in memory for tests and simulation: bounded windows like TCP's, no kernel, no real time.

A `MemoryStream` pushes back when its window is full, can be half-closed, and can be reset; `write_now` is the write
of `Platform` for it. A `MemoryNetwork` stands in for `platform.listen` and hands out the other ends.
"""

from __future__ import annotations

import errno
import itertools
import operator
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import final
from weakref import WeakValueDictionary

import attrs
import trio
from trio.lowlevel import ParkingLot

from runtime.platform import NO_WRITER, Writer

WINDOW_BYTES = 65_536
BACKLOG = 4_096
_FIRST_FREE_PORT = 49_152


def writer(stream: trio.abc.Stream, /) -> Writer:
    """`Platform.writer` for memory streams: takes what fits the window; of any other stream, nothing."""
    return Writer(MemoryStream.write_now, stream) if isinstance(stream, MemoryStream) else NO_WRITER


@attrs.frozen(kw_only=True)
class Weather:
    """What a network does to bytes on their way. They stay in order and none is lost.

    Attributes:
        later: calls a function after as long as what has arrived is kept from a receiver that waits for it.
        bite: how many of so many bytes one read gets, at least 1.
    """

    later: Callable[[Callable[[], object]], None]
    bite: Callable[[int], int]


class _Pipe:
    """One direction: bytes that the receiver has not taken yet, at most a window of them."""

    __slots__ = (
        "buffer",
        "finished",
        "held",
        "readable",
        "receiver_gone",
        "reset",
        "weather",
        "window",
        "writable",
    )

    def __init__(self, window: int, weather: Weather | None) -> None:
        self.buffer = bytearray()
        self.held = False  # nothing of what was sent, nor its end, comes through
        self.weather = weather
        self.window = window
        self.finished = False  # the sender will send no more
        self.receiver_gone = False
        self.reset = False
        self.readable = ParkingLot()
        self.writable = ParkingLot()

    @property
    def room(self) -> int:
        return self.window - len(self.buffer)

    @property
    def arrived(self) -> bool:
        return not self.held and bool(self.reset or self.buffer or self.finished)

    def arrive(self) -> None:
        if self.weather is None:
            self.readable.unpark_all()
        elif self.readable:
            self.weather.later(self.readable.unpark_all)

    def wake(self) -> None:
        self.arrive()
        self.writable.unpark_all()


@final
class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory.

    Args:
        incoming, outgoing: the two directions; made by `memory_stream_pair`.
        peer: the address of the other end, as text.

    Attributes:
        peer: as given.
    """

    def __init__(self, incoming: _Pipe, outgoing: _Pipe, *, peer: str = "") -> None:
        self.peer = peer
        self._in = incoming
        self._out = outgoing
        self._closed = False
        self._sending = False
        self._receiving = False
        self._loses = False
        self._tears: float | None = None

    def write_now(self, data: bytes | bytearray | memoryview) -> int:
        """Take as many bytes as the window has room for, without waiting, and return how many.

        Raises:
            OSError: this end is closed, or the other end is gone.
        """
        if self._closed or self._out.finished:
            raise OSError(errno.EBADF, "this end of the stream is closed")
        if self._out.reset:
            raise ConnectionResetError(errno.ECONNRESET, "the connection was reset")
        if self._out.receiver_gone:
            raise BrokenPipeError(errno.EPIPE, "the other end of the stream is closed")
        if self._loses and data:
            self.reset()
            return len(data)
        if self._tears is not None and len(data) > 1:
            self._out.buffer += memoryview(data)[: min(self._out.room, 1 + int(self._tears * (len(data) - 2)))]
            self._close()
            return len(data)
        taken = min(self._out.room, len(data))
        if taken:
            self._out.buffer += memoryview(data)[:taken]
            self._out.arrive()
        return taken

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, waiting for the receiver to make room."""
        with self._one_sender():
            await trio.lowlevel.checkpoint()
            rest = memoryview(data)
            while True:
                try:
                    rest = rest[self.write_now(rest) :]
                except OSError as error:
                    raise self._stream_error(error) from error
                if not rest:
                    return
                await self._out.writable.park()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room, or the connection is gone."""
        with self._one_sender():
            await trio.lowlevel.checkpoint()
            while not (self._closed or self._out.room or self._out.reset or self._out.receiver_gone):
                await self._out.writable.park()
            if self._closed:
                raise trio.ClosedResourceError("this end of the stream is closed")

    async def send_eof(self) -> None:
        """Tell the receiver that nothing follows; receiving goes on."""
        with self._one_sender():
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this end of the stream is closed")
            self._out.finished = True
            self._out.wake()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes; b"" when the sender has finished."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes is {max_bytes}; at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            if self._closed or self._in.arrived:
                await trio.lowlevel.checkpoint()
            while not (self._closed or self._in.arrived):
                await self._in.readable.park()
        finally:
            self._receiving = False
        if self._closed:
            raise trio.ClosedResourceError("this end of the stream is closed")
        if self._in.reset:
            raise trio.BrokenResourceError("the connection was reset")
        if self._in.weather is not None and self._in.buffer:
            size = len(self._in.buffer) if max_bytes is None else min(max_bytes, len(self._in.buffer))
            max_bytes = self._in.weather.bite(size)
        data = bytes(self._in.buffer[:max_bytes])
        del self._in.buffer[:max_bytes]
        self._in.writable.unpark_all()
        return data

    async def aclose(self) -> None:
        """Close both directions; what was sent can still be received."""
        self._close()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Break the connection at once: what is in flight is lost and both ends find out (TCP: RST)."""
        for pipe in (self._in, self._out):
            pipe.reset = True
            pipe.buffer.clear()
        self._close()

    def lose_next(self) -> None:
        """Take what this end sends next, and lose it: the connection is reset with it on its way."""
        self._loses = True

    def tear_next(self, part: float) -> None:
        """Of what this end sends next only a part (0 to 1) arrives, never all of it, and nothing after it."""
        self._tears = part

    def hold_what_is_sent(self) -> bool:
        """Keep back what this end sends, until `release`, as if nobody read it; False if it is kept back already."""
        held, self._out.held = self._out.held, True
        return not held

    def hold(self) -> None:
        """Keep back everything in both directions, ends and resets included, until `release`: neither end is told."""
        for pipe in (self._in, self._out):
            pipe.held = True

    def release(self) -> None:
        """What was held comes through."""
        for pipe in (self._in, self._out):
            pipe.held = False
            pipe.wake()

    @property
    def closed(self) -> bool:
        """This end was closed, or the connection was reset."""
        return self._closed

    @property
    def unread_bytes(self) -> int:
        """Bytes that this end has sent and the other has not received."""
        return len(self._out.buffer)

    def _close(self) -> None:
        self._closed = True
        self._out.finished = True
        self._in.receiver_gone = True
        self._in.buffer.clear()
        self._in.wake()
        self._out.wake()

    def _stream_error(self, error: OSError) -> Exception:
        if error.errno == errno.EBADF:
            return trio.ClosedResourceError(str(error))
        return trio.BrokenResourceError(str(error))

    @contextmanager
    def _one_sender(self) -> Generator[None, None, None]:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False


def memory_stream_pair(
    window_bytes: int = WINDOW_BYTES, *, peers: tuple[str, str] = ("", ""), weather: Weather | None = None
) -> tuple[MemoryStream, MemoryStream]:
    """Two connected ends; each direction holds at most `window_bytes` that were not received.

    `peers` are the addresses that the first and the second end see.
    """
    there, back = _Pipe(window_bytes, weather), _Pipe(window_bytes, weather)
    return MemoryStream(back, there, peer=peers[0]), MemoryStream(there, back, peer=peers[1])


@final
class MemoryListener(trio.abc.Listener[MemoryStream]):
    """Where a `MemoryNetwork` delivers connections to one address.

    Attributes:
        address: host and port.
    """

    def __init__(self, network: MemoryNetwork, address: tuple[str, int]) -> None:
        self.address = address
        self._network = network
        self._pending: deque[MemoryStream] = deque()
        self._arrived = ParkingLot()
        self._closed = False

    async def accept(self) -> MemoryStream:
        """Wait for the next connection, in the order of `connect`."""
        await trio.lowlevel.checkpoint()
        while not self._pending:
            if self._closed:
                raise trio.ClosedResourceError("the listener is closed")
            await self._arrived.park()
        return self._pending.popleft()

    async def aclose(self) -> None:
        """Stop listening; connections that nobody accepted are reset."""
        self.stop()
        await trio.lowlevel.checkpoint()

    def stop(self) -> None:
        """The same at once, as when the process ends."""
        self._closed = True
        self._network.forget(self)
        while self._pending:
            self._pending.popleft().reset()
        self._arrived.unpark_all()

    def arrive(self, stream: MemoryStream) -> bool:
        """A connection arrives; False when too many wait already."""
        if len(self._pending) >= BACKLOG:
            return False
        self._pending.append(stream)
        self._arrived.unpark()
        return True


class MemoryNetwork:
    """Listeners and connections of one simulated network.

    Args:
        window_bytes: what each direction of a new connection holds before its sender waits.
        weather: what happens to bytes on their way; nothing when None.
    """

    def __init__(self, *, window_bytes: int = WINDOW_BYTES, weather: Weather | None = None) -> None:
        self._window = window_bytes
        self._weather = weather
        self._listeners: dict[tuple[str, int], MemoryListener] = {}
        self._ports = itertools.count(_FIRST_FREE_PORT)
        self._made = itertools.count()
        self._streams: WeakValueDictionary[int, MemoryStream] = WeakValueDictionary()  # servers' ends

    async def listen(self, host: str, port: int, /) -> Sequence[MemoryListener]:
        """`Platform.listen`: open a listener; port 0 picks a free port.

        Raises:
            OSError: the address is in use.
        """
        await trio.lowlevel.checkpoint()
        address = (_canonical(host), port or next(self._ports))
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, f"{address[0]}:{address[1]} is in use")
        self._listeners[address] = listener = MemoryListener(self, address)
        return [listener]

    async def connect(self, host: str, port: int, *, peer: str = "127.0.0.1") -> MemoryStream:
        """Connect from the address `peer`.

        Raises:
            OSError: nobody listens there, or its queue is full.
        """
        await trio.lowlevel.checkpoint()
        listener = self._listeners.get((_canonical(host), port)) or self._listeners.get(("0.0.0.0", port))  # noqa: S104 -- a name, nothing binds
        client, server = memory_stream_pair(self._window, peers=(host, peer), weather=self._weather)
        self._streams[next(self._made)] = server
        if listener is None or not listener.arrive(server):
            raise OSError(errno.ECONNREFUSED, f"nobody accepts connections at {host}:{port}")
        return client

    @property
    def connections(self) -> list[MemoryStream]:
        """The servers' ends of what is open, in the order of `connect`."""
        return [stream for stream in self._streams.values() if not stream.closed]

    @property
    def listeners(self) -> list[MemoryListener]:
        """Those that are open."""
        return list(self._listeners.values())

    def cut(self) -> None:
        """Reset every connection at once, as when the server's machine loses power."""
        for stream in list(self._streams.values()):
            stream.reset()

    def forget(self, listener: MemoryListener) -> None:
        """The listener is closed."""
        if self._listeners.get(listener.address) is listener:
            del self._listeners[listener.address]


def _canonical(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host
