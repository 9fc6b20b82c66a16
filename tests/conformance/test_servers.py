"""A program that ends its server takes nobody else's trace along: what ran beside it is run anew."""

from __future__ import annotations

from contextlib import asynccontextmanager

import attrs
import httpx
import pytest
import trio

from tests.conformance.live.recorder import ServerEnded
from tests.conformance.live.servers import servers

ENDS = {"name": "ends", "steps": [["sleep", 1000]]}
SILENT = {"name": "silent", "steps": []}
USUAL = {"name": "usual", "steps": [["sleep", 5000]]}


@attrs.define(eq=False)
class Server:
    """Ends a second after a program that ends it, and never answers one."""

    started: int = 1
    ended: bool = False
    ends_with: str | None = None

    async def revive(self):
        if self.ended:
            self.started += 1
            self.ended, self.ends_with = False, None

    async def has_ended(self):
        return self.ended

    async def post(self, target, body=None):
        if body is not None and body["name"] == "ends":
            self.ends_with = target.partition("run=")[2]
        if body is not None and body["name"] == "silent":
            await trio.sleep(60)
            raise httpx.ReadTimeout("no answer")
        if self.ends_with is not None and target.endswith(f"run={self.ends_with}") and body is None:
            self.ended = True
        if self.ended:
            raise httpx.ReadError("it has ended")
        return "[]"


@attrs.define
class Started:
    """Every server that was started."""

    every: list[Server] = attrs.field(factory=list)

    @asynccontextmanager
    async def start(self):
        self.every.append(Server())
        yield self.every[-1]


async def recorded(started, programs, count=1):
    traces = {}

    async def record(there, index, program):
        try:
            traces[index] = (await there.record(program))["name"]
        except ServerEnded:
            traces[index] = None

    async with servers(started.start, count) as there, trio.open_nursery() as nursery:
        for index, program in enumerate(programs):
            nursery.start_soon(record, there, index, program)
            await trio.sleep(0.1)
    return [traces[index] for index in range(len(programs))]


async def test_what_ran_beside_a_program_that_ends_the_server_is_run_on_one_of_its_own(autojump_clock):
    started = Started()
    assert await recorded(started, [USUAL, ENDS, USUAL]) == ["usual", None, "usual"]
    assert len(started.every) == 1 + 3
    assert trio.current_time() < 10  # nobody waits out what was cut off


async def test_a_server_that_has_ended_is_started_again_for_the_next_program(autojump_clock):
    started = Started()
    async with servers(started.start, 1) as there:
        with pytest.raises(ServerEnded):
            await there.record(ENDS)
        assert (await there.record(USUAL))["name"] == "usual"
    assert started.every[0].started == 2


async def test_a_program_that_gets_no_answer_leaves_those_beside_it_alone(autojump_clock):
    started = Started()
    assert await recorded(started, [USUAL, SILENT, USUAL]) == ["usual", None, "usual"]
    assert len(started.every) == 1 + 1


async def test_programs_are_spread_over_the_servers(autojump_clock):
    started = Started()
    assert await recorded(started, [USUAL, ENDS, USUAL, USUAL], count=4) == ["usual", None, "usual", "usual"]
    assert len(started.every) == 4 + 1  # the one that ended had no other program
