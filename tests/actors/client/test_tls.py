"""Both clients over `wss` to a real server whose certificate changes while they are connected."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from actors.client import SignalClient
from tests.authority import Authority
from tests.browser.serving import Server

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[3]
PATIENCE_S = 30


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Iterator[Server]:
    config = tmp_path / "heliograph.toml"
    config.write_text(f'[tls]\ncertificate = "{authority.chain}"\nkey = "{authority.key}"\n')
    server = Server(tmp_path / "data", "--config", str(config), scheme="https")
    server.start()
    yield server
    server.kill()


def shown(server: Server, authority: Authority) -> bytes | None:
    """The certificate that a new connection sees."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as plain:
        with authority.client().wrap_socket(plain, server_hostname="127.0.0.1") as encrypted:
            return encrypted.getpeercert(binary_form=True)


async def logged(server: Server, event: str, times: int) -> None:
    while server.log().count(event) < times:  # noqa: ASYNC110 -- a process writes it
        await trio.sleep(0.02)


async def test_the_python_client_stays_connected_while_the_certificate_changes(
    server: Server, authority: Authority
) -> None:
    with trio.fail_after(PATIENCE_S):
        first = shown(server, authority)
        async with SignalClient(server.url, ssl_context=authority.client()) as client:
            async with client.subscribe(types=["t.>"], since="earliest") as signals:
                assert (await client.publish("t.a", "e", "before")).offset == 1

                authority.issue()
                server.signal(signal.SIGHUP)
                await logged(server, "certificate_read", 2)
                second = shown(server, authority)
                assert second != first

                authority.key.write_text("no key")
                server.signal(signal.SIGHUP)
                await logged(server, "certificate_refused", 1)
                assert shown(server, authority) == second

                assert (await client.publish("t.a", "e", "after")).offset == 2
                seen = []
                async for item in signals:
                    seen.append(item.data)
                    if len(seen) == 2:
                        break
                assert seen == ["before", "after"]
        assert "there is no private key in it" in server.log()


async def test_a_client_that_does_not_trust_the_authority_does_not_connect(server: Server) -> None:
    with trio.fail_after(PATIENCE_S):
        async with SignalClient(server.url) as client:
            with trio.move_on_after(1):
                await client.publish("t.a", "e", 1)
            assert client.state != "connected"


def test_the_javascript_client_reads_and_publishes_over_wss(server: Server, authority: Authority) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node")
    if not (ROOT / "node_modules" / "installed").exists():
        pytest.skip("the tools of the JavaScript client are not installed: run `make js`")
    done = subprocess.run(
        [node, ROOT / "tests" / "js" / "real.mjs", server.url, "ws"],
        cwd=ROOT,
        env={**os.environ, "NODE_EXTRA_CA_CERTS": str(authority.root)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    all_of_them = list(range(1, 101))
    assert json.loads(done.stdout) == {
        "published": all_of_them,
        "read": all_of_them,
        "wrong": [],
        "paged": [*all_of_them, 101],
    }


def test_a_certificate_that_cannot_be_used_stops_the_start_and_says_why(tmp_path: Path, authority: Authority) -> None:
    authority.chain.unlink()
    config = tmp_path / "heliograph.toml"
    config.write_text(f'[tls]\ncertificate = "{authority.chain}"\nkey = "{authority.key}"\n')
    server = Server(tmp_path / "data", "--config", str(config), scheme="https")
    try:
        with pytest.raises(
            AssertionError, match=r"Error: \[tls\] certificate .*chain\.pem: cannot be read: No such file"
        ):
            server.start()
    finally:
        server.kill()


def test_nothing_older_than_tls_1_2_and_nothing_in_the_clear_is_answered(server: Server, authority: Authority) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1" not in plain.recv(1_000)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old = authority.client(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as plain:
        with pytest.raises(ssl.SSLError):
            old.wrap_socket(plain, server_hostname="127.0.0.1")
