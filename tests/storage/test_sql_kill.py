"""`kill -9` while SQL objects are written: what was acknowledged is there, whole, its alarm known, its history kept."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.storage.sql_writer import FAR_S, OBJECTS, running

ROUNDS = 6


def write_and_kill(folder, objects, lines):
    """What a writer said before it was killed, line by line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.storage.sql_writer", str(folder), str(objects)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert process.stdout is not None
    said = [line.split() for _, line in zip(range(lines), process.stdout, strict=False)]
    process.kill()
    said += [line.split() for line in process.stdout if line.endswith("\n")]  # acknowledged before the end
    process.wait()
    process.stdout.close()
    return said


@pytest.mark.real
def test_what_sql_objects_acknowledged_survives_kills(tmp_path):
    chance = random.Random(7)
    told: dict[str, int] = {}
    for _ in range(ROUNDS):
        for name, number, *_ in write_and_kill(tmp_path, OBJECTS, chance.randint(20, 600)):
            assert int(number) > told.get(name, 0)
            told[name] = int(number)

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


@pytest.mark.real
def test_bookmarks_of_sql_objects_survive_kills(tmp_path):
    chance = random.Random(8)
    bookmarks: dict[str, list[tuple[int, str]]] = {}
    for _ in range(ROUNDS):
        for name, number, *bookmark in write_and_kill(tmp_path, 2, chance.randint(200, 900)):
            if bookmark:
                bookmarks.setdefault(name, []).append((int(number), *bookmark))

    async def go_back() -> None:
        async with running(tmp_path) as node:
            for name, given in bookmarks.items():
                assert [text for _, text in given] == sorted(text for _, text in given)
                for number, text in [given[0], *chance.sample(given, 6), given[-1]]:
                    with pytest.raises(Exception, match="brought back"):
                        await node.env.counters.get_by_name(name).back_to(text)
                    assert (await node.env.counters.get_by_name(name).counted()) == (number, number, number, number)

    trio.run(go_back)
    assert min(map(len, bookmarks.values())) > 20
