"""What a run has come to so far: told while it goes on, summed up at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
import click
import trio

from tests.conformance.live.differential import Comparison, Judged
from tests.conformance.live.found import write_down
from tests.conformance.live.shrink import shrunk
from tests.conformance.tally import Tally

DIFFERENCES = 10
EVERY_S = 15


@attrs.define(eq=False)
class Summary:
    """Of the random programs of one seed.

    Args:
        start: the seed. programs: how many were asked for.
        folder: where differences are written.
        first: programs up to this number are kept for the planted bugs, if both runtimes do the same.
        suspects: how many programs differed in a crowd and are not judged anew yet.
    """

    start: int
    programs: int
    folder: Path
    first: int = 0
    suspects: Callable[[], int] = lambda: 0
    tally: Tally = attrs.field(factory=Tally)
    left_out: Counter[str] = attrs.field(factory=Counter)
    late: dict[str, list[int]] = attrs.field(factory=dict)
    same: list[Judged] = attrs.field(factory=list)
    different: list[Judged] = attrs.field(factory=list)
    now: Callable[[], float] = trio.current_time
    began: float = attrs.field(default=attrs.Factory(lambda self: self.now(), takes_self=True))
    seconds: float = 0.0

    def take(self, one: Judged) -> bool:
        """Count one program; whether there are differences enough."""
        self.seconds = self.now() - self.began
        if one.verdict.left_out:
            self.left_out[one.verdict.left_out] += 1
            return False
        self.tally.add(one.program)
        if one.verdict.texts:
            self.different.append(one)
            self._write(one)
            click.echo(f"  program {one.number} differs: {one.verdict.texts[0]}")
            return len(self.different) >= DIFFERENCES
        if one.verdict.how:
            self.late.setdefault(one.verdict.how, []).append(one.number)
        if one.number <= self.first:
            self.same.append(one)
        return False

    async def tell(self) -> None:
        """Say how far it is, now and then."""
        while True:
            await trio.sleep(EVERY_S)
            click.echo(f"  {self._done()}")

    async def shrink(self, comparison: Comparison, seconds: float) -> None:
        """Make every program that differs as small as it gets in so many seconds, and write that down instead."""
        for one in sorted(self.different, key=lambda one: one.number):
            smaller = await smallest(comparison, one, seconds)
            path = self._write(smaller)
            click.echo(f"\nprogram {one.number}, as small as it gets ({path}):\n{path.read_text(encoding='utf-8')}")

    def _write(self, one: Judged) -> Path:
        name = f"random-{self.start}-{one.number}"
        return write_down(self.folder, name, one.program, one.verdict.there, one.verdict.here)

    def _done(self) -> str:
        rate = self._judged / max(self.seconds, 0.1)
        left_out = [f", {count} {why}" for why, count in sorted(self.left_out.items())]
        return (
            f"{self._judged} of {self.programs} programs of seed {self.start}, {rate:.1f} a second, "
            f"{len(self.different)} different{''.join(left_out)}"
        )

    @property
    def _judged(self) -> int:
        return self.tally.programs + self.left_out.total()

    @property
    def not_judged(self) -> int:
        """How many programs nothing is known of."""
        return self.programs - self._judged

    @property
    def good(self) -> bool:
        """Every program was judged, none differed, and they had enough of everything."""
        return not (self.not_judged or self.different or self.lacking())

    def lacking(self) -> list[str]:
        """What the programs had too little of."""
        return self.tally.lacking()

    def __str__(self) -> str:
        lines = [self._done(), f"  in them: {self.tally}"]
        for how, numbers in sorted(self.late.items()):
            lines.append(f"  the same only with {how}: {len(numbers)} ({', '.join(map(str, sorted(numbers)))})")
        if self.lacking():
            lines.append(f"  too few programs with: {', '.join(self.lacking())}")
        if len(self.different) >= DIFFERENCES:
            lines.append(f"  ended early: {DIFFERENCES} differences are enough")
        if self.not_judged:
            lines.append(f"  not judged: {self.not_judged}; of these {self.suspects()} differed once, among the others")
        return "\n".join(lines)


async def smallest(comparison: Comparison, one: Judged, seconds: float) -> Judged:
    """The smallest program found in so many seconds that differs every time."""
    for program in reversed((await shrunk(one.program, comparison.differ, seconds))[1:]):
        verdict = await comparison.judge(program)
        if verdict.texts:
            return Judged(one.number, program, verdict)
    return one
