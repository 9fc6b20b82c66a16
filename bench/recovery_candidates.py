"""What `recovery` measures: values that are all written anew, with history and without, and then brought back."""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import attrs

from bench.recovery import CASE
from runtime.ids import id_from_name
from runtime.limits import StorageLimits
from runtime.storage.bookmarks import Retention
from runtime.storage.database_file import open_database
from runtime.storage.group_writer import GroupWriter
from runtime.storage.object_file import ObjectFile, open_object
from runtime.storage.object_restore import bring_back
from runtime.storage.store import WriteBatch

VALUE_BYTES = 1_000
BATCH_BYTES = 1_000_000
QUICK_MB, FULL_MB = 16, 1_024
_KEEP = Retention(total_bytes=1 << 40)

Figures = dict[str, float]


def _batches(megabytes: int, seed: int, value_bytes: int = VALUE_BYTES) -> Iterator[list[tuple[int, bytes]]]:
    """Values of words, so that they can be compressed as texts can."""
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randrange(1, 5)).hex().encode() for _ in range(5_000)]
    chunks = [b" ".join(rng.choices(words, k=60)) for _ in range(2_000)]
    several, batch = value_bytes // 250 + 1, BATCH_BYTES // value_bytes
    for first in range(0, megabytes * 1_000_000 // value_bytes, batch):
        yield [
            (key, b"".join(rng.choices(chunks, k=several))[:value_bytes].ljust(value_bytes))
            for key in range(first, first + batch)
        ]


def _written() -> int:
    """Bytes that this process has handed to the kernel."""
    return int(Path("/proc/self/io").read_text("ascii").split("wchar: ")[1].split()[0])


def measure_sql(megabytes: int, folder: Path, *, keeps: bool) -> Figures:
    """An object with a database of its own."""
    limits = attrs.evolve(StorageLimits().of_sql_classes(), object_bytes=1 << 36)
    path = folder / "object.sqlite"
    file = open_object(path, limits, time.time, keeps=keeps)
    file.connection.execute("CREATE TABLE t (x INTEGER PRIMARY KEY, y)")

    def write(seed: int) -> None:
        for rows in _batches(megabytes, seed):
            with file.connection:
                file.connection.executemany("INSERT OR REPLACE INTO t VALUES (?, ?)", rows)
            _checkpoint(file)

    write(1)
    point = file.points.ask()
    before, began = _written(), time.perf_counter()
    write(2)
    figures = {"write_s": time.perf_counter() - began, "written": float(_written() - before)}
    os.fsync(file._log)
    file.close()
    if keeps:
        began = time.perf_counter()
        bring_back(path, point, time.time())
        figures["restore_s"] = time.perf_counter() - began
    return figures


def _checkpoint(file: ObjectFile) -> None:
    """As `ObjectStore` does, on one thread."""
    look = file.look()
    try:
        upto, marks = file.hold(look)
        os.fsync(file._log)
        file.checkpoint(upto, marks)
        file.points.forget(upto)
    finally:
        look.close()


def measure_shared(megabytes: int, folder: Path, *, keeps: bool, value_bytes: int = VALUE_BYTES) -> Figures:
    """An actor in the shared database."""
    actor = id_from_name("rooms", "a")
    file = open_database(folder, os.urandom)
    try:
        writer = GroupWriter(file.writer, file.room, _KEEP, time.time())

        def write(seed: int) -> None:
            for rows in _batches(megabytes, seed, value_bytes):
                writes: dict[bytes, bytes | None] = {b"%012d" % key: value for key, value in rows}
                failed = writer.write([WriteBatch(actor=actor, sequence=0, writes=writes, history=keeps)], time.time())
                assert not any(failed.values()), failed
                if writer.checkpoint_due:
                    writer.checkpoint()
            writer.checkpoint()  # what is in the log is written twice in the end

        write(1)
        writer.write([WriteBatch(actor=actor, sequence=0, writes={}, mark=True)], time.time())
        point = writer.history.newest
        before, began = _written(), time.perf_counter()
        write(2)
        figures = {"write_s": time.perf_counter() - began, "written": float(_written() - before)}
        if keeps:
            began = time.perf_counter()
            writer.restore(actor, point, time.time(), keep=True)
            figures["restore_s"] = time.perf_counter() - began
        return figures
    finally:
        file.close()


CANDIDATES: dict[str, Callable[..., Figures]] = {
    "sql": measure_sql,
    "shared": measure_shared,
    **{f"shared_{size}": partial(measure_shared, value_bytes=size) for size in (100, 900, 10_000)},
}


def main(subject: str, seconds: float, folder: Path) -> None:
    """Prints the case of one backend as JSON; a short time stands for little data."""
    megabytes = QUICK_MB if seconds < 1 else FULL_MB
    measure = CANDIDATES[subject]
    for name in ("with", "without"):
        (folder / name).mkdir()
    figures = measure(megabytes, folder / "with", keeps=True)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024 / 1e6
    without = measure(min(megabytes, 64), folder / "without", keeps=False)
    scale = megabytes / min(megabytes, 64)
    figures["written_ratio"] = figures.pop("written") / (without["written"] * scale)
    print(json.dumps({CASE: {"mb": float(megabytes), **figures}}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
