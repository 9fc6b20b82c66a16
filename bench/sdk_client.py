"""What `sdk` measures: `python -m bench.sdk_client KIND SECONDS FOLDER`, a client whose server is a loop beside it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from actors.client import SignalClient
from actors.client.address import Address
from actors.protocol import messages as wire
from actors.protocol.cursor import Cursor
from actors.protocol.encoding import ENCODINGS, Encoding
from actors.signals import Draft

SIGNALS, QUICK_SIGNALS = 1_000_000, 40_000
OF_A_FRAME = 100
DATA = json.dumps({"price": 61_010.5, "size": 3, "venue": "X", "note": "x" * 60}).encode()


@attrs.define(eq=False)
class Server:
    """Answers hello, and then gives as much as is taken; no frame is like another."""

    encoding: Encoding
    _answers: list[str] = attrs.field(factory=list[str], init=False)
    _asked: trio.Event = attrs.field(factory=trio.Event, init=False)
    _head: int = attrs.field(default=0, init=False)

    async def send(self, frame: str | bytes) -> None:
        """What the client says: only hello is of interest."""
        for value in self.encoding.parse(frame):
            if isinstance(value, dict) and value.get("t") == "hello":
                self._answers.append(_welcome(value["id"], value["subs"][0]["s"]))
                self._asked.set()

    async def receive(self) -> str | bytes:
        """The next frame."""
        await self._asked.wait()
        await trio.lowlevel.checkpoint()
        if self._answers:
            return self.encoding.encode(self._answers.pop())
        first, self._head = self._head + 1, self._head + OF_A_FRAME
        signals = tuple(
            Draft("price.tick", f"e{o % 997}", DATA).signal(o=o, ts=o, id=f"x{o}") for o in range(first, self._head + 1)
        )
        return self.encoding.encode(wire.Sig(g=1, a=first - 1, b=self._head, signals=signals).encode())

    async def aclose(self, code: int, reason: str) -> None:
        """The client leaves."""


def _welcome(request: int, s: str) -> str:
    subok = wire.SubOk(s=s, g=1, since=Cursor("E", 0), head=0, filter="{}")
    welcome = wire.Welcome(
        id=request, session="s", resume="r", resumed=False, epoch="E", head=0, oldest=1, now=0,
        ping_ms=10**9, dead_ms=10**9, features=(), subs=(subok,),
    )  # fmt: skip
    return f"{welcome.encode()}\n{wire.Live(s=s, g=1, b=0).encode()}"


def _rss_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(kind: str, signals: int) -> dict[str, float]:
    """Take so many signals; memory is looked at after each quarter."""
    encoding = next(one for name, one in ENCODINGS.items() if name == kind)
    server = Server(encoding)

    @asynccontextmanager
    async def connect(address: Address, token: str | None, subprotocol: str) -> AsyncGenerator[Server]:
        yield server

    figures: dict[str, float] = {"signals": signals}
    began = time.perf_counter()
    async with SignalClient("http://h:1", connect=connect, encoding=kind) as client:  # type: ignore[arg-type]
        async with client.subscribe(types=["price.>"]) as sub:
            taken = 0
            async for _ in sub:
                taken += 1
                if taken % (signals // 4) == 0:
                    figures[f"rss_q{4 * taken // signals}_mib"] = _rss_mib()
                if taken == signals:
                    break
    return {**figures, "signals_per_s": signals / (time.perf_counter() - began)}


if __name__ == "__main__":
    wanted, seconds = sys.argv[1], float(sys.argv[2])
    count = QUICK_SIGNALS if seconds < 1 else SIGNALS
    sys.stdout.write(json.dumps({wanted: trio.run(measure, wanted, count)}))
