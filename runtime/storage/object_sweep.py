"""Forgetting the histories of SQL objects: what is too old goes, and the oldest of all when it is too much."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from runtime.storage.bookmarks import Retention
from runtime.storage.object_history import HISTORY_SUFFIX
from runtime.storage.object_records import segments
from runtime.storage.object_restore import is_being_restored

_ENOUGH = 15 / 16  # of what is to be kept, so that the next sweep is not due at once


def sweep_histories(directory: Path, retention: Retention, now: float, in_use: Collection[Path]) -> int:
    """Remove segments of histories; the bytes that are left. Blocks.

    A segment is as old as the newest change in it.

    Args:
        directory: of the objects.
        retention: what is kept.
        now: wall clock, seconds.
        in_use: histories that may be added to meanwhile; their newest segments stay.

    Raises:
        OSError: the disk refuses.
    """
    found: list[tuple[float, Path, int]] = []
    total = 0
    for folder in sorted(directory.glob(f"*/*/*{HISTORY_SUFFIX}")):
        paths = segments(folder)
        for place, path in enumerate([] if is_being_restored(folder) else paths):
            with contextlib.suppress(FileNotFoundError):
                seen = path.stat()
                total += seen.st_size
                if folder not in in_use or place < len(paths) - 1:
                    found.append((seen.st_mtime, path, seen.st_size))
    excess = total - retention.total_bytes * _ENOUGH if total > retention.total_bytes else 0
    for time_s, path, size in sorted(found):
        if time_s >= now - retention.age_s and excess <= 0:
            break
        path.unlink(missing_ok=True)
        total -= size
        excess -= size
        with contextlib.suppress(OSError):  # there is more in it
            path.parent.rmdir()
    return total
