"""A soak: a fleet of clients lives through restart after restart of a real server, and its memory is watched."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import attrs
import trio

from actors.client import SignalClient
from tests.browser.serving import Server
from tests.soak.readers import Reader, Told, check, entity_of, fleet

RSS_GROWTH = 1.05
RSS_SAMPLES = 5  # the median of so many, a second apart, is what counts
JOINING_AT_ONCE = 50
SETTLE_S = 120.0  # at the end: how long readers may take for what they do not have yet
DATA_CHARACTERS = 1_000


@attrs.frozen(kw_only=True)
class Plan:
    """What to do.

    Attributes:
        clients: readers, each on a connection of its own. stalled_share: of them, in 0 to 1.
        minutes: how long. restart_s: from one restart to the next; 0: none.
        rate: publications per second, by four publishers.
        warm_minutes: memory at the end is compared with that after so many; 0: it is not.
    """

    clients: int = 1_000
    stalled_share: float = 0.05
    minutes: float = 10.0
    restart_s: float = 60.0
    rate: float = 4.0
    warm_minutes: float = 3.0

    @property
    def period_s(self) -> float:
        """The age of a process when it is measured and replaced, or the time between two looks at one that stays."""
        return self.restart_s or min(60.0, 60 * self.minutes)

    @property
    def periods(self) -> int:
        """How many there are; each process lives as long as every other, so that they can be compared."""
        return max(1, round(60 * self.minutes / self.period_s))

    @property
    def warm_period(self) -> int | None:
        """Which period ends after the warm minutes; None when memory is not compared."""
        at = round(60 * self.warm_minutes / self.period_s) - 1
        return at if 0 <= at < self.periods - 1 else None


@attrs.frozen(kw_only=True)
class Sample:
    """What is so at the end of a period.

    Attributes:
        at_s: since the first publication. age_s: of the server's process.
        rss_mib: the median of its last resident sizes.
        down_s: from SIGTERM to the process that is to be replaced until the new one listens.
        acknowledged: publications so far. received: by all readers together, so far.
        behind: readers of everything, without stalls, that have not got the newest acknowledged signal.
    """

    at_s: float
    age_s: float
    rss_mib: float
    down_s: float
    acknowledged: int
    received: int
    behind: int

    def line(self) -> str:
        """A row of the table under `HEADING`."""
        return (
            f"{self.at_s:7.0f} {self.age_s:7.0f} {self.down_s:7.1f} {self.rss_mib:8.1f} "
            f"{self.acknowledged:13,} {self.received:12,} {self.behind:7,}"
        )


HEADING = f"{'at s':>7} {'age s':>7} {'down s':>7} {'RSS MiB':>8} {'acknowledged':>13} {'received':>12} {'behind':>7}"


@attrs.define(eq=False)
class Soak:
    """One run.

    Args:
        server: is started and stopped here.
        plan: what to do.
        say: told a line for each period.
    """

    server: Server
    plan: Plan
    say: Callable[[str], None]
    told: Told = attrs.field(factory=Told, init=False)
    readers: list[Reader] = attrs.field(factory=list, init=False)
    samples: list[Sample] = attrs.field(factory=list, init=False)
    down_s: list[float] = attrs.field(factory=list, init=False)
    _publishing: bool = attrs.field(default=True, init=False)
    _published: int = attrs.field(default=0, init=False)
    _began: float = attrs.field(default=0.0, init=False)  # the process that runs

    async def run(self) -> None:
        """Everything in order; what was found is in the attributes."""
        await _in_thread(self.server.start)
        self._began = trio.current_time()
        self.readers = fleet(self.plan.clients, self.plan.stalled_share, self.told)
        calm = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                await self._join(nursery, calm)
                async with trio.open_nursery() as publishers:
                    for number in range(4):
                        publishers.start_soon(self._publish, f"p{number}")
                    await self._periods()
                    self._publishing = False
                calm.set()
                await self._settle()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await _in_thread(self.server.stop)
        check(self.readers, self.told)
        self.check_memory()

    def summary(self) -> str:
        """What came of it, and what was violated."""
        stalled = [reader for reader in self.readers if reader.stalls]
        steady = [reader for reader in self.readers if not reader.stalls]
        warm = self.plan.warm_period
        lines = [
            f"{len(self.readers):,} clients, {len(stalled):,} of them stalled; {len(self.down_s)} restarts",
            f"{len(self.told.acknowledged):,} signals acknowledged, {sum(r.received for r in self.readers):,} received",
            f"connections of a client: {_mean(steady):.1f}, of one that stalls: {_mean(stalled):.1f}",
        ]
        if warm is not None:
            growth = self.samples[-1].rss_mib / self.samples[warm].rss_mib
            lines.append(f"memory at the end: {growth:.3f} x that after {self.plan.warm_minutes:g} min")
        lines.append(f"violations: {self.told.violation_count:,}")
        return "\n".join([*lines, *self.told.violations])

    async def _join(self, nursery: trio.Nursery, calm: trio.Event) -> None:
        """A few at a time, as a fleet does that has not been cut off at once."""
        joined = trio.Semaphore(0)
        for at, reader in enumerate(self.readers):
            nursery.start_soon(reader.read, self.server.url, joined.release, calm)
            if at >= JOINING_AT_ONCE:
                await joined.acquire()

    async def _publish(self, name: str) -> None:
        padding = "x" * DATA_CHARACTERS
        async with SignalClient(self.server.url) as client:
            while self._publishing:
                id_ = f"{name}-{self._published}"
                self._published += 1
                ack = await client.publish("soak.tick", entity_of(id_), {"pad": padding}, id=id_)
                self.told.acknowledged[id_] = ack.offset
                self.told.is_at(ack.offset, id_)
                await trio.sleep(4 / self.plan.rate)

    async def _periods(self) -> None:
        began = self._began
        for number in range(self.plan.periods):
            if number and self.plan.restart_s:
                stopping = trio.current_time()
                await _in_thread(self.server.stop)
                await _in_thread(self.server.start)
                self._began = trio.current_time()
                self.down_s.append(self._began - stopping)
            since = self._began if self.plan.restart_s else began + number * self.plan.period_s
            await trio.sleep_until(since + self.plan.period_s - RSS_SAMPLES)
            rss = []
            for _ in range(RSS_SAMPLES):
                rss.append(self.server.rss_mib())
                await trio.sleep(1)
            now = trio.current_time()
            self.samples.append(
                Sample(
                    at_s=now - began,
                    age_s=now - self._began,
                    rss_mib=statistics.median(rss),
                    down_s=self.down_s[-1] if self.down_s else 0.0,
                    acknowledged=len(self.told.acknowledged),
                    received=sum(reader.received for reader in self.readers),
                    behind=self._behind(),
                )
            )
            self.say(self.samples[-1].line())

    def _behind(self) -> int:
        """Readers of everything that do not stall and have not got what was acknowledged."""
        newest = max(self.told.acknowledged.values(), default=0)
        return sum(reader.last < newest for reader in self.readers if reader.entity is None and not reader.stalls)

    async def _settle(self) -> None:
        """Wait until everybody has everything; who has not then is found by the check."""
        with trio.move_on_after(SETTLE_S):
            while not all(reader.received == reader.matching(self.told) for reader in self.readers):  # noqa: ASYNC110
                await trio.sleep(0.2)

    def check_memory(self) -> None:
        """At the end at most so much more than after the warm minutes is no violation."""
        warm = self.plan.warm_period
        if warm is None:
            return
        first, last = self.samples[warm].rss_mib, self.samples[-1].rss_mib
        if last > RSS_GROWTH * first:
            self.told.violated(
                f"the server has {last:.1f} MiB at the end, {first:.1f} MiB after {self.plan.warm_minutes:g} min; "
                f"at most {RSS_GROWTH:g} x that is allowed"
            )


async def _in_thread(call: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(call)  # noqa: TID251 -- a process of its own


def _mean(readers: list[Reader]) -> float:
    return sum(reader.sockets for reader in readers) / len(readers) if readers else 0.0
