"""What can be made to fail on purpose while a server runs: its sockets, its commits, its clock and its process.

A server that is started for it runs on the platform that `with_faults` makes of the real one. An ordinary server runs
on the real one, and nothing of this is in its way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from runtime.platform import Begun, OpenFile, Platform, Writer
from runtime.tcp import TcpListener

_LIVE = b"HTTP/1.1 101 "
_EVENTS = b"content-type: text/event-stream"
_DROPPED = "the connection was dropped on purpose"


class Faults:
    """Makes things fail, each for a time that ends by itself.

    Args:
        now: the real wall clock. kill: ends the process at once.
    """

    def __init__(self, now: Callable[[], float], kill: Callable[[], None]) -> None:
        self.kill = kill
        self._now = now
        self._streams: dict[FaultyStream, None] = {}
        self._numbers = itertools.count(1)
        self._delay_s = self._skew_s = 0.0
        self._delays_until = self._skews_until = -math.inf

    def connections(self, besides: str) -> list[FaultyStream]:
        """Those that stay: WebSockets and event streams, but of paths that begin with `besides`.

        Under TLS nobody can see which those are, and all are told.
        """
        return [one for one in self._streams if one.stays is None or (one.stays and not one.path.startswith(besides))]

    async def drop(self, streams: Iterable[FaultyStream]) -> None:
        """Break connections without a word, as a network does."""
        for stream in streams:
            await stream.drop()

    def stall(self, streams: Iterable[FaultyStream], seconds: float) -> None:
        """Let nothing through in either direction for a time."""
        for stream in streams:
            stream.stall(trio.current_time() + seconds)

    def delay_commits(self, by_s: float, seconds: float) -> None:
        """For a time let each commit wait before it begins."""
        self._delay_s, self._delays_until = by_s, trio.current_time() + seconds

    def skew_clock(self, by_s: float, seconds: float) -> None:
        """For a time let the wall clock be ahead by so much, or behind."""
        self._skew_s, self._skews_until = by_s, self._now() + seconds

    def end(self) -> None:
        """Everything is as it should be, from now on; what was dropped stays so."""
        self._delays_until = self._skews_until = -math.inf
        for stream in self._streams:
            stream.stall(-math.inf)

    # What the platform asks.

    def now(self) -> float:
        """The wall clock as it is told."""
        now = self._now()
        return now + self._skew_s if now < self._skews_until else now

    async def wait(self) -> None:
        """What a commit waits for."""
        if (left_s := self._delays_until - trio.current_time()) > 0:
            await trio.sleep(min(self._delay_s, left_s))

    def begin(self, begin: Callable[[], Begun]) -> Begun:
        """Begin with a commit now, or let it wait."""
        if self._delays_until > trio.current_time():
            return _Late(self.wait, begin)
        return begin()

    def accepted(self, stream: trio.abc.Stream, writer: Writer) -> FaultyStream:
        """A connection has come."""
        faulty = FaultyStream(stream, writer, self._streams, next(self._numbers))
        self._streams[faulty] = None
        return faulty


@attrs.frozen
class _Late:
    """What begins once it has waited, as soon as somebody waits for its end."""

    wait: Callable[[], Awaitable[None]]
    begin: Callable[[], Begun]

    async def end(self) -> Any:
        await self.wait()
        return await self.begin().end()


class FaultyStream(trio.abc.HalfCloseableStream):
    """A connection that can be dropped or stalled.

    Args:
        inner: the connection. writer: its write that never waits. open_streams: those that there are.
        number: of this one, among all that there have been.

    Attributes:
        number: as given, so that who holds the WebSocket can say which connection is beneath it.
        path: of its last request.
        stays: it has become a WebSocket or an event stream; None while that cannot be seen, as under TLS.
    """

    def __init__(
        self, inner: trio.abc.Stream, writer: Writer, open_streams: dict[FaultyStream, None], number: int
    ) -> None:
        self.number = number
        self.peer = str(getattr(inner, "peer", ""))
        self.path = ""
        self.stays: bool | None = False
        self._stalled_until = -math.inf
        self._changed = trio.Event()
        self._inner = inner
        self._writer = writer
        self._open = open_streams
        self._dropped = False

    @property
    def round_trip_s(self) -> float | None:
        """The same as of the connection itself."""
        found: float | None = getattr(self._inner, "round_trip_s", None)
        return found

    async def drop(self) -> None:
        """Break it."""
        self._dropped = True
        self._open.pop(self, None)
        await self._inner.aclose()

    def stall(self, until: float) -> None:
        """Let nothing through until then, on trio's clock."""
        self._stalled_until = until
        self._changed.set()
        self._changed = trio.Event()

    def write(self, data: bytes) -> int:
        """What is taken without waiting: nothing while it is stalled."""
        if self._left_s > 0:
            return 0
        self._said(data)
        return self._writer(data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, once it is not stalled any more."""
        self._said(data)
        await self._go_on()
        await self._tried(self._inner.send_all(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until more would be taken."""
        await self._go_on()
        await self._tried(self._inner.wait_send_all_might_not_block())

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Wait for bytes, and keep them back while it is stalled."""
        data: bytes | bytearray = await self._tried(self._inner.receive_some(max_bytes))
        await self._go_on()
        if not self.stays:
            self._heard(bytes(data[:1_024]))
        return data

    async def send_eof(self) -> None:
        """Tell the receiver that nothing follows."""
        assert isinstance(self._inner, trio.abc.HalfCloseableStream)
        await self._tried(self._inner.send_eof())

    async def aclose(self) -> None:
        """Close it."""
        self._open.pop(self, None)
        await self._inner.aclose()

    @property
    def _left_s(self) -> float:
        return self._stalled_until - trio.current_time()

    async def _go_on(self) -> None:
        while (left_s := self._left_s) > 0:
            with trio.move_on_after(left_s):
                await self._changed.wait()

    async def _tried(self, awaited: Awaitable[Any]) -> Any:
        try:
            return await awaited
        except trio.ClosedResourceError:
            if self._dropped:
                raise trio.BrokenResourceError(_DROPPED) from None
            raise

    def _heard(self, data: bytes) -> None:
        method, _, rest = data.partition(b" ")
        if method.isalpha() and method.isupper():
            self.path = rest.partition(b" ")[0].decode("ascii", "replace")
        elif not self.path:
            self.stays = None

    def _said(self, data: bytes | bytearray | memoryview) -> None:
        if self.stays is False:
            head = bytes(data[:1_024])
            self.stays = head.startswith(_LIVE) or (head.startswith(b"HTTP/1.1 200") and _EVENTS in head.lower())


class _Listener(trio.abc.Listener[FaultyStream]):
    def __init__(self, inner: trio.abc.Listener[trio.abc.Stream], wrap: Callable[[trio.abc.Stream], FaultyStream]):
        self._inner = inner
        self._wrap = wrap

    async def accept(self) -> FaultyStream:
        return self._wrap(await self._inner.accept())

    async def aclose(self) -> None:
        await self._inner.aclose()


class _TcpListener(TcpListener):
    """One that is still asked for its port, and told to keep connections alive."""

    def __init__(self, inner: TcpListener, wrap: Callable[[trio.abc.Stream], FaultyStream]) -> None:
        super().__init__(inner.socket)
        self._wrap = wrap

    async def accept(self) -> FaultyStream:  # type: ignore[override]  # a server takes any stream
        return self._wrap(await super().accept())


def with_faults(platform: Platform, kill: Callable[[], None]) -> tuple[Platform, Faults]:
    """A platform on which things can be made to fail, and what does that."""
    faults = Faults(platform.now, kill)

    def wrap(stream: trio.abc.Stream) -> FaultyStream:
        return faults.accepted(stream, platform.writer(stream))

    async def listen(host: str, port: int, /) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        found = await platform.listen(host, port)
        return [_TcpListener(one, wrap) if isinstance(one, TcpListener) else _Listener(one, wrap) for one in found]

    def writer(stream: trio.abc.Stream, /) -> Writer:
        return Writer(FaultyStream.write, stream) if isinstance(stream, FaultyStream) else platform.writer(stream)

    def begin_commit(fn: Callable[..., Any], /, *args: Any) -> Begun:
        return faults.begin(partial(platform.begin_commit, fn, *args))

    def begin_sync(*files: OpenFile) -> Begun:
        return faults.begin(partial(platform.begin_sync, *files))

    async def sync_file(*paths: Path) -> None:
        await faults.wait()
        await platform.sync_file(*paths)

    return (
        attrs.evolve(
            platform,
            now=faults.now,
            listen=listen,
            writer=writer,
            sync_file=sync_file,
            begin_commit=begin_commit,
            begin_sync=begin_sync,
        ),
        faults,
    )
