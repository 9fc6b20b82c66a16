"""A real server in a process of its own, on a port that it keeps over restarts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

READY_S = 20
STOP_S = 90  # a thousand clients are sent away, and a machine may be busy


class Server:
    """`heliograph serve` over one data folder and one port.

    Args:
        options: more of its options.
        sources: whether it asks its sources.
        scheme: "https" when they configure a certificate.
    """

    def __init__(self, data: Path, *options: str, scheme: str = "http", sources: bool = False) -> None:
        self.data = data
        self._options = options if sources else ("--no-sources", *options)
        self.port = _free_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and return when it listens."""
        command = [sys.executable, "-m", "runtime", "serve"]
        with (self.data.parent / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port), "--data", str(self.data), *self._options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if f"listening on {self.url}" in line:
                return
        raise AssertionError(f"the server ended before it listened: {self.log()}")

    def kill(self) -> None:
        """The process is gone at once, as with `kill -9`."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(READY_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def stop(self) -> None:
        """Ask it to go down, as a service manager does, and wait until it has."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait(STOP_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def rss_mib(self) -> float:
        """The resident memory of the process."""
        assert self._process is not None
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

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

    def log(self) -> str:
        """The end of what it has logged."""
        return (self.data.parent / "server.log").read_text()[-2_000:]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
