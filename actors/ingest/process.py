"""Runs a command to its end: bounded output, a time limit by the caller's cancel scope, and no child left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import attrs
import trio

STDERR_BYTES = 4_096  # the end of it
KILL_S = 2.0  # between asking its processes to stop and killing them
_CHUNK_BYTES = 65_536


@attrs.frozen(kw_only=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code, or minus the signal that killed it.
        stdout: all of it, at most one byte more than was allowed. stderr: its end.
    """

    code: int
    stdout: bytes
    stderr: bytes


class RunCommand(Protocol):
    """Runs a command; when the wait is cancelled the command and everything it started is stopped."""

    async def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None, stdout_bytes: int
    ) -> Ended:
        """Wait for its end. One that writes more than `stdout_bytes` is stopped. Raises: OSError."""
        ...


async def run_command(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None, stdout_bytes: int) -> Ended:
    """Run it for real, in a process group of its own, with nothing on its standard input."""
    process = await trio.lowlevel.open_process(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **env},
        cwd=cwd,
        start_new_session=True,
    )
    stdout, stderr = bytearray(), bytearray()
    assert process.stdout is not None
    assert process.stderr is not None

    async def read_stderr(stream: trio.abc.ReceiveStream) -> None:
        while chunk := await stream.receive_some(_CHUNK_BYTES):
            stderr.extend(chunk)
            del stderr[:-STDERR_BYTES]

    try:
        async with process.stdout, process.stderr, trio.open_nursery() as nursery:
            nursery.start_soon(read_stderr, process.stderr)
            while chunk := await process.stdout.receive_some(_CHUNK_BYTES):
                stdout.extend(chunk)
                if len(stdout) > stdout_bytes:
                    del stdout[stdout_bytes + 1 :]
                    break
            if len(stdout) > stdout_bytes:
                nursery.cancel_scope.cancel()
            else:
                await process.wait()
    finally:
        with trio.CancelScope(shield=True):
            await _stop(process)
    assert process.returncode is not None
    return Ended(code=process.returncode, stdout=bytes(stdout), stderr=bytes(stderr))


async def _stop(process: trio.Process) -> None:
    """Stop what is left of its process group, gently at first."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        with trio.move_on_after(KILL_S):
            await process.wait()
    _signal(process, signal.SIGKILL)  # whatever it started and left behind
    await process.wait()


def _signal(process: trio.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
