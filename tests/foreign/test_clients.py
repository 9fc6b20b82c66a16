"""WebSocket libraries that nobody here wrote: each follows a real server through a cut, and misses nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser

from tests.browser.serving import Server
from tests.foreign.clients import CLIENTS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MODULES = ROOT / "build" / "foreign" / "node_modules"
NODE = ("ws", "undici", "faye-websocket")
COMPRESSING = {"websockets", "aiohttp", "ws", "undici", "chromium"}
SIGNALS, FIRST = 1_000, 500
PATIENCE_S = 60

pytestmark = pytest.mark.real


class Client(Protocol):
    """A client that follows a server."""

    def wait_for(self, received: int) -> None:
        """Return when it has so many signals."""

    def result(self) -> dict[str, Any]:
        """What it says at its end."""
        ...


class Process:
    """A client in a process of its own."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)
        self._said: dict[str, Any] = {}

    def wait_for(self, received: int) -> None:
        while self._said.get("received", 0) < received:
            self._listen()

    def result(self) -> dict[str, Any]:
        while "offsets" not in self._said:
            self._listen()
        assert self._process.wait(PATIENCE_S) == 0
        return self._said

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the client ended; before that it said {self._said}"
        self._said = json.loads(line)


class Page:
    """A page in Chromium that connects to the server that it came from."""

    def __init__(self, page: Any, url: str) -> None:
        source = (HERE / "follow.mjs").read_text().replace("export ", "")
        self._page = page
        page.evaluate(
            f"""([url, wanted]) => {{
                {source}
                window.received = 0;
                follow(standard(WebSocket), url, wanted, (received) => {{ window.received = received; }})
                    .then((told) => {{ window.told = told; }});
            }}""",
            [url, SIGNALS],
        )

    def wait_for(self, received: int) -> None:
        self._page.wait_for_function("count => window.received >= count", arg=received, timeout=PATIENCE_S * 1_000)

    def result(self) -> dict[str, Any]:
        self._page.wait_for_function("() => window.told !== undefined", timeout=PATIENCE_S * 1_000)
        told: dict[str, Any] = self._page.evaluate("() => window.told")
        return told


@pytest.fixture(params=["plain", "compressed"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    config = tmp_path / "heliograph.toml"
    config.write_text(f"[connections]\ncompression = {str(request.param == 'compressed').lower()}\n")
    running = Server(tmp_path / "data", "--config", str(config))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def start(server: Server, request: pytest.FixtureRequest) -> Callable[[list[str]], Process]:
    def start(command: list[str]) -> Process:
        process = Process([*command, f"ws://127.0.0.1:{server.port}/v1/stream", str(SIGNALS)])
        request.addfinalizer(process.end)
        return process

    return start


def publish(server: Server, count: int) -> None:
    for _ in range(count // 100):
        server.post(*[{"type": "price.tick", "entity": "btc-usd", "data": {"price": 61_000.5}} for _ in range(100)])


def follow_through_a_cut(server: Server, client: Client, name: str, compression: str) -> None:
    publish(server, FIRST)
    client.wait_for(FIRST)
    server.kill()
    server.start()
    publish(server, SIGNALS - FIRST)
    result = client.result()
    assert result["offsets"] == list(range(1, SIGNALS + 1))
    assert result["resumed"] == [False, True]
    assert result["compressed"] == [compression == "compressed" and name in COMPRESSING] * 2
    assert result["code"] == 1000


@pytest.fixture
def compression(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["server"])


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_in_python_gets_every_signal_once_and_in_order(
    name: str, server: Server, start: Callable[[list[str]], Process], compression: str
) -> None:
    module = "websocket" if name == "websocket-client" else name.replace("-", "_")
    if find_spec(module) is None:
        pytest.skip(f"no {name}: install the group `test`")
    client = start([sys.executable, "-m", "tests.foreign.clients", name])
    follow_through_a_cut(server, client, name, compression)


@pytest.mark.parametrize("name", NODE)
def test_a_client_in_node_gets_every_signal_once_and_in_order(
    name: str, server: Server, request: pytest.FixtureRequest, compression: str
) -> None:
    node = shutil.which("node")
    if node is None or not (MODULES / name).is_dir():
        pytest.skip(f"no {name} for Node: `make foreign` installs it")
    url = f"ws://127.0.0.1:{server.port}/v1/stream"
    client = Process([node, str(HERE / "clients.mjs"), name, url, str(SIGNALS), str(MODULES)])
    request.addfinalizer(client.end)
    follow_through_a_cut(server, client, name, compression)


def test_a_page_in_chromium_gets_every_signal_once_and_in_order(
    server: Server, browser: Browser, compression: str
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}/healthz")
        client = Page(page, f"ws://127.0.0.1:{server.port}/v1/stream")
        follow_through_a_cut(server, client, "chromium", compression)
