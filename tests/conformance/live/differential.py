"""Random programs on both runtimes, one beginning while the others run: a run is nearly all waiting.

A difference counts only when the real runtime says the same again and again: a program whose outcome there is a race
is recognised by running it anew. It is left out, unless what is done here is one of its outcomes there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import trio

from tests.conformance.compare import Difference, differences
from tests.conformance.live.here import Here, each_caller
from tests.conformance.live.recorder import ServerEnded, record_run
from tests.conformance.live.workerd import Workerd

AGAIN = 3
HERE = 3
AT_ONCE = 120
PACE_S = 0.05  # many that begin at the same time would make each other's first steps late
CALM_S = 0.5  # the same for what differs in a crowd
SUSPECTS = 40  # judged anew together
Trace = Mapping[str, Any]


@attrs.frozen
class Verdict:
    """What came of one program.

    Attributes:
        texts: what differs, first thing first; empty when nothing does.
        there, here: its traces.
        race: it has more than one outcome on the real runtime, or none: some end the server.
    """

    texts: tuple[str, ...] = ()
    there: Trace = attrs.field(factory=dict)
    here: Trace = attrs.field(factory=dict)
    race: bool = False


@attrs.frozen
class Judged:
    """A program, its number, and what came of it."""

    number: int
    program: Trace
    verdict: Verdict


@attrs.define(eq=False)
class Comparison:
    """Programs on both runtimes.

    Args:
        server: the real runtime.
        here: the tree that is compared with it.
        beside: another tree; what that does differently from the real runtime too does not count.
    """

    server: Workerd
    here: Here
    beside: Here | None = None

    async def judge(self, program: Trace, first: Trace | None = None, *, again: int = AGAIN) -> Verdict:
        """Run a program on both.

        Args:
            program: a scenario.
            first: its trace here, if it is known.
            again: how many times more the real runtime has to say the same for a difference to count.

        Raises:
            ServerEnded: meanwhile, because of this program or another one.
        """
        if first is None:
            first = await self.here.trace(program)
        there = each_caller(await record_run(self.server, program))
        if not differences(there, first):
            return Verdict((), there, first)
        here = await self.here.outcomes(program, first, HERE)
        found, race = _least(there, here), False
        for _ in range(again if found else 0):
            once_more = each_caller(await record_run(self.server, program))
            if not _least(once_more, here):
                return Verdict((), once_more, first)
            race = race or bool(differences(there, once_more))
        if race:
            return Verdict((), there, first, race=True)
        if found and self.beside is not None and differences(there, await self.beside.trace(program)):
            return Verdict((), there, first)
        return Verdict(tuple(map(str, found)), there, first)

    async def differ(self, programs: Sequence[Trace]) -> list[bool]:
        """Which of some programs differ, judged all at a time with one look more at the real runtime."""
        found = [False] * len(programs)

        async def judge(index: int) -> None:
            try:
                first = await self.here.trace(programs[index])
                if self.beside is not None and not differences(await self.beside.trace(programs[index]), first):
                    return
                found[index] = bool((await self.judge(programs[index], first, again=1)).texts)
            except (ServerEnded, trio.TooSlowError):
                return

        async with trio.open_nursery() as nursery:
            for index in range(len(programs)):
                nursery.start_soon(judge, index)
                await trio.sleep(PACE_S)
        await self.server.revive()
        return found


def _least(there: Trace, here: list[Trace]) -> list[Difference]:
    return min((differences(there, one) for one in here), key=len)


@attrs.define(eq=False)
class RandomRun:
    """The random programs of a seed, judged one after another has begun.

    What differs is judged anew when the crowd is gone: a hundred programs make each other late.

    Args:
        comparison: the runtimes.
        start: the seed.
        count: how many programs.
        take: is given what came of each; a true answer ends the run early.
        first: the number of the first program.
    """

    comparison: Comparison
    start: int
    count: int
    take: Callable[[Judged], bool]
    first: int = 1
    _server_ended: bool = False
    _enough: bool = False
    _cut_off: list[tuple[int, Trace, Trace]] = attrs.field(factory=list)
    _suspects: list[tuple[int, Trace, Trace]] = attrs.field(factory=list)
    _judging: set[trio.CancelScope] = attrs.field(factory=set)
    _calm: bool = False

    async def run(self) -> None:
        """Judge them all. What ends the real runtime for all that run is found by halves, and counts as a race."""
        numbers = iter(range(self.first, self.first + self.count))
        room = trio.Semaphore(AT_ONCE)
        while True:
            last = None
            async with trio.open_nursery() as nursery:
                while (
                    not (self._server_ended or len(self._suspects) >= SUSPECTS)
                    and (last := next(numbers, None)) is not None
                ):
                    await room.acquire()
                    nursery.start_soon(self._draw, last, room)
                    await trio.sleep(PACE_S)
            await self._recover()
            if last is None or len(self._suspects) >= SUSPECTS:
                await self._judge_suspects()
            if last is None or self._enough:
                return

    async def _draw(self, number: int, room: trio.Semaphore) -> None:
        program, trace = await self.comparison.here.drawn(self.start, number)
        await self._judge(number, program, trace)
        room.release()

    async def _judge(self, number: int, program: Trace, trace: Trace) -> None:
        verdict = None
        with trio.CancelScope() as scope:
            self._judging.add(scope)
            try:
                verdict = await self.comparison.judge(program, trace)
            except ServerEnded:
                self._cut_all_off()
            except trio.TooSlowError:
                verdict = Verdict((), {}, trace, race=True)
            finally:
                self._judging.discard(scope)
        if verdict is None:
            self._cut_off.append((number, program, trace))
            return
        if verdict.texts and not self._calm:
            self._suspects.append((number, program, trace))
            return
        self._enough = self.take(Judged(number, program, verdict)) or self._enough

    def _cut_all_off(self) -> None:
        """End what is still judged: without the server it would only wait out its own pauses and requests."""
        self._server_ended = True
        for scope in self._judging:
            scope.cancel()

    async def _recover(self) -> None:
        if self._server_ended:
            cut_off, self._cut_off = self._cut_off, []
            await self.comparison.server.revive()
            self._server_ended = False
            await self._judge_again(cut_off)

    async def _judge_suspects(self) -> None:
        suspects, self._suspects, self._calm = self._suspects, [], True
        await self._judge_again(suspects)
        self._calm = False

    async def _judge_again(self, some: list[tuple[int, Trace, Trace]]) -> None:
        async with trio.open_nursery() as nursery:
            for one in some:
                if self._server_ended:
                    self._cut_off.append(one)
                    continue
                nursery.start_soon(self._judge, *one)
                await trio.sleep(CALM_S if self._calm else PACE_S)
        await self.comparison.server.revive()
        self._server_ended = False
        rest, self._cut_off = self._cut_off, []
        if len(some) == len(rest) == 1:
            number, program, trace = rest[0]
            self.take(Judged(number, program, Verdict((), {}, trace, race=True)))
        elif rest:
            middle = (len(rest) + 1) // 2
            await self._judge_again(rest[:middle])
            await self._judge_again(rest[middle:])
