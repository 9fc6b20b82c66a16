"""What goes wrong in a run, drawn from the seed before it begins: a few kinds of faults, each at its moments.

Every kind says why an app must survive it. A fault without such an argument is noise.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

HORIZON_S = 10.0


@attrs.frozen
class Fault:
    """One fault of a plan.

    Attributes:
        at: virtual seconds from the beginning. kind: one of `KINDS`.
        amount: what it means depends on the kind: seconds, steps, or a choice.
        lasts: seconds.
    """

    at: float
    kind: str
    amount: float = 0.0
    lasts: float = 0.0

    def __str__(self) -> str:
        words = KINDS[self.kind].words.format(amount=self.amount, count=int(self.amount), lasts=f"{self.lasts:.3f} s")
        return f"{self.at:7.3f} s  {self.kind:<17} {words}".rstrip()


@attrs.frozen
class Kind:
    """A kind of fault.

    Attributes:
        group: as `--faults` names it. survivable: why nothing of what is promised may be lost by it.
        words: what is said of one of a plan.
        amount: the range that is drawn from. lasts: the same in seconds. most: how many in a run.
    """

    group: str
    survivable: str
    words: str = attrs.field(default="for {lasts}", kw_only=True)
    amount: tuple[float, float] = (0.0, 0.0)
    lasts: tuple[float, float] = (0.0, 0.0)
    most: int = 3


KINDS: Final[Mapping[str, Kind]] = {
    "crash": Kind(
        "crash",
        "The process ends before a step of any task. The kernel has every byte that was written, and what was "
        "acknowledged was written. Whoever waits for an answer learns that it may or may not have happened.",
        words="{count} steps later, down for {lasts}",
        amount=(1, 400),
        lasts=(0.01, 1.5),
    ),
    "crash in io": Kind(
        "crash",
        "The process ends right before a write, sync or truncation of a file. SQLite's log says what is whole.",
        words="before operation {count} on a file, down for {lasts}",
        amount=(1, 40),
        lasts=(0.01, 1.5),
    ),
    "crash at a point": Kind(
        "crash",
        "The process ends where a rare branch begins (`Platform.point`), which is where a crash is least expected. As "
        "above: what is in the files is all that there is.",
        words="number {count} from now on, down for {lasts}",
        amount=(1, 6),
        lasts=(0.01, 1.5),
    ),
    "power cut": Kind(
        "disk",
        "The machine ends before a step of any task, and any sectors of what was not synced are lost. What was "
        "acknowledged was synced before. The other end hears nothing until the machine is back.",
        words="{count} steps later, down for {lasts}",
        amount=(1, 400),
        lasts=(0.01, 1.5),
    ),
    "power cut in io": Kind(
        "disk",
        "The machine ends right before an operation on a file; as above.",
        words="before operation {count} on a file, down for {lasts}",
        amount=(1, 40),
        lasts=(0.01, 1.5),
    ),
    "sync fails": Kind(
        "disk",
        "The next syncs report an error, and the kernel forgets what it had to write. What is not known to be durable "
        "is not acknowledged; the instance that wrote it is destroyed.",
        words="the next {count}",
        amount=(1, 2),
        most=2,
    ),
    "disk full": Kind(
        "disk",
        "Writes are refused for a while. Nothing is acknowledged meanwhile, and nothing that was is lost.",
        lasts=(0.05, 1.5),
        most=2,
    ),
    "bit flip": Kind(
        "disk",
        "The server is stopped in order, a bit of a database or a history flips while nobody uses it, and it starts "
        "again; somebody puts it right some time later. Until then what is in the damaged page is refused, never "
        "served: its actors end, and if it is needed to start, so does the server. Everybody else goes on.",
        words="put right {lasts} later",
        lasts=(0.2, 4.0),
        most=2,
    ),
    "reset": Kind(
        "net",
        "A connection is reset and what was on its way is lost. A subscriber resumes from its cursor; a publisher "
        "repeats with the same id.",
        words="of one connection",
        amount=(0, 1),
        most=6,
    ),
    "lost answer": Kind(
        "net",
        "A request is carried out and its answer is lost with the connection, as is the next that is sent on a socket. "
        "Who is not answered asks again: with the same id it is carried out once.",
        words="of one request",
        amount=(0, 1),
        most=4,
    ),
    "half-sent frame": Kind(
        "net",
        "Of what a server sends next on a connection only a part arrives, and then its end. What is not whole is as "
        "if it had not been sent.",
        words="on one connection",
        amount=(0, 1),
        most=4,
    ),
    "slow reader": Kind(
        "net",
        "The other end of a connection reads nothing for a while. What waits for it is bounded, and nobody else waits: "
        "it gets the rest later, or is sent away and resumes.",
        words="of one connection, for {lasts}",
        amount=(0, 1),
        lasts=(0.5, 8.0),
    ),
    "repeated request": Kind(
        "net",
        "A request arrives twice, as from a proxy or a sender who did not wait long enough. Only requests that may "
        "(`World.request(…, repeats=True)`): what they ask for has an id.",
        words="{amount:.3f} s later",
        amount=(0.0, 2.0),
        most=4,
    ),
    "half-open": Kind(
        "net",
        "A connection carries nothing any more and neither end is told. Pings find out.",
        words="one connection",
        amount=(0, 1),
    ),
    "partition": Kind(
        "net",
        "For a while no connection carries anything and no new one is answered; then all goes on, in order.",
        lasts=(0.05, 4.0),
        most=2,
    ),
    "clock jump": Kind(
        "clock",
        "The wall clock is set forward or back. Waits run on the monotonic clock; an alarm is due by the wall clock, "
        "so it may come sooner or later, but not before the time that the wall clock shows.",
        words="{amount:+.1f} s",
        amount=(-90.0, 90.0),
    ),
    "clock drift": Kind(
        "clock",
        "The wall clock runs fast or slow for a while, by far more than a real one. As above: only alarms, ages and "
        "time stamps follow it, and time stamps of a stream never go back.",
        words="{amount:+.3f} s a second, for {lasts}",
        amount=(-0.5, 1.0),
        lasts=(0.5, 8.0),
    ),
    "slow": Kind(
        "slow",
        "Blocking calls (commits, checkpoints, syncs) take long for a while. Effects wait; nobody else does.",
        words="up to {amount:.3f} s a call, for {lasts}",
        amount=(0.05, 2.0),
        lasts=(0.1, 3.0),
    ),
    "evict": Kind(
        "evict",
        "An idle instance leaves memory. The next event makes another one from what is stored; sockets stay open.",
        words="one instance",
        amount=(0, 1),
        most=8,
    ),
    "abort": Kind(
        "evict",
        "An instance is destroyed at any moment with what it has not committed. Its callers get an error that says "
        "so; its sockets are cut, and clients come back.",
        words="one instance",
        amount=(0, 1),
        most=4,
    ),
}
"""Every kind of fault."""

GROUPS: Final = tuple(dict.fromkeys(kind.group for kind in KINDS.values()))


@attrs.frozen
class Faults:
    """Which faults a run may have.

    Attributes:
        kinds: names of `KINDS`.
        horizon_s: they happen within so many virtual seconds.
    """

    kinds: tuple[str, ...] = tuple(KINDS)
    horizon_s: float = HORIZON_S

    @classmethod
    def swarm(cls, groups: str | Iterable[str] = GROUPS, *, horizon_s: float = HORIZON_S) -> Faults:
        """Those of some groups: "crash disk net clock slow evict", with blanks or commas between them.

        Raises:
            ValueError: there is no such group.
        """
        names = groups.replace(",", " ").split() if isinstance(groups, str) else list(groups)
        for name in names:
            if name not in GROUPS:
                raise ValueError(f"no faults {name!r}; there are {', '.join(GROUPS)}")
        return cls(tuple(name for name, kind in KINDS.items() if kind.group in names), horizon_s)

    @classmethod
    def none(cls) -> Faults:
        """A run in which all goes well."""
        return cls(())

    def draw(self, seed: int) -> Sequence[Fault]:
        """The plan of one run: about half of the kinds, so that runs differ in kind (swarm testing), in time order."""
        plan: list[Fault] = []
        for name in self.kinds:
            rng = random.Random(f"{seed}/faults/{name}")  # noqa: S311 -- reproducible on purpose
            if rng.random() < 0.5 and len(self.kinds) > 1:
                continue
            kind = KINDS[name]
            plan += [
                Fault(
                    round(rng.uniform(0.0, self.horizon_s), 6),
                    name,
                    round(rng.uniform(*kind.amount), 6),
                    round(rng.uniform(*kind.lasts), 6),
                )
                for _ in range(rng.randint(1, kind.most))
            ]
        return sorted(plan, key=lambda fault: (fault.at, fault.kind))
