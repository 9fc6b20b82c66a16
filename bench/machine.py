"""Where and with what the figures were taken: facts that a result is worth nothing without."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import apsw
import attrs

from bench.measure import BenchError

PACKAGES = ("apsw", "attrs", "cattrs", "h11", "heliograph", "msgpack", "trio", "trio-websocket", "wsproto")
ROOT = Path(__file__).parents[1]


@attrs.frozen(kw_only=True)
class Machine:
    """The machine, its load before the run, and the versions."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    load_before: float
    versions: dict[str, str]
    commit: str


def machine_facts() -> Machine:
    """Reads them."""
    versions = {"python": platform.python_version(), "sqlite": apsw.sqlite_lib_version()}
    versions |= {name: metadata.version(name) for name in PACKAGES}
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        load_before=os.getloadavg()[0],
        versions=versions,
        commit=_commit(),
    )


def pick_cores(wanted: tuple[int, int] | None) -> tuple[int, int]:
    """The cores of the server and of the load: the first two this process may use, unless told.

    Raises:
        BenchError: a core that this process may not use.
    """
    usable = sorted(os.sched_getaffinity(0))
    if wanted is None:
        return usable[0], usable[1 % len(usable)]
    if not set(wanted) <= set(usable):
        raise BenchError(f"cores {wanted[0]} and {wanted[1]} were asked for; this process may use {usable}")
    return wanted


def _processor() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _lines(path: Path) -> Sequence[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return ()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"
