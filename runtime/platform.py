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

from runtime.tcp import TcpStream, open_listeners


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


WriteNow = Callable[[bytes], int]
"""Writes what the kernel takes without waiting and returns how many bytes that was.

Raises:
    BlockingIOError: it takes nothing now; so does a return of 0. OSError: the stream is broken.
"""


@attrs.frozen(kw_only=True)
class Platform:
    """What the runtime needs from the world, as capabilities.

    Attributes:
        now: wall clock, seconds since the Unix epoch.
        random: jitter; never ids or secrets.
        token_bytes: ids, epochs, tokens, keys.
        run_blocking: runs a blocking call off the loop.
        sync_file: makes what was written to files last.
        listen: opens listeners.
        writer: the write of a stream that never waits.
    """

    now: Callable[[], float]
    random: random.Random
    token_bytes: Callable[[int], bytes]
    run_blocking: RunBlocking
    sync_file: SyncFile
    listen: Listen
    writer: Callable[[trio.abc.Stream], WriteNow]


def real_platform() -> Platform:
    """The platform of a server process."""
    return Platform(
        now=time.time,
        random=random.Random(secrets.randbits(64)),  # noqa: S311 -- jitter only
        token_bytes=secrets.token_bytes,
        run_blocking=_run_in_thread,
        sync_file=_sync_files,
        listen=open_listeners,
        writer=_writer,
    )


async def _sync_files(*paths: Path) -> None:
    await trio.to_thread.run_sync(_fdatasync, paths)


def _fdatasync(paths: Sequence[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


async def _run_in_thread(fn: Callable[..., Any], /, *args: Any) -> Any:
    return await trio.to_thread.run_sync(fn, *args)


def _writer(stream: trio.abc.Stream, /) -> WriteNow:
    return stream.write_now if isinstance(stream, TcpStream) else _write_nothing


def _write_nothing(_: bytes, /) -> int:
    return 0  # TLS: only its own task may write
