"""What a random program is made of, and what those of a run had in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import attrs

from tests.conformance.programs import GAP, Json

OVERLAPPING = 3

KINDS = {
    "storage": {"get", "put", "delete", "list", "deleteAll", "kvPut", "kvGet", "sql"},
    "waits": {"sleep", "join", "wait"},
    "calls": {"call", "scall"},
    "critical sections": {"block"},
    "transactions": {"txn", "txnSync"},
    "alarms": {"setAlarm", "deleteAlarm", "getAlarm"},
    "aborts": {"abort"},
    "evictions": {"evict"},
    "sockets": {"wsOpen"},
}


def operations(program: Json) -> Iterator[str]:
    """The name of every operation of a program, wherever it stands, and of what the outside world does to its actors.

    Without what all programs have: the pauses between steps, and the look at what is stored.
    """
    if isinstance(program, dict) and "steps" in program:
        yield from operations([program["actors"], *(step for step in program["steps"] if step != GAP)])
    elif isinstance(program, dict):
        for name, value in program.items():
            if name != "look":
                yield from operations(value)
    elif isinstance(program, list):
        if program and isinstance(program[0], str):
            yield program[0]
        for item in program:
            yield from operations(item)


def overlapping(program: Json) -> int:
    """The most events that the outside world starts without waiting for one of them."""
    most = now = 0
    for name, *_ in program["steps"]:
        if name in {"driveBg", "wsSend"}:
            now += 1
        elif name in {"joinBg", "drive", "evict"}:
            now = 0
        most = max(most, now)
    return most


@attrs.define
class Tally:
    """What the programs of a run had in them."""

    programs: int = 0
    overlapping: int = 0
    kinds: Counter[str] = attrs.field(factory=Counter)

    def add(self, program: Json) -> None:
        """Count one program."""
        names = set(operations(program))
        self.programs += 1
        self.overlapping += overlapping(program) >= OVERLAPPING
        self.kinds.update(kind for kind, those in KINDS.items() if names & those)

    def lacking(self) -> list[str]:
        """What there was too little of: half with overlapping events, and a tenth of each kind."""
        found = [kind for kind in KINDS if self.kinds[kind] * 10 < self.programs]
        return found + ([f"{OVERLAPPING} overlapping events"] if self.overlapping * 2 < self.programs else [])

    def __str__(self) -> str:
        shares = {f"{OVERLAPPING}+ overlapping": self.overlapping} | {kind: self.kinds[kind] for kind in KINDS}
        return ", ".join(f"{name} {100 * count // max(self.programs, 1)} %" for name, count in shares.items())
