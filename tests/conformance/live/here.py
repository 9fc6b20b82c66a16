"""Programs on this runtime, in a process of its own: on the other core, and of a tree that need not be this one.

The process reads programs from its standard input, one a line, or the seed and number of one to draw, and writes each
with its trace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import AsyncGenerator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import attrs
import structlog
import trio

from tests.conformance.compare import Difference, differences
from tests.conformance.programs import drawn
from tests.conformance.runner import record

Trace = Mapping[str, Any]
LONGEST_S = 60
LATE_MS = 1.5  # how late the real runtime's timers are, about
SEEDS = 12  # of how long messages take
_LATE: tuple[dict[str, Any], ...] = ({"lateMs": LATE_MS}, {"lateMs": LATE_MS, "lateTurnMs": LATE_MS})
_UNCONFIRMED: dict[str, Any] = {"unconfirmedAlarms": True}
_VARIANTS = (
    *_LATE,
    {"lateCalls": True},
    {"lateReplies": True},
    _UNCONFIRMED,
    {"lateCalls": True, **_UNCONFIRMED},
    *({one: True, **late} for one in ("lateCalls", "lateReplies") for late in _LATE),
    *({"abortSeed": seed} for seed in range(SEEDS)),
    *({"lateSeed": seed, **late} for seed in range(SEEDS) for late in ({}, *_LATE, _UNCONFIRMED)),
)
_LINE_BYTES = 65_536


def each_caller(trace: Trace) -> Trace:
    """The same trace with a `who` for each event of the driver, and without the ends of closed connections.

    Which of two callers hears first is no rule's. And after both close frames the real runtime leaves the connection
    open; here it ends, as RFC 6455 has it.
    """
    clients = {name: _closed(received) for name, received in trace.get("clients", {}).items()}
    events = [
        [f"{who} {label.partition('.')[0]}" if who == "driver" else who, label, *value]
        for who, label, *value in trace["events"]
    ]
    return {**trace, "events": events, **({"clients": clients} if clients else {})}


def _closed(received: list[Any]) -> list[Any]:
    frames = [index for index, one in enumerate(received) if isinstance(one, dict) and "close" in one]
    return [one for index, one in enumerate(received) if one != "<eof>" or not frames or index < frames[0]]


@attrs.define(eq=False)
class Outcomes:
    """The traces a program can have here, of which more are made only as long as what is asked for is not among them.

    Several when tasks of several actors are ready, or waits end, at the same moment; and as messages take their time.

    Attributes:
        found: those so far, each with how the program was run: the names of what was late, empty for as it is.
    """

    here: Here
    found: list[tuple[Trace, str]]
    _left: list[tuple[Trace, str]]

    async def how(self, there: Trace) -> str | None:
        """How it is run to have a trace; None when it never has."""
        for one, how in self.found:
            if not differences(there, one):
                return how
        while self._left:
            program, how = self._left.pop(0)
            trace = await self.here.trace(program)
            if all(differences(trace, other) for other, _ in self.found):
                self.found.append((trace, how))
                if not differences(there, trace):
                    return how
        return None

    def nearest(self, there: Trace) -> list[Difference]:
        """In what it differs from that of those so far which is the most like it."""
        return min((differences(there, one) for one, _ in self.found), key=len)


@attrs.define(eq=False)
class Here:
    """A tree of this project that runs programs in virtual time, one after another.

    Args:
        tree: its folder.
        storage: the folder of what it stores.
    """

    tree: Path
    nursery: trio.Nursery
    storage: Path
    _process: trio.Process | None = None
    _lock: trio.Lock = attrs.field(factory=trio.Lock)
    _rest: bytes = b""

    async def drawn(self, start: int, number: int) -> tuple[Trace, Trace]:
        """The random program of this number of a seed, and what it does here."""
        return await self._answer([start, number])

    async def trace(self, program: Trace) -> Trace:
        """What a program does; one that does not end, or ends the process, has a trace that says so."""
        return (await self._answer(program))[1]

    def outcomes(self, program: Trace, first: Trace, times: int) -> Outcomes:
        """What a program can do, of which one trace is known; `times`: how often it is run as it is."""
        variants = [({**program, **one}, " and ".join(one)) for one in _VARIANTS]
        return Outcomes(self, [(first, "")], [(program, "")] * (times - 1) + variants)

    async def _answer(self, question: Trace | list[int]) -> tuple[Trace, Trace]:
        async with self._lock:
            line = b""
            try:
                with trio.move_on_after(LONGEST_S):
                    line = await self._ask(json.dumps(question).encode() + b"\n")
            finally:
                if not line:
                    await self._end()  # or its answer would be taken for that of the next question
        if line:
            program, trace = json.loads(line)
            return program, each_caller(trace)
        program = drawn(*question) if isinstance(question, list) else question
        return program, {"name": program["name"], "events": [["runner", "ends the runtime here, or does not end"]]}

    async def _ask(self, line: bytes) -> bytes:
        process = self._process = self._process or await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send_all(line)
        while b"\n" not in self._rest:
            data = await process.stdout.receive_some(_LINE_BYTES)
            if not data:
                return b""
            self._rest += data
        answer, _, self._rest = self._rest.partition(b"\n")
        return answer

    async def _start(self) -> trio.Process:
        command = [sys.executable, "-W", "ignore", "-m", "tests.conformance.live.here"]
        start = partial(
            trio.run_process,
            command,
            cwd=self.tree,
            env={**os.environ, "TMPDIR": str(self.storage)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            check=False,
        )
        process: trio.Process = await self.nursery.start(start)
        return process

    async def _end(self) -> None:
        process, self._process, self._rest = self._process, None, b""
        if process is not None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


@asynccontextmanager
async def programs_in(tree: Path, below: Path | None = None) -> AsyncGenerator[Here]:
    """A tree's process, started with its first program; ended afterwards, and its storage removed.

    Args:
        tree: its folder.
        below: where the storage is made, None for the usual place: a disk takes most of the time.
    """
    with tempfile.TemporaryDirectory(prefix="programs-", dir=below) as folder:
        async with trio.open_nursery() as nursery:
            try:
                yield Here(tree, nursery, Path(folder))
            finally:
                nursery.cancel_scope.cancel()


def _done(program: Trace) -> Trace:
    try:
        return record({**program, "habits": True})
    except Exception as error:  # noqa: BLE001 -- a planted bug may break anything
        return {"name": program["name"], "events": [["runner", "fails here", repr(error)[:300]]]}


def _unread(_logger: object, _method: str, _event: MutableMapping[str, Any]) -> NoReturn:
    raise structlog.DropEvent


def _main() -> None:
    warnings.simplefilter("ignore")  # what an abort leaves unawaited
    structlog.configure(processors=[_unread])  # before it draws the tracebacks: a second of a program that aborts

    for line in sys.stdin:
        question = json.loads(line)
        program = drawn(*question) if isinstance(question, list) else question
        sys.stdout.write(json.dumps([program, _done(program)]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
