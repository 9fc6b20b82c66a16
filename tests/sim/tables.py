"""A small app of a SQL class and its scenario: what is acknowledged is in its table, whatever goes wrong."""

from functools import partial

import attrs
import trio

from runtime import Actor, App, Namespace, SqlError
from runtime.sim import Unknown, World, linearizable, scenario


class Table(Actor["Env"]):
    """Counts in a table, and keeps a row for each addition."""

    storage = "sql"

    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS added (value INTEGER)")

    async def add(self, by: int) -> int:
        self.ctx.storage.sql.exec("INSERT INTO added VALUES (?)", by)
        return self._sum()

    async def add_slowly(self, by: int) -> int:
        """Lets the turn go between two rows, so that they are two batches."""
        self.ctx.storage.sql.exec("INSERT INTO added VALUES (?)", by)
        value = self._sum()
        await self.ctx.sleep(0.05)
        self.ctx.storage.put("noted", value)
        return value

    async def read(self) -> int:
        return self._sum()

    def _sum(self) -> int:
        return self.ctx.storage.sql.exec("SELECT ifnull(sum(value), 0) AS value FROM added").one()["value"]


@attrs.frozen
class Env:
    tables: Namespace[Table]


app = App(env=Env, routes={})


def _apply(state, request):
    return (state, state) if request == "read" else (state + 1, state + 1)


# A page that was damaged and written to meanwhile is not right again with the bit.
@scenario(
    spared=("bit flip",),
    points=(
        "a crash left a log behind",
        "an object is opened while it is being closed",
        "the index is told of an object",
    ),
)
async def tallying(w: World) -> None:
    """Three clients add rows to two tables; one order of all of it must explain every answer."""
    node = await w.start_node(app)
    names = ("tea", "milk")

    async def client(name: str) -> None:
        rng = w.rng(name)
        for _ in w.times(10):
            await trio.sleep(rng.uniform(0, 1.4))
            which, kind = rng.choice(names), rng.choice(("add", "add_slowly", "read"))
            table = node.stub("tables", which)
            for _ in range(6):
                try:
                    await w.history(which).record(
                        kind, partial(getattr(table, kind), *(() if kind == "read" else (1,)))
                    )
                except (Unknown, SqlError):  # the disk is full, or the answer is lost, or there is none before a start
                    kind = "read"
                    await trio.sleep(0.05)
                else:
                    break

    async with trio.open_nursery() as clients:
        for name in ("anna", "ben", "cleo"):
            clients.start_soon(client, name)
    await w.quiesce()
    await w.restart(node)  # a table whose sync failed is not used before that
    for name in names:
        history = w.history(name)
        await history.record("read", lambda name=name: node.stub("tables", name).read())
        culprit = linearizable(history, 0, _apply)
        assert culprit is None, f"no order of the operations on {name} explains {culprit}"
