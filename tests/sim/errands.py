"""An app and its scenarios: clerks that send orders to ledgers, alarms that fail, mailboxes that fill up."""

from contextlib import suppress

import attrs
import trio

from runtime import Actor, AlarmInfo, App, Namespace, Overloaded, durable
from runtime.sim import Unknown, World, scenario

HOPELESS = "hopeless"  # its alarm never works
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

    async def quit(self) -> None:
        """Gives up while what it wrote is on its way."""
        self.ctx.storage.put("quits", self.ctx.storage.get("quits", int, 0) + 1)
        await self.ctx.sleep(0.0)
        self.ctx.abort("it has had enough")

    async def remind(self, seconds: float) -> int:
        self.bell = attrs.evolve(self.bell, asked=self.bell.asked + 1)
        self.ctx.storage.set_alarm(self.ctx.now() + seconds)
        return self.bell.asked

    async def alarm(self, info: AlarmInfo) -> None:
        """Works at every fourth try only, and for nobody without hope."""
        tries = self.bell.tries + 1
        self.bell = attrs.evolve(self.bell, tries=tries)
        await self.ctx.sleep(0.1)
        if tries % 4 or self.ctx.id.name == HOPELESS:
            raise RuntimeError(f"try {tries}")
        self.bell = attrs.evolve(self.bell, rung=self.bell.asked)

    async def rung(self) -> tuple[int, int]:
        return self.bell.asked, self.bell.rung

    async def tried(self) -> tuple[int, float | None]:
        return self.bell.tries, self.ctx.storage.get_alarm()

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

    async def hint(self, to: str) -> None:
        """One message, which leaves when what was written before it is durable."""
        self.ctx.storage.put("newest", to)
        self.ctx.notify(self.env.ledgers.get_by_name(to).pair, 0)

    async def tell_and_quit(self, to: str, batch: str, count: int) -> None:
        """Sends orders one way, and gives up before they can have left."""
        ledger = self.env.ledgers.get_by_name(to)
        self.ctx.storage.put("newest", batch)
        for number in range(count):
            self.ctx.notify(ledger.enter, batch, number)
        await self.ctx.sleep(0.0)
        self.ctx.abort("it has had enough")


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


@scenario(points=("an alarm is tried again",))
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


@scenario(points=("an alarm is given up",))
async def giving_up(w: World) -> None:
    """An alarm whose handler always fails is tried seven times, and then it is gone."""
    node = await w.start_node(app)
    await w.until_answered(lambda: node.stub("ledgers", HOPELESS).remind(1.0))
    await w.quiesce(700.0)
    asked, rung = await node.stub("ledgers", HOPELESS).rung()
    tries, due = await node.stub("ledgers", HOPELESS).tried()
    assert asked >= 1
    assert rung == 0
    assert tries >= 7
    assert due is None


@scenario(points=("a mailbox is full", "a waiting batch fails with the one before it"))
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


@scenario(points=("an instance ends with batches on their way",))
async def quitting(w: World) -> None:
    """Clerks and ledgers give up in the middle of their work: what follows comes in order, and finds room."""
    node = await w.start_node(app)
    sent: list[str] = []

    async def client(name: str) -> None:
        rng = w.rng(name)
        for number in w.times(12):
            await trio.sleep(rng.choice((0.0, 0.002, 0.4)))
            clerk = node.stub("clerks", rng.choice(("anna", "ben")))
            batch = f"{name}-{number}"
            with suppress(Unknown):
                which = rng.random()
                if which < 0.3:
                    await clerk.hint("main")
                elif which < 0.5:
                    await clerk.tell_and_quit("main", batch, 3)
                else:
                    await clerk.send("main", batch, 3)
                    sent.append(batch)

    async def quitter() -> None:
        rng = w.rng("quitter")
        for _ in w.times(30):
            await trio.sleep(rng.choice((0.0, 0.001, 0.5)))
            with suppress(Unknown):
                await node.stub("ledgers", "main").quit()

    async with trio.open_nursery() as clients:
        clients.start_soon(quitter)
        for at in range(3):
            clients.start_soon(client, f"c{at}")
    await w.quiesce(1.0)
    batches: dict[str, list[int]] = {}
    for batch, number in await node.stub("ledgers", "main").found("entry/"):
        batches.setdefault(batch, []).append(number)
    for batch, numbers in batches.items():
        assert numbers == sorted(set(numbers)), f"{batch} was entered as {numbers}"
    for batch in sent:
        assert batches.get(batch) == [0, 1, 2], f"{batch} was answered, and entered as {batches.get(batch)}"


@scenario
async def hurrying(w: World) -> None:
    """Several clerks send to one ledger as fast as they can: what was answered is there."""
    node = await w.start_node(app)
    sent: list[str] = []

    async def client(name: str) -> None:
        rng = w.rng(name)
        for number in w.times(12):
            await trio.sleep(rng.choice((0.0, 0.001, 0.002, 0.7)))
            with suppress(Unknown):
                await node.stub("clerks", name).send("main", f"{name}-{number}", 3)
                sent.append(f"{name}-{number}")

    async with trio.open_nursery() as clients:
        for name in ("anna", "ben", "cleo", "dan"):
            clients.start_soon(client, name)
    await w.quiesce(1.0)
    batches: dict[str, list[int]] = {}
    for batch, number in await node.stub("ledgers", "main").found("entry/"):
        batches.setdefault(batch, []).append(number)
    for batch in sent:
        assert batches.get(batch) == [0, 1, 2], f"{batch} was answered, and entered as {batches.get(batch)}"
