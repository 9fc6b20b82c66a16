"""`kill -9` at random moments neither loses nor doubles what a source still offers, and keeps its order."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio_websocket

from actors.client import SignalClient
from runtime import Response
from runtime.testing.http import read_response, write_request
from tests.actors.ingest.kit import serve_http

KILLS = 60
SECRET = "only-for-this-test"
AHEAD_LINES = 3_000
OFFERED = 300  # what the HTTP counterpart offers: its newest items

CONFIG = """
[limits]
handshakes_per_5_min = 100000

[[sources]]
kind = "file"
name = "file"
schedule = "@every 100ms"
options = { path = "log/app.jsonl", type = "t", settle_s = 0.1 }

[[sources]]
kind = "http"
name = "http"
schedule = "@every 100ms"
options = { url = "http://127.0.0.1:PORT/items", type = "t", id = "/n" }

[[sources]]
kind = "command"
name = "command"
schedule = "@every 200ms"
[sources.options]
argv = ["/bin/sh", "numbers.sh"]
type = "t"

[[sources]]
kind = "websocket"
name = "websocket"
schedule = "@every 100ms"
[sources.options]
url = "ws://127.0.0.1:WSPORT/"
subscribe = '{"after": -1}'
resume = '{"after": {sequence}}'
sequence = "/n"
type = "t"
wait_s = 0.1

[[sources]]
kind = "webhook"
name = "webhook"
options = { secrets = ["only-for-this-test"], type = "t" }
"""

# Two new numbers with each run, and the same ones when it is made again.
NUMBERS = """
echo "{\\"n\\":$((2*HELIOGRAPH_RUN-2))}"
echo "{\\"n\\":$((2*HELIOGRAPH_RUN-1))}"
"""


@attrs.define
class Server:
    """The real server as a process that can be killed and started again on the same data."""

    folder: Path
    port: int
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        command = [sys.executable, "-m", "runtime", "serve", "--port", str(self.port)]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220
                command, cwd=self.folder, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        line = await trio.to_thread.run_sync(self.process.stdout.readline)  # noqa: TID251
        assert f"listening on {self.url}" in line, (line, (self.folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@attrs.define
class Offers:
    """What each counterpart has offered so far: numbers from 0 on."""

    counts: dict[str, int] = attrs.Factory(lambda: dict.fromkeys(("file", "http", "websocket", "webhook"), 0))
    stopping: bool = False
    more: trio.Event = attrs.Factory(trio.Event)

    def take(self, name: str) -> int:
        self.counts[name] += 1
        return self.counts[name] - 1


async def write_file(offers: Offers, path: Path, rng: random.Random, read: Callable[[], int]) -> None:
    """A log that grows in pieces of lines and is rotated now and then, in both ways.

    It waits when it is far ahead of its reader: a source promises nothing about more files than it looks at.
    """
    half = b""
    while not offers.stopping:
        if offers.counts["file"] - read() > AHEAD_LINES:
            await trio.sleep(0.05)
            continue
        content = b"".join(b'{"n":%d}\n' % offers.take("file") for _ in range(rng.randint(1, 20)))
        content, cut = half + content, rng.randint(1, 8)
        with path.open("ab") as out:
            out.write(content[:-cut])
        half = content[-cut:]
        await trio.sleep(rng.uniform(0.005, 0.05))
        with path.open("ab") as out:
            out.write(half)
        half = b""
        if rng.random() < 0.03:
            _rotate(path, copies=rng.random() < 0.5)


def _rotate(path: Path, *, copies: bool) -> None:
    rotated = sorted(path.parent.glob("app.jsonl.*"), key=lambda one: -int(one.suffix[1:]))
    for one in rotated:
        one.rename(path.with_suffix(f".jsonl.{int(one.suffix[1:]) + 1}"))
    if copies:
        shutil.copyfile(path, path.with_suffix(".jsonl.1"))
        os.truncate(path, 0)
    else:
        path.rename(path.with_suffix(".jsonl.1"))
        path.touch()


def answer_items(offers: Offers, rng: random.Random) -> Any:
    """The newest items, oldest first; a few more with each request."""

    def answer(_: Any) -> Any:
        if not offers.stopping:
            for _ in range(rng.randint(0, 8)):
                offers.take("http")
        newest = offers.counts["http"]
        items = [{"n": n} for n in range(max(0, newest - OFFERED), newest)]
        return 200, {"etag": f'"{newest}"'}, json.dumps(items).encode()

    return answer


async def serve_stream(offers: Offers, request: trio_websocket.WebSocketRequest) -> None:
    """A stream that goes on after the number it is asked for."""
    ws = await request.accept()
    try:
        after = json.loads(await ws.get_message())["after"]
        while True:
            while after + 1 < offers.counts["websocket"]:
                after += 1
                await ws.send_message(json.dumps({"n": after}))
            await trio.sleep(0.01)
    except trio_websocket.ConnectionClosed:
        pass


async def advance_stream(offers: Offers, rng: random.Random) -> None:
    while not offers.stopping:
        offers.take("websocket")
        await trio.sleep(rng.uniform(0, 0.02))


async def ask(
    port: int, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> Response:
    """One request. Raises: OSError, trio.BrokenResourceError, ConnectionError when the server is killed under it."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await write_request(stream, method, target, f"127.0.0.1:{port}", body, headers or {})
        return await read_response(stream, method)


