"""A disk that knows what a power cut leaves of the database files of SQL classes, and of their histories."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from runtime.storage.object_history import history_path


@attrs.frozen
class _Copy:
    """A database, its log and the files of its history at one moment; None: no such file."""

    database: bytes | None
    log: bytes | None
    history: dict[str, bytes]


class VirtualDisk:
    """Real files in a folder, and what each object had when its log was last synced.

    A sync makes durable what was there when it began. `crash` brings everything back to that.

    Args:
        folder: of the databases.
        delay: seconds (of the trio clock) that each sync takes, or a function giving them.
    """

    def __init__(self, folder: Path, *, delay: float | Callable[[], float] = 0.0) -> None:
        self.folder = folder
        self._delay: Callable[[], float] = delay if callable(delay) else lambda: delay
        self._durable: dict[Path, _Copy] = {}
        self._failures: list[OSError] = []

    async def sync_file(self, *paths: Path) -> None:
        """Make logs durable, with the databases they belong to. Raises: OSError after `fail_next`."""
        copies = {
            path: _Copy(
                _read(_database_of(path)),
                _read(path),
                {file.name: file.read_bytes() for file in sorted(_history_of(path).glob("*"))},
            )
            for path in paths
        }
        await trio.sleep(self._delay())
        if self._failures:
            raise self._failures.pop(0)
        self._durable |= copies

    def fail_next(self, error: OSError) -> None:
        """Make the next sync fail."""
        self._failures.append(error)

    def crash(self) -> None:
        """Lose what is not durable. Every file must be closed."""
        for path in [*self.folder.glob("*/*/*.sqlite*")]:
            path.unlink()
        for path in [*self.folder.glob("*/*/*.history")]:
            shutil.rmtree(path)
        for log, copy in self._durable.items():
            _write(_database_of(log), copy.database)
            _write(log, copy.log)
            for name, data in copy.history.items():
                _history_of(log).mkdir(exist_ok=True)
                _write(_history_of(log) / name, data)


def _database_of(log: Path) -> Path:
    return log.with_name(log.name.removesuffix("-wal"))


def _history_of(log: Path) -> Path:
    return history_path(_database_of(log))


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _write(path: Path, data: bytes | None) -> None:
    if data is not None:
        path.write_bytes(data)
