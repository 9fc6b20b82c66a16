"""The examples of `docs/how-to/deploy.md` for proxies, in front of a real server on loopback."""

from __future__ import annotations

import getpass
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from actors.client import SignalClient
from tests.authority import Authority
from tests.browser.serving import Server

pytestmark = pytest.mark.real

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "deploy"
PATIENCE_S = 60
TOKEN = "0123456789abcdef-deploy"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("HELIOGRAPH_TOKEN", TOKEN)
    server = Server(tmp_path / "data", "--config", str(EXAMPLES / "heliograph.toml"))
    server.start()
    yield server
    server.kill()


def command(*names: str) -> str:
    for name in names:
        if (found := shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")) is not None:
            return found
    pytest.skip(f"no {names[0]}: install it")


@contextmanager
def started(command: list[Any], folder: Path) -> Generator[subprocess.Popen[bytes]]:
    """A proxy, until the end of the block."""
    with (folder / "proxy.log").open("w") as log:
        environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
        running = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(PATIENCE_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def changed(text: str, *changes: tuple[str, str]) -> str:
    """An example with what a machine of one's own has in place of it."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


async def listening(port: int) -> None:
    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.05)
        else:
            await stream.aclose()
            return


async def test_a_client_behind_nginx_loses_nothing_when_nginx_is_reloaded(
    tmp_path: Path, server: Server, authority: Authority
) -> None:
    nginx, port = command("nginx"), free_port()
    site = changed(
        (EXAMPLES / "nginx.conf").read_text(),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("127.0.0.1:8787", f"127.0.0.1:{server.port}"),
        ("server_name signals.example.com", "server_name localhost"),
        ("/etc/ssl/heliograph/chain.pem", str(authority.chain)),
        ("/etc/ssl/heliograph/key.pem", str(authority.key)),
    )
    temporary = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"user {getpass.getuser()};\ndaemon off;\npid {tmp_path}/nginx.pid;\nerror_log {tmp_path}/error.log;\n"
        f"worker_processes 1;\n"
        # Old workers end their connections a second after a reload, so that this test sees it.
        "worker_shutdown_timeout 1s;\nevents {}\n"
        f"http {{\naccess_log off;\n{temporary}{site}\n}}\n"
    )
    with started([nginx, "-c", config, "-p", tmp_path, "-e", tmp_path / "error.log"], tmp_path) as running:
        with trio.fail_after(PATIENCE_S):
            await listening(port)
            await _follow(
                f"https://localhost:{port}",
                authority,
                lambda: running.send_signal(signal.SIGHUP),
                cuts=True,
            )


async def test_a_client_behind_caddy_reads_and_publishes(tmp_path: Path, server: Server, authority: Authority) -> None:
    caddy, port = command("caddy"), free_port()
    site = changed(
        (EXAMPLES / "Caddyfile").read_text(),
        ("signals.example.com {", f"https://localhost:{port} {{\n\ttls {authority.chain} {authority.key}"),
        ("127.0.0.1:8787", f"127.0.0.1:{server.port}"),
    )
    config = tmp_path / "Caddyfile"
    config.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + site)
    with started([caddy, "run", "--config", config, "--adapter", "caddyfile"], tmp_path):
        with trio.fail_after(PATIENCE_S):
            await listening(port)
            await _follow(f"https://localhost:{port}", authority, lambda: None, cuts=False)


async def _follow(url: str, authority: Authority, disturb: Callable[[], object], *, cuts: bool) -> None:
    """Publish and read fifty signals through a proxy, disturb it, and again; each must come once and in order."""
    async with SignalClient(url, token=TOKEN, ssl_context=authority.client()) as client:
        async with client.subscribe(types=["t.>"], since="earliest") as signals, trio.open_nursery() as nursery:
            seen: list[object] = []
            complete = trio.Event()

            async def read() -> None:
                async for item in signals:
                    seen.append(item.data)
                    if len(seen) == 100:
                        complete.set()

            nursery.start_soon(read)
            for number in range(50):
                await client.publish("t.a", "e", number)
            disturb()
            await trio.sleep(3 if cuts else 0)
            for number in range(50, 100):
                await client.publish("t.a", "e", number)
            await complete.wait()
            assert seen == list(range(100))
            nursery.cancel_scope.cancel()
