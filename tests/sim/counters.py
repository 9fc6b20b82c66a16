"""A small app and its scenario: counters that several clients add to, with alarms."""

import attrs
import trio

from runtime import Actor, AlarmInfo, App, Namespace, durable
from runtime.sim import Unknown, World, linearizable, scenario


@attrs.frozen
class Count:
    value: int = 0
    rung: int = 0


class Counter(Actor["Env"]):
    count = durable(Count)

    async def add(self, by: int) -> int:
        self.count = attrs.evolve(self.count, value=self.count.value + by)
        return self.count.value

    async def read(self) -> int:
        return self.count.value

    async def remind(self, seconds: float) -> None:
        self.ctx.storage.set_alarm(self.ctx.now() + seconds)

    async def rung(self) -> int:
        return self.count.rung

    async def alarm(self, info: AlarmInfo) -> None:
        self.count = attrs.evolve(self.count, rung=self.count.rung + 1)


@attrs.frozen
class Env:
    counters: Namespace[Counter]


app = App(env=Env, routes={})


def _apply(state, request):
    kind, by = request
    return (state + by, state + by) if kind == "add" else (state, state)


@scenario
async def counting(w: World) -> None:
    """Three clients add to one counter and read it; one order of all of it must explain every answer."""
    node = await w.start_node(app)
    history = w.history("counters/tea")
    tea = node.stub("counters", "tea")

    async def client(name: str) -> None:
        rng = w.rng(name)
        for _ in w.times(12):
            await trio.sleep(rng.uniform(0, 1.2))
            try:
                if rng.random() < 0.6:
                    await history.record(("add", 1), lambda: tea.add(1))
                else:
                    await history.record(("read", 0), lambda: tea.read())
            except Unknown:
                pass

    async with trio.open_nursery() as clients:
        for name in ("anna", "ben", "cleo"):
            clients.start_soon(client, name)
    await w.quiesce(1.0)
    await history.record(("read", 0), lambda: tea.read())
    culprit = linearizable(history, 0, _apply)
    assert culprit is None, f"no order of the operations explains {culprit}"


@scenario
async def reminding(w: World) -> None:
    """An alarm that was set is rung at least once."""
    node = await w.start_node(app)

    async def client(name: str) -> None:
        rng = w.rng(name)
        for _ in w.times(6):
            await trio.sleep(rng.uniform(0, 1.5))
            await w.until_answered(lambda: node.stub("counters", name).remind(rng.uniform(0, 3)))

    async with trio.open_nursery() as clients:
        for at in range(4):
            clients.start_soon(client, f"c{at}")
    await w.quiesce(300.0)
    for at in range(4):
        assert await node.stub("counters", f"c{at}").rung() >= min(1, len(w.times(6)))
