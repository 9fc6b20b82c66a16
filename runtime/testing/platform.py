"""A platform for tests: seeded, in virtual time, blocking calls inline."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from runtime.meter import Meter
from runtime.platform import Platform
from runtime.testing.disk import VirtualDisk
from runtime.testing.streams import MemoryNetwork, writer

EPOCH_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z: where virtual wall clocks start


def virtual_platform(seed: int = 0, network: MemoryNetwork | None = None, disk: VirtualDisk | None = None) -> Platform:
    """A platform whose wall clock is the trio clock (use it under `trio.testing.MockClock`).

    Blocking calls run inline, syncs go through the disk if one is given, the network is in memory, and the same seed
    gives the same ids, tokens and jitter. Call it inside `trio.run`.
    """
    ids = random.Random(f"{seed}/ids")  # noqa: S311 -- reproducible on purpose
    started = trio.current_time()
    return Platform(
        now=lambda: EPOCH_S + trio.current_time() - started,
        random=random.Random(f"{seed}/jitter"),  # noqa: S311
        token_bytes=ids.randbytes,
        run_blocking=_run_inline,
        sync_file=_sync_nothing if disk is None else disk.sync_file,
        listen=(network or MemoryNetwork()).listen,
        writer=writer,
        meter=Meter(),
    )


async def _sync_nothing(*_: Path) -> None:
    await trio.lowlevel.checkpoint()


async def _run_inline(fn: Callable[..., Any], /, *args: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return fn(*args)
