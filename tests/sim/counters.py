"""A small app and its scenario: counters that several clients add to, with alarms."""

from functools import partial

import attrs
import trio

from runtime import Actor, AlarmInfo, App, Namespace, durable
from runtime.sim import Unknown, World, linearizable, scenario


@attrs.frozen
class Count:
    value: int = 0
    asked: int = 0
    rung: int = 0


class Counter(Actor["Env"]):
    count = durable(Count)

    async def add(self, by: int) -> int:
        self.count = attrs.evolve(self.count, value=self.count.value + by)
        return self.count.value

    async def add_slowly(self, by: int) -> int:
        """Holds the turn between reading and writing, and lets it go before it answers."""
        value = self.count.value
        await trio.sleep(0.1)
        self.count = attrs.evolve(self.count, value=value + by)
        await self.ctx.sleep(0.05)
        return value + by

    async def read(self) -> int:
        return self.count.value

    async def remind(self, seconds: float) -> int:
        self.count = attrs.evolve(self.count, asked=self.count.asked + 1)
        self.ctx.storage.set_alarm(self.ctx.now() + seconds)
        return self.count.asked

    async def reminded(self) -> tuple[int, int]:
        return self.count.asked, self.count.rung

    async def alarm(self, info: AlarmInfo) -> None:
        await self.ctx.sleep(0.2)
        self.count = attrs.evolve(self.count, rung=self.count.asked)


@attrs.frozen
class Env:
    counters: Namespace[Counter]


app = App(env=Env, routes={})


def _apply(state, request):
    kind, by = request
    return (state, state) if kind == "read" else (state + by, state + by)


@scenario
async def counting(w: World) -> None:
    """Three clients add to one counter and read it; one order of all of it must explain every answer."""
    node = await w.start_node(app)
    history = w.history("counters/tea")
    tea = node.stub("counters", "tea")
    calls = {"add": tea.add, "add slowly": tea.add_slowly, "read": lambda _: tea.read()}

    async def client(name: str) -> None:
        rng = w.rng(name)
        for _ in w.times(12):
            await trio.sleep(rng.uniform(0, 1.2))
            kind = rng.choice(("add", "add slowly", "read"))
            while True:
                try:
                    await history.record((kind, 1), partial(calls[kind], 1))
                except Unknown:
                    kind = "read"  # it wants to know at once
                else:
                    break

    async with trio.open_nursery() as clients:
        for name in ("anna", "ben", "cleo"):
            clients.start_soon(client, name)
    await w.quiesce(1.0)
    await history.record(("read", 1), lambda: tea.read())
    culprit = linearizable(history, 0, _apply)
    assert culprit is None, f"no order of the operations explains {culprit}"


@scenario
async def reminding(w: World) -> None:
    """After the last time that somebody asked to be reminded, the alarm rings."""
    node = await w.start_node(app)
    told: dict[str, int] = {}

    async def client(name: str) -> None:
        rng = w.rng(name)
        for _ in w.times(6):
            await trio.sleep(rng.uniform(0, 1.5))
            told[name] = await w.until_answered(lambda: node.stub("counters", name).remind(rng.uniform(0, 3)))

    async with trio.open_nursery() as clients:
        for at in range(4):
            clients.start_soon(client, f"c{at}")
    await w.quiesce(400.0)
    for name, times in told.items():
        asked, rung = await node.stub("counters", name).reminded()
        assert rung == asked >= times, f"{name} asked {asked} times, and the alarm saw {rung}"
