"""Random programs on both runtimes, one beginning while the others run: a run is nearly all waiting.

A difference counts only when the real runtime says the same again and again: a program whose outcome there is a race
is recognised by running it anew. It is left out, unless what is done here is one of its outcomes there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import trio

from tests.conformance.compare import differences
from tests.conformance.live.here import Here, each_caller
from tests.conformance.live.recorder import ServerEnded
from tests.conformance.live.servers import Servers

AGAIN = 3
HERE = 3
AT_ONCE = 120
PACE_S = 0.05  # many that begin at the same time would make each other's first steps late
CALM_S = 0.25  # the same for what differs in a crowd
SUSPECTS = 40  # judged anew together
RACE = "races on workerd"
ENDS = "end workerd"
LOST = "evict right behind a write"
Trace = Mapping[str, Any]


@attrs.frozen
class Verdict:
    """What came of one program.

    Attributes:
        texts: what differs, first thing first; empty when nothing does.
        there, here: its traces.
        how: what had to be late here for it to be the same; empty for nothing.
        left_out: why it says nothing: it has more than one outcome on the real runtime, or none.
    """

    texts: tuple[str, ...] = ()
    there: Trace = attrs.field(factory=dict)
    here: Trace = attrs.field(factory=dict)
    how: str = ""
    left_out: str = ""


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
        servers: the real runtime.
        here: the tree that is compared with it.
        beside: another tree; what that does differently from the real runtime too does not count.
    """

    servers: Servers
    here: Here
    beside: Here | None = None

    async def judge(self, program: Trace, first: Trace | None = None, *, again: int = AGAIN) -> Verdict:
        """Run a program on both.

        Args:
            program: a scenario.
            first: its trace here, if it is known.
            again: how many times more the real runtime has to say the same for a difference to count.
        """
        if first is None:
            first = await self.here.trace(program)
        try:
            return await self._judge(program, first, again)
        except ServerEnded:
            return Verdict((), {}, first, left_out=ENDS)

    async def look(self, program: Trace, first: Trace) -> Verdict:
        """The same with one look at the real runtime, for as long as it does what is done here at first."""
        try:
            there = each_caller(await self.servers.record(program))
        except ServerEnded:
            return Verdict((), {}, first, left_out=ENDS)
        return Verdict(tuple(map(str, differences(there, first))), there, first)

    async def _judge(self, program: Trace, first: Trace, again: int) -> Verdict:
        seen: list[Trace] = []
        for _ in range(again + 1):
            there = each_caller(await self.servers.record(program))
            if not differences(there, first):
                return Verdict((), there, first)
            if all(differences(there, other) for other in seen):
                seen.append(there)
        here = self.here.outcomes(program, first, HERE)
        for there in seen:
            if (how := await here.how(there)) is not None:
                return Verdict((), there, first, how)
        if len(seen) > 1:
            return Verdict((), seen[0], first, left_out=RACE)
        if first.get("lost"):
            return Verdict((), seen[0], first, left_out=LOST)
        if self.beside is not None and differences(seen[0], await self.beside.trace(program)):
            return Verdict((), seen[0], first)
        return Verdict(tuple(map(str, here.nearest(seen[0]))), seen[0], first)

    async def differ(self, programs: Sequence[Trace]) -> list[bool]:
        """Which of some programs differ, judged all at a time with one look more at the real runtime."""
        found = [False] * len(programs)

        async def judge(index: int) -> None:
            first = await self.here.trace(programs[index])
            if self.beside is not None and not differences(await self.beside.trace(programs[index]), first):
                return
            found[index] = bool((await self.judge(programs[index], first, again=1)).texts)

        async with trio.open_nursery() as nursery:
            for index in range(len(programs)):
                nursery.start_soon(judge, index)
                await trio.sleep(PACE_S)
        return found


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
    _enough: bool = False
    _suspects: list[tuple[int, Trace, Trace]] = attrs.field(factory=list)
    _judging_anew: int = 0

    @property
    def suspects(self) -> int:
        """How many differed in the crowd and have not been judged anew yet."""
        return len(self._suspects) + self._judging_anew

    async def run(self) -> None:
        """Judge them all."""
        numbers = iter(range(self.first, self.first + self.count))
        room = trio.Semaphore(AT_ONCE)
        number: int | None = 0
        while number is not None and not self._enough:
            async with trio.open_nursery() as nursery:
                while len(self._suspects) < SUSPECTS and (number := next(numbers, None)) is not None:
                    await room.acquire()
                    nursery.start_soon(self._judge_in_crowd, number, room)
                    await trio.sleep(PACE_S)
            await self._judge_suspects()

    async def _judge_in_crowd(self, number: int, room: trio.Semaphore) -> None:
        program, trace = await self.comparison.here.drawn(self.start, number)
        verdict = await self.comparison.look(program, trace)
        if verdict.texts:
            self._suspects.append((number, program, trace))
        else:
            self._take(Judged(number, program, verdict))
        room.release()

    async def _judge_suspects(self) -> None:
        suspects, self._suspects = self._suspects, []
        self._judging_anew = len(suspects)
        async with trio.open_nursery() as nursery:
            for one in suspects:
                nursery.start_soon(self._judge_anew, *one)
                await trio.sleep(CALM_S)

    async def _judge_anew(self, number: int, program: Trace, trace: Trace) -> None:
        verdict = await self.comparison.judge(program, trace)
        self._judging_anew -= 1
        self._take(Judged(number, program, verdict))

    def _take(self, one: Judged) -> None:
        self._enough = self.take(one) or self._enough
