"""TCP as trio streams with little in between: one object over a socket of the standard library.

`trio.SocketStream` wraps a trio socket, which wraps the real one; with ten thousand idle connections and a write for
each of them that detour is a good part of the bill. The rules are the same, and trio's own stream checks hold.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import final

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled, wait_readable, wait_writable

RECEIVE_BYTES = 65_536
BACKLOG = 4_096
KEEPALIVE_PROBES = 4
_UNSENT_BYTES = 16_384  # as trio.SocketStream: enough for the kernel to work with until the loop comes round
_CLOSED = "this socket was already closed"
_FINISHED = "can't send data after sending EOF"

_INFO_BYTES = 72  # of Linux' `struct tcp_info`, up to tcpi_rtt, its last four bytes: linux/tcp.h
_RTT = slice(68, 72)

TCP_WRITE: Callable[[socket.socket, bytes], int] = socket.socket.send
"""Writes what the kernel takes without waiting and returns how many bytes that was.

Raises:
    BlockingIOError: nothing now. OSError: the connection is broken, or closed here.
"""


@final
class TcpStream(trio.abc.HalfCloseableStream):
    """A connected TCP socket.

    Args:
        connected: a non-blocking stream socket; owned by this from now on.
        peer: the address of the other end.

    Attributes:
        peer: as given.
        socket: for `TCP_WRITE`, by one who sees to it that no task is sending meanwhile.
    """

    __slots__ = ("_emptied", "_finished", "_sending", "peer", "socket")

    def __init__(self, connected: socket.socket, *, peer: str = "") -> None:
        self.peer = peer
        self.socket = connected
        self._sending = False
        self._finished = False
        self._emptied = False  # the last read took all there was: the next one would find nothing, as a rule

    @property
    def round_trip_s(self) -> float | None:
        """How long the other end takes to acknowledge, smoothed, in seconds (RFC 6298): nothing is sent to find out.

        None once it is closed, and on systems other than Linux.
        """
        if sys.platform != "linux":
            return None
        try:
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        except OSError:
            return None
        return int.from_bytes(info[_RTT], sys.byteorder) / 1_000_000 or None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, waiting for the kernel to take it.

        Raises:
            trio.BrokenResourceError: the connection is gone. trio.ClosedResourceError: closed here, or `send_eof` was
            called. trio.BusyResourceError: another task is sending.
        """
        if self._finished:
            raise trio.ClosedResourceError(_FINISHED)
        with self._one_sender():
            await checkpoint_if_cancelled()
            rest = memoryview(data)
            waited = False
            while True:
                try:
                    rest = rest[self.socket.send(rest) :]
                except BlockingIOError:
                    waited = True
                    await wait_writable(self.socket)
                except OSError as error:
                    raise _stream_error(error) from error
                if not rest:
                    break
            if not waited:
                await cancel_shielded_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes more, or the connection is gone.

        Raises:
            trio.ClosedResourceError: closed here. trio.BusyResourceError: another task is sending.
        """
        with self._one_sender():
            if self.socket.fileno() == -1:
                raise trio.ClosedResourceError(_CLOSED)
            await wait_writable(self.socket)

    async def send_eof(self) -> None:
        """Tell the receiver that nothing follows; receiving goes on.

        Raises:
            trio.BrokenResourceError: the connection is gone. trio.ClosedResourceError: closed here.
            trio.BusyResourceError: another task is sending.
        """
        with self._one_sender():
            await checkpoint()
            if self._finished:
                return
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                raise _stream_error(error) from error
            self._finished = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes; b"" when the sender has finished.

        Raises:
            trio.BrokenResourceError: the connection is gone. trio.ClosedResourceError: closed here.
            trio.BusyResourceError: another task is receiving.
        """
        if max_bytes is None:
            max_bytes = RECEIVE_BYTES
        if max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}; at least 1")
        waited = False
        if not self._emptied:
            await checkpoint_if_cancelled()
        elif self.socket.fileno() == -1:
            raise trio.ClosedResourceError(_CLOSED)
        while True:
            if self._emptied:
                await wait_readable(self.socket)
                waited = True
            try:
                data = self.socket.recv(max_bytes)
            except BlockingIOError:
                self._emptied = True  # readiness is a hint: the bytes may be gone again
                continue
            except OSError as error:
                raise _stream_error(error) from error
            self._emptied = len(data) < max_bytes
            if not waited:
                await cancel_shielded_checkpoint()
            return data

    async def aclose(self) -> None:
        """Close the socket; what waits on it ends with trio.ClosedResourceError."""
        _close(self.socket)
        await checkpoint()

    @contextmanager
    def _one_sender(self) -> Generator[None, None, None]:
        if self._sending:
            raise trio.BusyResourceError("another task is currently sending data on this TcpStream")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False


class TcpListener(trio.abc.Listener[TcpStream]):
    """A listening TCP socket. Options are set on it, once: what it accepts inherits them.

    Args:
        listening: a non-blocking listening socket; owned by this from now on.

    Attributes:
        socket: as given.
    """

    def __init__(self, listening: socket.socket) -> None:
        self.socket = listening
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._set("TCP_NOTSENT_LOWAT", _UNSENT_BYTES)

    def keep_alive(self, seconds: int) -> None:
        """Let the kernel find out about peers that vanished without a word, in what is accepted from now on.

        Args:
            seconds: of silence, after which TCP asks whether the peer is still there; also between the times it asks.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._set("TCP_KEEPIDLE", seconds)
        self._set("TCP_KEEPINTVL", seconds)
        self._set("TCP_KEEPCNT", KEEPALIVE_PROBES)

    async def accept(self) -> TcpStream:
        """Wait for the next connection.

        Raises:
            trio.ClosedResourceError: closed here. OSError: of accept(2); some of them pass.
        """
        await checkpoint_if_cancelled()
        waited = False
        while True:
            try:
                connected, address = self.socket.accept()
            except BlockingIOError:
                waited = True
                await wait_readable(self.socket)
                continue
            except OSError as error:
                if error.errno == errno.EBADF:
                    raise trio.ClosedResourceError(_CLOSED) from None
                raise
            connected.setblocking(False)
            if not waited:
                await cancel_shielded_checkpoint()
            return TcpStream(connected, peer=address[0])

    async def aclose(self) -> None:
        """Stop listening."""
        _close(self.socket)
        await checkpoint()

    def _set(self, name: str, value: int) -> None:
        option = getattr(socket, name, None)
        if option is not None:  # not every system has them all
            self.socket.setsockopt(socket.IPPROTO_TCP, option, value)


async def open_listeners(host: str, port: int, /) -> Sequence[TcpListener]:
    """Listen on every address that a host has; with port 0 each picks a free one.

    Raises:
        OSError: an address cannot be listened on.
    """
    opened = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    return [TcpListener(socket.socket(fileno=listener.socket.detach())) for listener in opened]


def _close(sock: socket.socket) -> None:
    if sock.fileno() != -1:
        trio.lowlevel.notify_closing(sock)
        sock.close()


def _stream_error(error: OSError) -> Exception:
    if error.errno == errno.EBADF:
        return trio.ClosedResourceError(_CLOSED)
    return trio.BrokenResourceError(f"socket connection broken: {error}")
