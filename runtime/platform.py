"""The real world in one frozen value; the only module that knows it is real.

Time is the trio clock and the network is `trio.abc.Stream`; this adds wall clock, randomness, where blocking calls
run, where the server listens, and the write that never waits. Tests replace this value and nothing else.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from runtime.meter import Meter
from runtime.tcp import TCP_WRITE, TcpStream, open_listeners
from runtime.threads import Threads


class RunBlocking(Protocol):
    """Runs a blocking function without stalling the loop and returns its value."""

    async def __call__(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """Run `fn(*args)`."""
        ...


class SyncFile(Protocol):
    """Makes what was written to files last, without stalling the loop.

    Raises:
        OSError: it may not last.
    """

    async def __call__(self, *paths: Path) -> None:
        """Return when all of them would survive a power cut."""
        ...


class Begun(Protocol):
    """A call that has begun, or is about to: it needs nobody to wait for it, and nothing stops it."""

    async def end(self) -> Any:
        """Wait for the end, and return its value; for one task, once."""
        ...


class Begin(Protocol):
    """Begins with a blocking function and returns at once, from wherever it is called on the loop."""

    def __call__(self, fn: Callable[..., Any], /, *args: Any) -> Begun:
        """Begin with `fn(*args)`."""
        ...


@attrs.frozen
class OpenFile:
    """A file that is open: where it is, and a descriptor that may be written with."""

    path: Path
    descriptor: int


class BeginSync(Protocol):
    """Begins to make last what was written to files, which stay open until its end."""

    def __call__(self, *files: OpenFile) -> Begun:
        """Begin; the end raises what `SyncFile` raises."""
        ...


@attrs.frozen
class Later:
    """A call that begins when somebody waits for its end: what blocks nobody needs no thread."""

    _run: Callable[[], Awaitable[Any]]

    async def end(self) -> Any:
        """Run it."""
        return await self._run()


def _commit_later(run_blocking: RunBlocking) -> Begin:
    def begin_commit(fn: Callable[..., Any], /, *args: Any) -> Begun:
        return Later(partial(run_blocking, fn, *args))

    return begin_commit


def _sync_later(sync_file: SyncFile) -> BeginSync:
    def begin_sync(*files: OpenFile) -> Begun:
        return Later(partial(sync_file, *[file.path for file in files]))

    return begin_sync


class Listen(Protocol):
    """Opens listeners for a TCP address; port 0 picks a free port."""

    async def __call__(self, host: str, port: int, /) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        """Listen. Raises: OSError."""
        ...


@attrs.frozen
class Writer:
    """The write of a stream that never waits.

    It is a function and what it writes to, apart, so that many streams can be written to with nothing in between.

    Attributes:
        write: `write(target, data)` writes what the kernel takes and returns how many bytes that was. Raises
            BlockingIOError: it takes nothing now; so does a return of 0. OSError: the stream is broken.
    """

    write: Callable[[Any, bytes], int]
    target: object

    def __call__(self, data: bytes, /) -> int:
        """Write."""
        return self.write(self.target, data)


def pass_by(_name: str, /) -> None:
    """Outside a simulation a rare branch is a branch like any other."""


@attrs.frozen(kw_only=True)
class Platform:
    """What the runtime needs from the world, as capabilities.

    Attributes:
        now: wall clock, seconds since the Unix epoch.
        random: jitter; never ids or secrets.
        token_bytes: ids, epochs, tokens, keys.
        run_blocking: runs a blocking call off the loop.
        begin_commit: begins with a blocking call that is short as a rule, and that everybody waits for; by default it
            is run by `run_blocking` once its end is waited for.
        sync_file: makes what was written to files last.
        begin_sync: begins with the same; by default as above, by `sync_file`.
        listen: opens listeners.
        writer: the write of a stream that never waits.
        point: `point("commit failed")` stands where a branch begins that is rarely taken, and does nothing. A
            simulation counts them, so that it is known that its runs go there, and may end the process there.
        meter: keeps what is measured; None: nothing is.
    """

    now: Callable[[], float]
    random: random.Random
    token_bytes: Callable[[int], bytes]
    run_blocking: RunBlocking
    sync_file: SyncFile
    listen: Listen
    writer: Callable[[trio.abc.Stream], Writer]
    point: Callable[[str], None] = pass_by
    meter: Meter | None = None
    begin_commit: Begin = attrs.Factory(lambda self: _commit_later(self.run_blocking), takes_self=True)
    begin_sync: BeginSync = attrs.Factory(lambda self: _sync_later(self.sync_file), takes_self=True)


def real_platform() -> Platform:
    """The platform of a server process."""
    threads = Threads()

    def begin_sync(*files: OpenFile) -> Begun:
        return threads.begin(_fdatasync, files)

    async def sync_file(*paths: Path) -> None:
        await threads.run(_fdatasync_of, paths)

    return Platform(
        now=time.time,
        random=random.Random(secrets.randbits(64)),  # noqa: S311 -- jitter only
        token_bytes=secrets.token_bytes,
        run_blocking=threads.run,
        begin_commit=threads.begin,
        sync_file=sync_file,
        begin_sync=begin_sync,
        listen=open_listeners,
        writer=_writer,
        meter=Meter(),
    )


def _fdatasync(files: Sequence[OpenFile]) -> None:
    for file in files:
        os.fdatasync(file.descriptor)


def _fdatasync_of(paths: Sequence[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def _writer(stream: trio.abc.Stream, /) -> Writer:
    return Writer(TCP_WRITE, stream.socket) if isinstance(stream, TcpStream) else NO_WRITER


def _write_nothing(_target: object, _data: bytes, /) -> int:
    return 0  # TLS: only its own task may write


NO_WRITER = Writer(_write_nothing, None)
"""Of a stream that only its own task may write to."""
