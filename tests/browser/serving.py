"""A real server in a process of its own, on a port that it keeps over restarts."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

READY_S = 20


class Server:
    """`heliograph serve` without sources, over one data folder and one port."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and return when it listens."""
        command = [sys.executable, "-m", "runtime", "serve", "--no-sources"]
        with (self.data.parent / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port), "--data", str(self.data)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if f"listening on {self.url}" in line:
                return
        raise AssertionError(f"the server ended before it listened: {self._log()}")

    def kill(self) -> None:
        """The process is gone at once, as with `kill -9`."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(READY_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def post(self, *signals: dict[str, Any]) -> list[int]:
        """Publish, and return the offsets once the signals are durable."""
        request = urllib.request.Request(
            f"{self.url}/v1/signals",
            json.dumps(signals).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=READY_S) as response:
            offsets: list[int] = json.load(response)["offsets"]
            return offsets

    def _log(self) -> str:
        return (self.data.parent / "server.log").read_text()[-2_000:]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
