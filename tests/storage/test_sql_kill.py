"""`kill -9` while SQL objects are written: everything acknowledged is there, whole, and its alarm is known."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.storage.sql_writer import FAR_S, OBJECTS, running

ROUNDS = 6


@pytest.mark.real
def test_what_sql_objects_acknowledged_survives_kills(tmp_path):
    chance = random.Random(7)
    told: dict[str, int] = {}
    for _ in range(ROUNDS):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.sql_writer", str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        assert process.stdout is not None
        lines = chance.randint(20, 600)
        for _, line in zip(range(lines), process.stdout, strict=False):
            name, number = line.split()
            assert int(number) > told.get(name, 0)
            told[name] = int(number)
        process.kill()
        for line in process.stdout:  # it was acknowledged before the end
            if line.endswith("\n"):
                name, number = line.split()
                told[name] = int(number)
        process.wait()
        process.stdout.close()

    async def look() -> None:
        async with running(tmp_path) as node:
            due = {actor.name: time_s - FAR_S for actor, time_s in node.store.alarms()}
            for place in range(OBJECTS):
                name = f"c{place}"
                number, rows, largest, alarm = await node.env.counters.get_by_name(name).counted()
                assert number >= told.get(name, 0)
                assert (rows, largest, alarm) == (number, number, number)
                assert due.get(name, 0) == number

    assert max(told.values()) > ROUNDS
    trio.run(look)
