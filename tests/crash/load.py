"""A real server that can be killed, and clients that write down everything they were told."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import trio

from actors.client import Gap, SignalClient

PAUSE_S = 0.01  # between two publications of one client: the log stays one that a client reads in a moment
TYPES = ("alert.high", "alert.low", "price.tick")


def free_port() -> int:
    """A TCP port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@attrs.define
class Server:
    """The real server as a process that can be killed and started again on the same data."""

    data: Path
    port: int
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        command = [sys.executable, "-m", "runtime", "serve", "--port", str(self.port), "--data", str(self.data)]
        with (self.data.parent / "server.log").open("a") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220
                [*command, "--no-sources"], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        line = await trio.to_thread.run_sync(self.process.stdout.readline)  # noqa: TID251
        assert f"listening on {self.url}" in line, (line, (self.data.parent / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        """End it as a power cut of the process would."""
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> int:
        """Send it a signal, wait for its end, and return its exit status."""
        assert self.process is not None
        os.kill(self.process.pid, number)
        status = self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@attrs.define
class Told:
    """Everything that any client was told about the log; contradictions are failures."""

    contents: dict[int, tuple[str, Any]] = attrs.Factory(dict)
    offsets: dict[str, int] = attrs.Factory(dict)
    epochs: set[str] = attrs.Factory(set)

    def content(self, offset: int, id_: str, data: Any) -> None:
        assert self.contents.setdefault(offset, (id_, data)) == (id_, data), f"offset {offset} changed its content"
        self.offset(id_, offset)

    def offset(self, id_: str, offset: int) -> None:
        assert self.offsets.setdefault(id_, offset) == offset, f"{id_} has two offsets"


@attrs.define
class Load:
    """Publishers and subscribers around one server."""

    url: str
    told: Told = attrs.Factory(Told)
    stopping: bool = False
    published: set[str] = attrs.Factory(set)
    in_flight: int = 0
    catching_up: int = 0

    async def publish(self, name: str, rng: random.Random) -> None:
        async with SignalClient(self.url) as client:
            for number in itertools.count():
                if self.stopping:
                    return
                id_ = f"{name}-{number}"
                self.in_flight += 1
                type_ = TYPES[rng.randrange(len(TYPES))]
                receipt = await client.publish(type_, f"e{number % 7}", {"n": number, "by": name}, id=id_)
                self.in_flight -= 1
                self.published.add(id_)
                await trio.sleep(PAUSE_S)
                self.told.offset(id_, receipt.offset)
                self.told.epochs.add(receipt.epoch)

    async def follow(self, seen: list[int], **filters: Any) -> None:
        """A steady subscriber that lives through every kill."""
        async with SignalClient(self.url) as client, client.subscribe(since="earliest", **filters) as subscription:
            async for item in subscription:
                assert not isinstance(item, Gap), f"told of a gap that there is not: {item}"
                self.told.content(item.o, item.id, item.data)
                seen.append(item.o)

    async def catch_up(self) -> None:
        """Clients that come one after another and read the log from its beginning."""
        while True:
            async with SignalClient(self.url) as client, client.subscribe(since="earliest") as subscription:
                self.catching_up += 1
                count = 0
                async for item in subscription:
                    assert not isinstance(item, Gap)
                    self.told.content(item.o, item.id, item.data)
                    count += 1
                    if count >= 2_000:
                        break
                self.catching_up -= 1
