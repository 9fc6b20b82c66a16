"""An app and its scenarios: clerks that send orders to ledgers, alarms that fail, mailboxes that fill up."""

import attrs
import trio

from runtime import Actor, AlarmInfo, App, Namespace, Overloaded, durable
from runtime.sim import Unknown, World, scenario

CROWD = 1_100  # calls at once; a mailbox has room for 1,000


@attrs.frozen
class Bell:
    asked: int = 0
    tries: int = 0
    rung: int = 0


class Ledger(Actor["Env"]):
    """Keeps what it is sent, in the order in which it comes."""

    bell = durable(Bell)

    async def enter(self, batch: str, number: int) -> None:
        """One key more, after a moment in which others may come in."""
        count = self.ctx.storage.get("count", int, 0)
        self.ctx.storage.put_many({f"entry/{count:06}": [batch, number], "count": count + 1})
        await self.ctx.sleep(0.001)

    async def pair(self, number: int) -> None:
        """Two keys in one turn."""
        self.ctx.storage.put(f"left/{number}", number)
        self.ctx.storage.put(f"right/{number}", number)

    async def enter_and_fail(self, number: int) -> None:
        """Writes, and raises."""
        self.ctx.storage.put(f"failed/{number}", number)
        raise ValueError(f"{number} is not to be had")

    async def keep(self, number: int) -> None:
        """Takes long."""
        await self.ctx.sleep(0.01)
        self.ctx.storage.put(f"kept/{number}", number)

    async def tell(self, number: int) -> None:
        """Writes, and asks somebody outside right afterwards."""
        self.ctx.storage.put("told", number)
        await self.ctx.outside(trio.sleep, 0.01)

    async def remind(self, seconds: float) -> int:
        self.bell = attrs.evolve(self.bell, asked=self.bell.asked + 1)
        self.ctx.storage.set_alarm(self.ctx.now() + seconds)
        return self.bell.asked

    async def alarm(self, info: AlarmInfo) -> None:
        """Works at every fourth try only."""
        tries = self.bell.tries + 1
        self.bell = attrs.evolve(self.bell, tries=tries)
        await self.ctx.sleep(0.1)
        if tries % 4:
            raise RuntimeError(f"try {tries}")
        self.bell = attrs.evolve(self.bell, rung=self.bell.asked)

    async def rung(self) -> tuple[int, int]:
        return self.bell.asked, self.bell.rung

    async def found(self, prefix: str) -> list[object]:
        return list(self.ctx.storage.list(prefix=prefix).values())


class Clerk(Actor["Env"]):
    """Sends orders to a ledger without waiting for each."""

    async def send(self, to: str, batch: str, count: int) -> None:
        ledger = self.env.ledgers.get_by_name(to)
        self.ctx.storage.put("newest", batch)
        calls = [ledger.enter(batch, number) for number in range(count)]
        for call in calls:
            await call


@attrs.frozen
class Env:
    ledgers: Namespace[Ledger]
    clerks: Namespace[Clerk]


app = App(env=Env, routes={})


@scenario
async def sending(w: World) -> None:
    """What a clerk sends is entered in order, never twice, and without holes; pairs are whole; failures keep writes."""
    node = await w.start_node(app)
    failed: list[int] = []

    async def client(name: str) -> None:
        rng = w.rng(name)
        clerk, ledger = node.stub("clerks", name), node.stub("ledgers", "main")
        for number in w.times(6):
            await trio.sleep(rng.uniform(0, 1.5))
            try:
                await clerk.send("main", f"{name}-{number}", 5)
                await ledger.pair(number)
                await ledger.tell(number)
                await ledger.enter_and_fail(number)
            except Unknown:
                continue
            except ValueError:
                failed.append(number)

    async with trio.open_nursery() as clients:
        for name in ("anna", "ben"):
            clients.start_soon(client, name)
    await w.quiesce(1.0)
    ledger = node.stub("ledgers", "main")
    batches: dict[str, list[int]] = {}
    for batch, number in await ledger.found("entry/"):
        batches.setdefault(batch, []).append(number)
    for batch, numbers in batches.items():
        assert numbers == list(range(len(numbers))), f"{batch} was entered as {numbers}"
    left, right = await ledger.found("left/"), await ledger.found("right/")
    assert left == right, f"half of a pair is missing: {left} and {right}"
    kept = await ledger.found("failed/")
    assert set(failed) <= set(kept), f"what failing handlers wrote is {kept}, and {failed} were answered"


@scenario
async def insisting(w: World) -> None:
    """An alarm whose handler fails three times rings at last."""
    node = await w.start_node(app)
    told: dict[str, int] = {}

    async def client(name: str) -> None:
        rng = w.rng(name)
        for _ in w.times(3):
            await trio.sleep(rng.uniform(0, 3))
            told[name] = await w.until_answered(lambda: node.stub("ledgers", name).remind(rng.uniform(0, 3)))

    async with trio.open_nursery() as clients:
        for at in range(3):
            clients.start_soon(client, f"c{at}")
    await w.quiesce(400.0)
    for name, times in told.items():
        asked, rung = await node.stub("ledgers", name).rung()
        assert rung == asked >= times, f"{name} asked {asked} times, and the alarm saw {rung}"


@scenario
async def crowding(w: World) -> None:
    """More calls than a mailbox holds: some are refused, and what is refused leaves no trace."""
    node = await w.start_node(app)
    ended: dict[int, str] = {}

    async def call(number: int) -> None:
        try:
            await node.stub("ledgers", "main").keep(number)
        except Overloaded:
            ended[number] = "refused"
        except Unknown:
            ended[number] = "unknown"
        else:
            ended[number] = "kept"

    await trio.sleep(w.rng("crowd").uniform(0, 5))
    async with trio.open_nursery() as clients:
        for number in w.times(CROWD):
            clients.start_soon(call, number)
    await w.quiesce(1.0)
    kept = set(await node.stub("ledgers", "main").found("kept/"))
    for number, how in ended.items():
        assert how != "refused" or number not in kept, f"{number} was refused, and is there"
        assert how != "kept" or number in kept, f"{number} was kept, and is not there"
