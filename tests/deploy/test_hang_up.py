"""SIGHUP is for the certificate; a server without one says so and goes on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from tests.browser.serving import Server

PATIENCE_S = 60


@pytest.mark.real
async def test_sighup_without_tls_is_logged_and_ends_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    server.start()
    try:
        server.signal(signal.SIGHUP)
        with trio.fail_after(PATIENCE_S):
            while "nothing_to_reload" not in server.log():  # noqa: ASYNC110 -- another process writes it
                await trio.sleep(0.02)
        assert server.post({"type": "t.a", "entity": "e", "data": 1}) == [1]
    finally:
        server.kill()
