"""A server in memory: a script that a test plays by hand, and a real little stream that can fail in every way."""

import json
from collections import deque
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from actors.client.transport import TransportClosed


class Mailbox:
    """What was sent and not received yet."""

    def __init__(self):
        self.items = deque()
        self.news = anyio.Event()

    def send(self, item):
        self.items.append(item)
        self.news.set()

    async def receive(self):
        await anyio.lowlevel.checkpoint()
        while not self.items:
            self.news = anyio.Event()
            await self.news.wait()
        return self.items.popleft()


class Link:
    """The server's end of one socket."""

    def __init__(self, token):
        self.token = token
        self.to_client, self.to_server = Mailbox(), Mailbox()
        self.mute = False  # half-open: nothing arrives any more, and nobody says so
        self.closed_by_client = None
        self.client_closed = anyio.Event()

    async def receive(self):
        """The next message of the client; pings are answered."""
        while True:
            text = await self.to_server.receive()
            if text != '{"t":"ping"}':
                return json.loads(text)
            self.send({"t": "pong"})

    def send(self, *messages):
        if not self.mute:
            self.to_client.send("\n".join(json.dumps(message) for message in messages))

    def close(self, code=None, reason=""):
        self.to_client.send(TransportClosed(code, reason))

    async def welcome(self, *subs, epoch="k3F9", head=0, session="s_1", limits=None):
        """Answer hello with these answers, or with one `subok` per subscription from where it asked."""
        hello = await self.receive()
        assert hello["t"] == "hello"
        answers = subs or [self.subok(sub, epoch, head) for sub in hello.get("subs", ())]
        self.send(
            {
                "t": "welcome",
                "id": hello["id"],
                "session": session,
                "resume": "r",
                "resumed": hello.get("resume") is not None,
                "epoch": epoch,
                "head": head,
                "oldest": 1,
                "now": 0,
                "ping_ms": 25_000,
                "dead_ms": 10_000,
                "limits": limits or {"msg_bytes": 16_384},
                "features": [],
                "server": "test",
                "subs": list(answers),
            }
        )
        return hello

    @staticmethod
    def subok(sub, epoch="k3F9", head=0, g=1):
        wanted = sub["from"]
        since = wanted["cursor"] if isinstance(wanted, dict) and "cursor" in wanted else f"{epoch}:{head}"
        return {
            "t": "subok",
            "id": sub.get("id"),
            "s": sub["s"],
            "g": g,
            "from": f"{epoch}:0" if wanted == "earliest" else since,
            "head": head,
            "recovered": None,
            "lost": None,
            "filter": {},
        }


class ClientEnd:
    """The transport that the client gets."""

    def __init__(self, link):
        self.link = link
        self.ended = None

    async def send(self, text):
        await anyio.lowlevel.checkpoint()
        if self.ended is not None:
            raise self.ended
        self.link.to_server.send(text)

    async def receive(self):
        if self.ended is not None:
            raise self.ended
        item = await self.link.to_client.receive()
        if isinstance(item, TransportClosed):
            self.ended = item
            raise item
        return item

    async def aclose(self, code, reason):
        await anyio.lowlevel.checkpoint()
        self.link.closed_by_client = code
        self.link.client_closed.set()


class ScriptedServer:
    """Hands out the sockets that the client opens; `refuse` makes the next attempts fail."""

    def __init__(self):
        self.links = Mailbox()
        self.refusals = deque()
        self.attempts = []

    def refuse(self, *outcomes):
        self.refusals.extend(outcomes)

    async def accept(self):
        return await self.links.receive()

    @asynccontextmanager
    async def connect(self, address, token, subprotocol):
        self.attempts.append(anyio.current_time())
        await anyio.lowlevel.checkpoint()
        if self.refusals:
            outcome = self.refusals.popleft()
            if outcome == "hang":
                await anyio.sleep_forever()
            raise outcome
        link = Link(token)
        self.links.send(link)
        yield ClientEnd(link)


@pytest.fixture
def server():
    return ScriptedServer()


def signal(o, type_="price.tick", entity="btc-usd", data=None):
    return {
        "o": o,
        "id": f"x{o}",
        "type": type_,
        "entity": entity,
        "ts": 1_790_000_000_000 + o,
        "data": {"n": o} if data is None else data,
    }


@pytest.fixture
def sig():
    """Builds a live frame of group 1 with the given offsets."""

    def build(a, b, *offsets, g=1, s=None):
        return {
            "t": "sig",
            **({"g": g} if s is None else {"s": s}),
            "a": a,
            "b": b,
            "d": [signal(o) for o in offsets],
        }

    return build


@pytest.fixture
def live():
    def build(s, b, g=1):
        return {"t": "live", "s": s, "g": g, "b": b}

    return build
