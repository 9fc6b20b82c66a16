"""The real world in one frozen value; the only module that knows it is real.

Time is the trio clock and the network is `trio.abc.Stream`; this adds wall clock, randomness, where blocking calls
run, where the server listens, and the write that never waits. Tests replace this value and nothing else.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Callable, Sequence
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
        run_commit: the same for one that is short as a rule, and that everybody waits for; `run_blocking` by default.
        sync_file: makes what was written to files last.
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
    run_commit: RunBlocking = attrs.field(default=attrs.Factory(lambda self: self.run_blocking, takes_self=True))


def real_platform() -> Platform:
    """The platform of a server process."""
    threads = Threads()
    return Platform(
        now=time.time,
        random=random.Random(secrets.randbits(64)),  # noqa: S311 -- jitter only
        token_bytes=secrets.token_bytes,
        run_blocking=threads.run,
        run_commit=threads.run_short,
        sync_file=_file_syncer(threads.run_short),
        listen=open_listeners,
        writer=_writer,
        meter=Meter(),
    )


def _file_syncer(run_in_thread: RunBlocking) -> SyncFile:
    async def sync_files(*paths: Path) -> None:
        await run_in_thread(_fdatasync, paths)

    return sync_files


def _fdatasync(paths: Sequence[Path]) -> None:
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
