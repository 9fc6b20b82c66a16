"""Upgrades that race with hibernation: whichever comes first, every socket is accepted once and loses nothing.

Two clients upgrade to one object while its instance is being evicted again and again; a third has been connected from
before. The order of all tasks comes from a seed, and so does the moment of each eviction.
"""

from __future__ import annotations

import random

import attrs
import pytest
import trio
import trio.testing

from runtime import Actor, ActorError, App, Context, Namespace, Request, Response, WebSocket
from runtime.sim.scheduling import Delaying, Shuffle, repeatable
from runtime.testing import RunningServer, start_server

MESSAGES = 12
BEFORE, RACING = "before", ("left", "right")
ORDERS = {"any": Shuffle, "one-late": Delaying}


class Room(Actor["Env"]):
    """Writes down whom it accepted, what it was told, and how often it was built; tells everybody everything."""

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        ctx.storage.put("built", ctx.storage.get("built", int, default=0) + 1)

    async def fetch(self, request: Request) -> Response:
        assert request.web_socket is not None
        name = request.query_values()["name"]
        if name == "right":
            await self.ctx.sleep(0.001)  # others get in before this one is accepted
        self.ctx.accept_web_socket(request.web_socket, tags=["all", name])
        request.web_socket.serialize_attachment(name)
        self._note("accepted", name)
        request.web_socket.send("welcome")
        return Response(101)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        said = f"{ws.attachment(str)} {message!s}"
        self._note("heard", said)
        for other in self.ctx.get_web_sockets("all"):
            other.send(said)

    async def read(self, key: str) -> list[str]:
        return self.ctx.storage.get(key, list[str], default=[])

    async def built(self) -> int:
        return self.ctx.storage.get("built", int)

    async def sockets(self, tag: str | None = None) -> list[str]:
        return [ws.attachment(str) for ws in self.ctx.get_web_sockets(tag)]

    def _note(self, key: str, value: str) -> None:
        self.ctx.storage.put(key, [*self.ctx.storage.get(key, list[str], default=[]), value])


class SqlRoom(Room):
    """The same on a database of its own, which is closed and opened again in between."""

    storage = "sql"


@attrs.frozen
class Env:
    rooms: Namespace[Room]
    sql_rooms: Namespace[SqlRoom]


app = App(env=Env, routes={"/rooms/{name}": Room, "/sql_rooms/{name}": SqlRoom})


async def steps(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def talk(server: RunningServer, path: str, name: str, heard: list[str], start: int, done: trio.Event) -> None:
    """Connects, says its numbers at once, and listens until the end."""
    await steps(start)
    async with server.connect(f"{path}?name={name}") as socket:
        for number in range(MESSAGES):
            await socket.send_message(str(number))
        assert await socket.get_message() == "welcome"
        while True:
            heard.append(await socket.get_message())
            if sum(said.startswith(f"{name} ") for said in heard) == MESSAGES:
                done.set()


async def evict_often(server: RunningServer, stub: object, chance: random.Random) -> None:
    """Evicts whenever it can, after any number of steps; what it asks for the most is the moment between two events."""
    while True:
        await steps(chance.randrange(1, 40))
        try:
            await server.evict(stub)
        except ActorError:
            await trio.sleep(chance.choice([0, 0.0005, 0.001]))


async def race(field: str, seed: str) -> int:
    """One race; returns how often the object was built."""
    chance = random.Random(seed)
    heard: dict[str, list[str]] = {name: [] for name in (BEFORE, *RACING)}
    async with start_server(app) as server, server.connect(f"/{field}/a?name={BEFORE}") as before:
        stub = getattr(server.env, field).get_by_name("a")
        assert await before.get_message() == "welcome"
        await trio.sleep(10 if chance.random() < 0.5 else 11)  # at the moment of its eviction, or hibernating
        async with trio.open_nursery() as nursery:
            nursery.start_soon(evict_often, server, stub, chance)
            finished = [trio.Event() for _ in RACING]
            for name, done in zip(RACING, finished, strict=True):
                start = chance.randrange(30)
                nursery.start_soon(talk, server, f"/{field}/a", name, heard[name], start, done)
            for number in range(MESSAGES):
                await before.send_message(str(number))
            while len(heard[BEFORE]) < 3 * MESSAGES:
                heard[BEFORE].append(await before.get_message())
            for done in finished:
                await done.wait()
            assert await stub.sockets() == list(reversed(await stub.read("accepted")))  # newest first
            assert await stub.sockets("all") == await stub.read("accepted")
            for name in RACING:
                assert await stub.sockets(name) == [name]
            assert sorted(await stub.read("accepted")) == sorted(heard)
            for name in heard:
                told = [said for said in await stub.read("heard") if said.startswith(f"{name} ")]
                assert told == [f"{name} {number}" for number in range(MESSAGES)]
            everything = await stub.read("heard")
            assert heard[BEFORE] == everything
            for name in RACING:  # from the moment of its acceptance on
                assert heard[name] == everything[-len(heard[name]) :]
            count = await stub.built()
            nursery.cancel_scope.cancel()
    return count


@pytest.mark.parametrize("field", ["rooms", "sql_rooms"])
@pytest.mark.parametrize("order", ORDERS)
def test_two_upgrades_race_with_hibernation(field, order):
    built = []
    for number in range(25):
        seed = f"{field}/{order}/{number}"
        with repeatable(seed, ORDERS[order](seed)):
            built.append(trio.run(race, field, seed, clock=trio.testing.MockClock(autojump_threshold=0)))
    assert sum(count > 3 for count in built) > 15, f"hardly any race: {built}"
