"""A process that writes to SQL objects as fast as it can and says what it was told.

`python sql_writer.py FOLDER [OBJECTS]` writes lines of an object's name and number; every tenth has a bookmark, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import structlog
import trio

from runtime import Actor, App, Namespace
from runtime.node import open_node
from runtime.platform import real_platform
from runtime.storage.shared import SharedStore

OBJECTS = 20
FAR_S = 4_000_000_000.0


class Counter(Actor["Env"]):
    """Counts in a key, in a table and in its alarm, all in one batch."""

    storage = "sql"

    async def count(self) -> int:
        number: int = self.ctx.storage.get("n", int, 0) + 1
        self.ctx.storage.put("n", number)
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS t (x INTEGER PRIMARY KEY, padding)")
        self.ctx.storage.sql.exec("INSERT INTO t VALUES (?, zeroblob(2000))", number)
        self.ctx.storage.set_alarm(FAR_S + number)
        return number

    async def bookmark(self) -> tuple[int, str]:
        return self.ctx.storage.get("n", int, 0), await self.ctx.storage.get_current_bookmark()

    async def back_to(self, bookmark: str) -> None:
        await self.ctx.storage.on_next_session_restore_bookmark(bookmark)
        self.ctx.abort("brought back")

    async def counted(self) -> tuple[int, int, int, float]:
        storage = self.ctx.storage
        number: int = storage.get("n", int, 0)
        if not number:
            return 0, 0, 0, 0.0
        row = storage.sql.exec("SELECT count(*), max(x) FROM t").raw()
        rows, largest = next(row)
        check = storage.sql.exec("PRAGMA quick_check").one()
        assert check == {"quick_check": "ok"}, check
        return number, rows, largest, storage.get_alarm() - FAR_S

    async def alarm(self, info: object) -> None:
        raise AssertionError


@attrs.frozen
class Env:
    counters: Namespace[Counter]


APP = App(env=Env, routes={})


def running(folder: Path):
    platform = real_platform()
    return open_node(
        APP,
        settings=APP.settings(),
        store=SharedStore(folder, platform=platform),
        platform=platform,
        log=structlog.get_logger(),
        objects=folder / "objects",
    )


async def main(folder: Path, objects: int = OBJECTS) -> None:
    async with running(folder) as node:

        async def drive(name: str) -> None:
            while True:
                number = await node.env.counters.get_by_name(name).count()
                if number % 10:
                    print(name, number, flush=True)  # noqa: T201 -- what was acknowledged
                else:
                    print(name, *await node.env.counters.get_by_name(name).bookmark(), flush=True)  # noqa: T201

        async with trio.open_nursery() as nursery:
            for place in range(objects):
                nursery.start_soon(drive, f"c{place}")


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), *map(int, sys.argv[2:]))
