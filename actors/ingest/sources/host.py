"""Source `host`: this machine's CPU, memory, disks, network, load and busiest processes (psutil)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import psutil

from actors.ingest.source import Batch, InvalidOptions, Source, World
from actors.signals import Draft

PROCESSES = 5
PROCESSES_EVERY = 5  # ticks: to look at every process is the dear part
DISKS_EVERY = 10
ENTITIES_MAX = 64  # disks and interfaces of one tick
_NOT_IN_A_TOKEN = re.compile(r"[^A-Za-z0-9_\-:@]+")


@attrs.frozen(kw_only=True)
class _Options:
    """Table `options` of a `host` source.

    Attributes:
        processes: how many of the busiest processes are shown, 0 for none.
    """

    processes: int = PROCESSES

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> _Options:
        for name in options:
            if name != "processes":
                raise InvalidOptions(f"options.{name} is unknown; a host source has `processes`")
        processes = options.get("processes", PROCESSES)
        if not isinstance(processes, int) or not 0 <= processes <= 50:
            raise InvalidOptions(f"options.processes is {processes!r}; allowed are 0 to 50")
        return cls(processes=processes)


def host(world: World, options: Mapping[str, Any]) -> Source:
    """The source of this machine's own signals. Raises: InvalidOptions."""
    return Host(world, _Options.of(options))


class Host:
    """Its cursor counts the ticks; ids are made of it, so a tick that is published twice is recognised.

    Rates are measured between two ticks; the first one after a start has none.
    """

    def __init__(self, world: World, options: _Options) -> None:
        self._world = world
        self._options = options
        self._cpu: list[tuple[float, float]] = []  # busy and total seconds of each core
        self._io: dict[str, tuple[int, int]] = {}  # bytes sent and received of each interface
        self._processes: dict[tuple[int, float], float] = {}  # (pid, started) → seconds of CPU
        self._at: float | None = None
        self._processes_at: float | None = None

    async def fetch(self, cursor: str | None) -> Batch:
        """One tick."""
        tick = int(cursor or 0) + 1
        drafts: tuple[Draft, ...] = await self._world.run_blocking(self._tick, tick)
        return Batch(str(tick), drafts)

    def _tick(self, tick: int) -> tuple[Draft, ...]:
        now = self._world.now()
        elapsed_s = None if self._at is None else max(now - self._at, 0.001)
        self._at = now
        found = [*self._cpu_usage(), *_memory(), *_load(), *self._network(elapsed_s)]
        if tick % DISKS_EVERY == 1:
            found += _disks()
        if self._options.processes and (tick % PROCESSES_EVERY == 0 or self._processes_at is None):
            found += self._top_processes(now)
        return tuple(
            Draft.of(type_, entity, data, id=f"{self._world.name}:{tick}:{number}")
            for number, (type_, entity, data) in enumerate(found)
        )

    def _cpu_usage(self) -> Iterator[_Found]:
        before = self._cpu
        self._cpu = [_busy_and_total(times) for times in psutil.cpu_times(percpu=True)]
        if len(before) != len(self._cpu):
            return
        for core, ((busy0, total0), (busy1, total1)) in enumerate(zip(before, self._cpu, strict=True)):
            if total1 > total0:
                pct = 100 * (busy1 - busy0) / (total1 - total0)
                yield "host.cpu.usage", f"cpu{core}", {"pct": round(min(max(pct, 0.0), 100.0), 1)}

    def _network(self, elapsed_s: float | None) -> Iterator[_Found]:
        before = self._io
        counters = psutil.net_io_counters(pernic=True)
        used = {name: io for name, io in counters.items() if io.bytes_sent or io.bytes_recv}
        self._io = {name: (io.bytes_sent, io.bytes_recv) for name, io in used.items()}
        for name, (sent, received) in list(self._io.items())[:ENTITIES_MAX]:
            data: dict[str, object] = {"sent_bytes": sent, "received_bytes": received}
            if elapsed_s is not None and name in before:
                # A counter that went back was reset.
                data["sent_bytes_per_s"] = round(max(0, sent - before[name][0]) / elapsed_s)
                data["received_bytes_per_s"] = round(max(0, received - before[name][1]) / elapsed_s)
            yield "host.net.io", entity(name), data

    def _top_processes(self, now: float) -> Iterator[_Found]:
        before, before_at = self._processes, self._processes_at
        names: dict[tuple[int, float], tuple[str, int]] = {}
        self._processes, self._processes_at = {}, now
        for process in psutil.process_iter(["name", "cpu_times", "create_time", "memory_info"]):
            info: dict[str, Any] = process.info
            if info["cpu_times"] is None or info["memory_info"] is None:
                continue  # not ours to look at
            key = (process.pid, info["create_time"])
            self._processes[key] = info["cpu_times"].user + info["cpu_times"].system
            names[key] = (info["name"] or "", info["memory_info"].rss)
        if before_at is None:
            return
        elapsed_s = max(now - before_at, 0.001)
        used = {key: seconds - before.get(key, 0.0) for key, seconds in self._processes.items()}
        busiest = sorted(used, key=lambda key: (-used[key], key))[: self._options.processes]
        for rank, key in enumerate(busiest):
            name, rss = names[key]
            pct = round(100 * max(used[key], 0.0) / elapsed_s, 1)
            yield "host.process.top", f"top{rank + 1}", {"pid": key[0], "name": name, "cpu_pct": pct, "rss_bytes": rss}


_Found = tuple[str, str, dict[str, object]]


def entity(name: str) -> str:
    """A legal name for what the system calls a thing: `/` is `root`, `/var/lib` is `var-lib`."""
    text = _NOT_IN_A_TOKEN.sub("-", name).strip("-")[:64]
    return text or "root"


def _busy_and_total(times: Any) -> tuple[float, float]:
    total = sum(times)
    # Linux counts guest time in user time too, and waiting for the disk is idling.
    total -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return total - times.idle - getattr(times, "iowait", 0.0), total


def _memory() -> Iterator[_Found]:
    memory = psutil.virtual_memory()
    swap = psutil.swap_memory()
    yield (
        "host.memory.usage",
        "memory",
        {
            "pct": memory.percent,
            "used_bytes": memory.used,
            "available_bytes": memory.available,
            "total_bytes": memory.total,
        },
    )
    yield (
        "host.memory.usage",
        "swap",
        {"pct": swap.percent, "used_bytes": swap.used, "total_bytes": swap.total},
    )


def _load() -> Iterator[_Found]:
    one, five, fifteen = psutil.getloadavg()
    yield (
        "host.load",
        "load",
        {
            "load_1m": round(one, 2),
            "load_5m": round(five, 2),
            "load_15m": round(fifteen, 2),
            "cpus": psutil.cpu_count(),
        },
    )


def _disks() -> Iterator[_Found]:
    seen: set[str] = set()
    for partition in psutil.disk_partitions(all=False)[:ENTITIES_MAX]:
        name = entity(partition.mountpoint)
        if partition.device in seen:
            continue  # the same disk mounted again
        seen.add(partition.device)
        try:
            usage = psutil.disk_usage(partition.mountpoint)
        except OSError:
            continue  # an empty drive, or not ours to look at
        yield (
            "host.disk.usage",
            name,
            {"pct": usage.percent, "used_bytes": usage.used, "free_bytes": usage.free, "total_bytes": usage.total},
        )
