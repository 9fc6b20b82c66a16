"""What a measure is: servers taken in turn, figures per case, and claims with a floor and a goal about them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

Figures = Mapping[str, float]
Cases = Mapping[str, Figures]


class BenchError(Exception):
    """A measure cannot run; the message says what is missing or what was seen."""


@attrs.frozen(kw_only=True)
class Setting:
    """What one run of the bench was asked for.

    Attributes:
        quick: shorter phases; a check that everything works rather than a figure to quote.
        server_core, load_core: where the server and the load run.
        build: folder for the compiled programs and for data directories.
        subscribers: overrides a measure's own number of connections.
        windows: overrides the signals in flight of the closed-loop measures.
        minutes: overrides how long the soak takes.
    """

    quick: bool
    server_core: int
    load_core: int
    build: Path
    subscribers: int | None = None
    windows: tuple[int, ...] | None = None
    minutes: float | None = None


@attrs.frozen
class Operand:
    """One figure of one server in one case."""

    server: str
    case: str
    figure: str


@attrs.frozen(kw_only=True)
class Claim:
    """A target: `top`, or `top / bottom` formed inside each repetition, against a floor and a goal.

    Attributes:
        name: as in the table of targets, for example "T1 x c_send".
        better: which direction is better.
        floor: what must hold.
        goal: what is aimed at, if that is more.
    """

    name: str
    top: Operand
    bottom: Operand | None = None
    better: Literal["higher", "lower"]
    floor: float
    goal: float | None = None


@attrs.frozen(kw_only=True)
class Sample:
    """The figures of one server in one case of one repetition."""

    repetition: int
    server: str
    case: str
    figures: dict[str, float]


@attrs.frozen
class Spread:
    """The median of some figures and their range."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one figure."""
        return cls(statistics.median(values), min(values), max(values))


Verdict = Literal["goal", "floor", "below the floor", "not measured"]


@attrs.frozen(kw_only=True)
class Judged:
    """A claim beside what was measured."""

    name: str
    floor: float
    goal: float | None
    better: Literal["higher", "lower"]
    measured: Spread | None
    verdict: Verdict


@attrs.frozen(kw_only=True)
class Measure:
    """One measure of the bench.

    Attributes:
        name: what `run` is given.
        summary: one line for `list`.
        subjects: the servers or candidates, in the order of the first repetition.
        run: measures one subject once and returns its figures by case; raises BenchError.
        claims: the targets that apply to a setting.
        repeat: repetitions unless asked otherwise.
        default: part of `run` without names.
        shown: the figures of the readable table, in order; the JSON has all.
    """

    name: str
    summary: str
    subjects: tuple[str, ...]
    run: Callable[[str, Setting], Cases]
    claims: Callable[[Setting], tuple[Claim, ...]]
    shown: tuple[str, ...]
    repeat: int = 3
    default: bool = True


def in_turn(subjects: Sequence[str], repetition: int) -> tuple[str, ...]:
    """Every repetition starts with another subject, so that none always runs first on a cold machine."""
    start = repetition % len(subjects)
    return (*subjects[start:], *subjects[:start])


def spreads(samples: Iterable[Sample]) -> dict[Operand, Spread]:
    """The median and range of each figure over the repetitions."""
    values: dict[Operand, list[float]] = {}
    for sample in samples:
        for figure, value in sample.figures.items():
            values.setdefault(Operand(sample.server, sample.case, figure), []).append(value)
    return {operand: Spread.of(found) for operand, found in values.items()}


def judge(claim: Claim, samples: Sequence[Sample]) -> Judged:
    """Forms the claim's ratio inside each repetition that has both figures, and compares the median."""
    found: dict[tuple[int, Operand], float] = {
        (sample.repetition, Operand(sample.server, sample.case, figure)): value
        for sample in samples
        for figure, value in sample.figures.items()
    }
    values: list[float] = []
    for repetition in sorted({sample.repetition for sample in samples}):
        top = found.get((repetition, claim.top))
        bottom = 1.0 if claim.bottom is None else found.get((repetition, claim.bottom))
        if top is not None and bottom:
            values.append(top / bottom)
    spread = Spread.of(values) if values else None
    return Judged(
        name=claim.name,
        floor=claim.floor,
        goal=claim.goal,
        better=claim.better,
        measured=spread,
        verdict=_verdict(claim, spread),
    )


def _verdict(claim: Claim, spread: Spread | None) -> Verdict:
    if spread is None:
        return "not measured"
    if not _reaches(claim, spread.median, claim.floor):
        return "below the floor"
    if claim.goal is not None and _reaches(claim, spread.median, claim.goal):
        return "goal"
    return "floor"


def _reaches(claim: Claim, value: float, target: float) -> bool:
    return value >= target if claim.better == "higher" else value <= target
