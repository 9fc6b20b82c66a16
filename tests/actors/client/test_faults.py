"""The SDK through random faults: every signal once and in order, whatever happens to the sockets."""

import random

import anyio
import pytest

from actors.client import Cursor, SignalClient
from actors.client.transport import TransportClosed

FAULTS = ["drop", "drop", "silence", "lose", "repeat", "refuse", "hang", "goaway"]


class Stream:
    """A small server over scripted sockets: a log, one group of everything, catch-up by pages, publications."""

    def __init__(self, server, sig, live, seed):
        self.server, self.sig, self.live = server, sig, live
        self.random = random.Random(seed)
        self.log, self.link, self.joined, self.subs, self.ids = 0, None, set(), {}, {}
        self.lossy = False
        self.faults_over = anyio.Event()

    async def serve(self):
        async with anyio.create_task_group() as nursery:
            while True:
                self.link = await self.server.accept()
                self.joined, self.subs = set(), {}
                nursery.start_soon(self.answer, self.link)

    async def answer(self, link):
        """Until the client closes its end. A request is answered after a while, in order."""
        hello = None
        while True:
            with anyio.move_on_after(120) as scope:
                message = await link.receive() if hello else (hello := await link.welcome(head=self.log))
            if scope.cancelled_caught:
                return
            await anyio.sleep(self.random.uniform(0, 0.02))
            if link is not self.link:
                return
            match message["t"]:
                case "hello":
                    for sub in message.get("subs", ()):
                        self.begin(sub)
                case "sub":
                    self.send(link.subok(message, head=self.log))
                    self.begin(message)
                case "unsub":
                    self.subs.pop(message["s"], None)
                    self.joined.discard(message["s"])
                case "pub":
                    dup = message["signal"]["id"] in self.ids
                    if not dup:
                        self.publish(1)
                    o = self.ids.setdefault(message["signal"]["id"], self.log)
                    if self.random.random() < 0.3:
                        self.drop()  # stored, but the acknowledgement never arrives
                    self.send({"t": "ok", "id": message["id"], "o": o, "epoch": "k3F9", "dup": dup})

    def begin(self, sub):
        wanted = sub["from"]
        since = (
            Cursor.parse(wanted["cursor"]).offset
            if isinstance(wanted, dict)
            else 0
            if wanted == "earliest"
            else self.log
        )
        self.subs[sub["s"]] = since

    def send(self, *messages):
        if self.link is not None:
            self.link.send(*messages)

    def drop(self):
        if self.link is not None:
            self.link.close(self.random.choice([None, 1006, 1012, 4103, 4150, 4200]))
            self.link = None

    def publish(self, count):
        before, self.log = self.log, self.log + count
        if self.joined:
            frame = self.sig(before, self.log, *range(before + 1, self.log + 1))
            if self.lossy:
                self.lossy = False
            else:
                self.send(frame)
                if self.random.random() < 0.1:
                    self.send(frame)

    def pump(self):
        for name, at in list(self.subs.items()):
            if name in self.joined:
                continue
            upto = min(self.log, at + self.random.randint(1, 30))
            if upto > at:
                self.send(self.sig(at, upto, *range(at + 1, upto + 1), s=name))
                self.subs[name] = upto
            if upto == self.log:
                self.joined.add(name)
                self.send(self.live(name, upto))

    async def run(self, steps):
        for _ in range(steps):
            await anyio.sleep(self.random.uniform(0, 3))
            if self.random.random() < 0.7:
                self.publish(self.random.randint(1, 9))
            self.pump()
            if self.random.random() < 0.08:
                match self.random.choice(FAULTS):
                    case "drop":
                        self.drop()
                    case "silence" if self.link is not None:
                        self.link.mute = True
                    case "lose":
                        self.lossy = True
                    case "refuse":
                        self.server.refuse(TransportClosed(reason="refused"))
                        self.drop()
                    case "hang":
                        self.server.refuse("hang")
                        self.drop()
                    case "goaway":
                        self.send({"t": "goaway", "reason": "r", "after_ms": [0, 500], "deadline_ms": 1_000})
        self.faults_over.set()
        while True:
            await anyio.sleep(1)
            self.publish(1)
            self.pump()


@pytest.mark.parametrize("seed", range(12))
async def test_every_signal_once_and_in_order(seed, server, sig, live, autojump_clock):
    stream = Stream(server, sig, live, seed)
    chance = random.Random(seed)
    got = {"fast": [], "slow": []}
    acks = []

    async def follow(client, name, buffer, pause):
        async with client.subscribe(name=name, since="earliest", buffer=buffer) as sub:
            async for signal in sub:
                got[name].append(signal.o)
                if pause and not stream.faults_over.is_set():
                    await anyio.sleep(chance.uniform(0, pause))

    async def publish(client):
        for n in range(20):
            acks.append((await client.publish("a", "b", n)).offset)
            await anyio.sleep(chance.uniform(0, 2))

    with anyio.fail_after(3_600):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(stream.serve)
            async with SignalClient("h:1", connect=server.connect, random=random.Random(seed)) as client:
                async with anyio.create_task_group() as work:
                    work.start_soon(follow, client, "fast", 1_000, 0)
                    work.start_soon(follow, client, "slow", 3, 0.3)
                    work.start_soon(publish, client)
                    nursery.start_soon(stream.run, 150)
                    await stream.faults_over.wait()
                    end = stream.log + 1
                    while len(acks) < 20 or min((items or [0])[-1] for items in got.values()) < end:  # noqa: ASYNC110
                        await anyio.sleep(1)
                    work.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
    for items in got.values():
        assert items == list(range(1, items[-1] + 1))
    assert len(set(acks)) == len(acks) == 20
    assert sorted(acks) == acks
    assert len(server.attempts) > 1