async def post(offers: Offers, port: int, rng: random.Random) -> None:
    """A sender that tries each delivery until it has an answer."""
    while not offers.stopping:
        number = offers.take("webhook")
        body = json.dumps([{"n": number}]).encode()
        while True:
            t = int(time.time())  # noqa: TID251 - the sender's own clock
            mac = hmac.new(SECRET.encode(), f"{t}.".encode() + body, hashlib.sha256).hexdigest()
            headers = {"x-signature": f"t={t},v1={mac}", "x-delivery": f"d-{number}"}
            try:
                answer = await ask(port, "POST", "/v1/webhooks/webhook", body, headers)
            except (OSError, trio.BrokenResourceError):
                await trio.sleep(0.02)
                continue
            if answer.status == 202:
                assert json.loads(answer.body) == {"signals": 1}
                break
            assert answer.status in {429, 503}, answer.body
            await trio.sleep(0.05)
        await trio.sleep(rng.uniform(0, 0.02))


class Eager(random.Random):
    """Jitter of at most a twentieth: a client that is cut sixty times in a row would wait half a minute otherwise."""

    def random(self) -> float:
        return super().random() / 20


async def follow(url: str, found: dict[str, list[int]]) -> None:
    async with SignalClient(url, random=Eager(4)) as client, client.subscribe(since="earliest") as subscription:
        async for item in subscription:
            found.setdefault(item.entity, []).append(item.data["n"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.real
def test_sixty_kills_lose_double_and_reorder_nothing_that_a_source_offers(tmp_path: Path) -> None:
    trio.run(_main, tmp_path)


async def _main(folder: Path) -> None:
    rng = random.Random(60)
    offers = Offers()
    (folder / "log").mkdir()
    path = folder / "log" / "app.jsonl"
    path.touch()
    server = Server(folder, _free_port())
    found: dict[str, list[int]] = {}
    with trio.fail_after(600):  # a slow machine takes several seconds for each start
        async with trio.open_nursery() as counterparts:
            port = await serve_http(counterparts, answer_items(offers, rng))
            streams = await counterparts.start(
                partial(trio_websocket.serve_websocket, partial(serve_stream, offers), "127.0.0.1", 0, None)
            )
            config = CONFIG.replace("WSPORT", str(streams.port)).replace("PORT", str(port))
            await trio.Path(folder / "heliograph.toml").write_text(config)
            await trio.Path(folder / "numbers.sh").write_text(NUMBERS)
            await server.start()
            try:
                counterparts.start_soon(follow, server.url, found)
                await _until(lambda: _cursor(server, "file"))
                async with trio.open_nursery() as writers:
                    writers.start_soon(write_file, offers, path, random.Random(1), lambda: len(found.get("file", ())))
                    writers.start_soon(advance_stream, offers, random.Random(2))
                    writers.start_soon(post, offers, server.port, random.Random(3))
                    for _ in range(KILLS):
                        await trio.sleep(rng.uniform(0.02, 0.8))
                        server.kill()
                        await server.start()
                    await trio.sleep(0.5)
                    offers.stopping = True
                try:
                    await _until(lambda: _all_there(offers, found))
                except trio.TooSlowError:
                    ends = {name: numbers[-1] for name, numbers in found.items()}
                    raise AssertionError(f"offered: {offers.counts}, last seen: {ends}") from None
                await trio.sleep(1)
            finally:
                server.kill()
            counterparts.cancel_scope.cancel()
    for name, count in offers.counts.items():
        assert found[name] == list(range(count)), name
        assert count > 100
    assert found["command"] == list(range(len(found["command"])))
    assert len(found["command"]) > 50


async def _cursor(server: Server, name: str) -> bool:
    answer = await ask(server.port, "GET", "/v1/sources")
    return any(one["name"] == name and one["cursor"] for one in json.loads(answer.body)["sources"])


async def _all_there(offers: Offers, found: dict[str, list[int]]) -> bool:
    return all(found.get(name, [-1])[-1] == count - 1 for name, count in offers.counts.items())


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(60):
        while not await condition():  # noqa: ASYNC110 - real time, another process
            await trio.sleep(0.05)
