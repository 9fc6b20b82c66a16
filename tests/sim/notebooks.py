"""Notebooks that are brought back to bookmarks, of a class of each kind of storage, while everything goes wrong."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import attrs
import trio

from runtime import Actor, AlarmInfo, App, Namespace, SqlError
from runtime.sim import SimulatedNode, Unknown, World, linearizable, scenario

BOOKS = ("tea", "milk")


class Notebook(Actor["Env"]):
    """Lines in the order in which they were written, and an alarm."""

    async def write(self, line: str) -> int:
        """One more, counted by a key that every write changes."""
        return self._add(line)

    async def write_together(self, line: str) -> int:
        """The same in a transaction, in which others wait."""

        async def write(_: object) -> int:
            return self._add(line)

        return await self.ctx.storage.transaction(write)

    async def tear_out(self) -> None:
        """All of it."""
        self.ctx.storage.delete_all()

    async def read(self) -> tuple[str, ...]:
        return self.lines()

    async def remind(self, seconds: float) -> None:
        self.ctx.storage.set_alarm(self.ctx.now() + seconds)

    async def alarm(self, info: AlarmInfo) -> None:
        await self.ctx.sleep(0.05)

    async def due(self) -> float | None:
        return self.ctx.storage.get_alarm()

    def _add(self, line: str) -> int:
        count = self.ctx.storage.get("count", int, 0) + 1
        self.ctx.storage.put_many({"count": count, f"line/{count:06}": line})
        return count

    def lines(self) -> tuple[str, ...]:
        return tuple(self.ctx.storage.list(str, prefix="line/").values())


class Table(Notebook):
    """The same in a table."""

    storage = "sql"

    def _add(self, line: str) -> int:
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS lines (number INTEGER PRIMARY KEY, line TEXT)")
        self.ctx.storage.sql.exec("INSERT INTO lines (line) VALUES (?)", line)
        return len(self.lines())

    def lines(self) -> tuple[str, ...]:
        if not self.ctx.storage.sql.exec("SELECT 1 FROM sqlite_schema WHERE name = 'lines'").to_array():
            return ()
        return tuple(row["line"] for row in self.ctx.storage.sql.exec("SELECT line FROM lines ORDER BY number"))


@attrs.frozen
class Env:
    books: Namespace[Notebook]
    tables: Namespace[Table]


app = App(env=Env, routes={})


@attrs.frozen
class Marked:
    """A bookmark, and what the notebook had when it was taken."""

    bookmark: str
    lines: tuple[str, ...]


def _apply(lines: tuple[str, ...], request: Any) -> tuple[tuple[str, ...], Any]:
    match request:
        case ("write", line):
            return (*lines, line), len(lines) + 1
        case "tear out":
            return (), None
        case ("bring back", then):
            return then, None
    return lines, lines


async def _mark(w: World, node: SimulatedNode, kind: str, name: str) -> Marked:
    async def mark(book: Notebook) -> Marked:
        async def at_once() -> Marked:
            return Marked(await book.ctx.storage.get_current_bookmark(), book.lines())

        return await book.ctx.block_concurrency_while(at_once)

    found: list[Marked] = []

    async def ask() -> tuple[str, ...]:
        found.append(await node.run_in(kind, name, mark))
        return found[0].lines

    await w.history(f"{kind}/{name}").record("read", ask)
    return found[0]


async def _bring_back(w: World, node: SimulatedNode, kind: str, name: str, to: Marked, undo: list[Marked]) -> None:
    """Whether it was done nobody is told: the instance ends. What leads back is added to `undo`."""

    async def bring_back(book: Notebook) -> None:
        async def at_once() -> None:
            before = book.lines()
            bookmark = await book.ctx.storage.on_next_session_restore_bookmark(to.bookmark)
            if node.life_of(book.ctx._cell) is not None:  # else nobody hears what a dead process finds out
                undo.append(Marked(bookmark, before))
            book.ctx.abort("it is brought back")

        await book.ctx.block_concurrency_while(at_once)

    await w.history(f"{kind}/{name}").record(("bring back", to.lines), lambda: node.run_in(kind, name, bring_back))


async def _restoring(w: World, kind: str) -> None:
    node = await w.start_node(app)

    async def writer(who: str, name: str) -> None:
        rng = w.rng(f"{who}/{name}")
        book, history = node.stub(kind, name), w.history(f"{kind}/{name}")
        for number in w.times(8):
            await trio.sleep(rng.choice((0.0, 0.001, 0.2, 1.5)))
            what = rng.choice(("write", "write", "write together", "remind", "remind", "read", "tear out"))
            line = f"{who}-{number}"
            try:
                if what == "write":
                    await history.record(("write", line), partial(book.write, line))
                elif what == "write together":
                    await history.record(("write", line), partial(book.write_together, line))
                elif what == "tear out":
                    await history.record("tear out", book.tear_out)
                elif what == "remind":
                    await book.remind(rng.uniform(0, 4))
                else:
                    await history.record("read", book.read)
            except (Unknown, SqlError):  # nobody knows, or the disk is full
                await trio.sleep(0.05)

    async def operator(name: str) -> None:
        rng = w.rng(f"operator/{name}")
        marked: list[Marked] = []
        for _ in w.times(7):
            await trio.sleep(rng.uniform(0.1, 1.5))
            try:
                if marked and rng.random() < 0.5:
                    await _bring_back(w, node, kind, name, rng.choice(marked), marked)
                else:
                    marked.append(await _mark(w, node, kind, name))
            except (Unknown, SqlError):
                with suppress(Unknown, SqlError):
                    await w.history(f"{kind}/{name}").record("read", node.stub(kind, name).read)

    async with trio.open_nursery() as everybody:
        for name in BOOKS:
            everybody.start_soon(writer, "anna", name)
            everybody.start_soon(writer, "ben", name)
            everybody.start_soon(operator, name)
    await w.quiesce()
    if kind == "tables":
        await w.restart(node)  # one whose sync failed is not used before that
    for name in BOOKS:
        history = w.history(f"{kind}/{name}")
        await history.record("read", node.stub(kind, name).read)
    await trio.sleep(400.0)
    for name in BOOKS:
        book, history = node.stub(kind, name), w.history(f"{kind}/{name}")
        await history.record("read", book.read)
        due = await book.due()
        assert due is None or due > node.now(), f"the alarm of {name} has been due since {due}, and it is {node.now()}"
        culprit = linearizable(history, (), _apply)
        assert culprit is None, f"no order of the operations on {name} explains {culprit}"


@scenario
async def restoring(w: World) -> None:
    """Notebooks are brought back to bookmarks, forth and back: each then has what it had when that one was taken."""
    await _restoring(w, "books")


# What a flipped bit takes from a history stays gone when the bit is right again, and bookmarks with it.
@scenario(spared=("bit flip",))
async def restoring_tables(w: World) -> None:
    """The same with databases of their own."""
    await _restoring(w, "tables")
