"""`kill -9` while facets of both kinds write, are cloned and deleted: what was acknowledged is there, whole."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.namespace.facet_writer import BOOKS, KINDS, SHELVES, running

ROUNDS = 6


def write_and_kill(folder: Path, lines: int) -> list[list[str]]:
    """What a writer said before it was killed, line by line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.namespace.facet_writer", str(folder)],
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


async def check(folder: Path, told: dict[tuple[str, str], int]) -> int:
    """Everything that was told is there, and parents and facets agree; how many have clones."""
    clones = 0
    async with running(folder) as node:
        for shelf in SHELVES:
            for name in BOOKS:
                number, cloned, pages = await getattr(node.env, shelf).get_by_name(name).read()
                assert number >= told.get((shelf, name), 0)
                for kind in KINDS:
                    page, below = halves(pages[kind])
                    assert number <= below <= page <= number + 1
                    assert halves(pages[f"copy of {kind}"]) == (cloned, cloned)
                clones += cloned > 0
    return clones


def halves(found: list[int]) -> tuple[int, int]:
    """The number of a page and of the one below it; a table has as many rows as its number says."""
    own, below = found[: len(found) // 2], found[len(found) // 2 :]
    assert len(set(own)) == len(set(below)) == 1
    return own[0], below[0]


@pytest.mark.real
def test_what_facets_acknowledged_survives_kills_and_clones_are_whole(tmp_path):
    chance = random.Random(9)
    told: dict[tuple[str, str], int] = {}
    clones = 0
    for _ in range(ROUNDS):
        for shelf, name, number in write_and_kill(tmp_path, chance.randint(20, 200)):
            assert int(number) > told.get((shelf, name), 0)
            told[shelf, name] = int(number)
        clones += trio.run(check, tmp_path, told)
    assert clones
    assert max(told.values()) > ROUNDS
