"""A process that writes to facets of both kinds as fast as it can and says what it was told.

`python -m tests.namespace.facet_writer FOLDER` writes lines of an actor's name and number.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio

from runtime import Actor, App, Namespace
from runtime.node import open_node
from runtime.platform import real_platform
from runtime.storage.shared import SharedStore

BOOKS = ("b0", "b1")
SHELVES = ("books", "sql_books")
KINDS = ("keys", "sql")


class Page(Actor["Env"]):
    """A facet, with one of its own below it."""

    async def write(self, number: int, depth: int = 1) -> None:
        self.ctx.storage.put("n", number)
        if depth:
            await self.ctx.facets.get("below", lambda: type(self)).write(number, depth - 1)

    async def read(self, depth: int = 1) -> list[int]:
        own = [self.ctx.storage.get("n", int, 0), *self.more()]
        below = self.ctx.facets.get("below", lambda: type(self))
        return own + (await below.read(depth - 1) if depth else [])

    def more(self) -> list[int]:
        return []


class SqlPage(Page):
    """With a table whose rows are as many as its number says."""

    storage = "sql"

    async def write(self, number: int, depth: int = 1) -> None:
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS t (x INTEGER PRIMARY KEY, padding)")
        self.ctx.storage.sql.exec("INSERT OR IGNORE INTO t VALUES (?, zeroblob(1500))", number)
        await super().write(number, depth)

    def more(self) -> list[int]:
        if not self.ctx.storage.sql.exec("SELECT name FROM sqlite_schema WHERE name = 't'").to_array():
            return [0]
        assert self.ctx.storage.sql.exec("PRAGMA quick_check").one() == {"quick_check": "ok"}
        return [self.ctx.storage.sql.exec("SELECT count(*) AS n FROM t").one()["n"]]


class Book(Actor["Env"]):
    """Writes a number to a page of each kind, then to itself; clones the pages now and then, and deletes the clones."""

    def page(self, name: str) -> Any:
        kind = Page if "keys" in name else SqlPage
        return self.ctx.facets.get(name, lambda: kind)

    async def turn(self) -> int:
        number: int = self.ctx.storage.get("n", int, 0) + 1
        for kind in KINDS:
            await self.page(kind).write(number)
        self.ctx.storage.put("n", number)
        if number % 7 == 0:
            for kind in KINDS:
                await self.ctx.facets.clone(kind, f"copy of {kind}")
            self.ctx.storage.put("cloned", number)
        elif number % 7 == 4:
            for kind in KINDS:
                self.ctx.facets.delete(f"copy of {kind}")
            self.ctx.storage.put("cloned", 0)
        return number

    async def read(self) -> tuple[int, int, dict[str, list[int]]]:
        names = [*KINDS, *(f"copy of {kind}" for kind in KINDS)]
        pages = {name: await self.page(name).read() for name in names}
        return self.ctx.storage.get("n", int, 0), self.ctx.storage.get("cloned", int, 0), pages


class SqlBook(Book):
    """The same with a database."""

    storage = "sql"


@attrs.frozen
class Env:
    books: Namespace[Book]
    sql_books: Namespace[SqlBook]


APP = App(env=Env, routes={})


def running(folder: Path) -> Any:
    """The app on a data directory."""
    platform = real_platform()
    return open_node(
        APP,
        settings=APP.settings(),
        store=SharedStore(folder, platform=platform),
        platform=platform,
        log=structlog.get_logger(),
        objects=folder / "objects",
    )


async def main(folder: Path) -> None:
    async with running(folder) as node:

        async def drive(shelf: str, name: str) -> None:
            while True:
                number = await getattr(node.env, shelf).get_by_name(name).turn()
                print(shelf, name, number, flush=True)  # noqa: T201 -- what was acknowledged

        async with trio.open_nursery() as nursery:
            for shelf in SHELVES:
                for name in BOOKS:
                    nursery.start_soon(drive, shelf, name)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
