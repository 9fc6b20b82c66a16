"""`workerd`: installed by npm into a folder, started with the worker of this folder, asked over loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

HERE = Path(__file__).parent
VERSION = "1.20261117.1"
COMPATIBILITY_DATE = "2026-08-01"
COMPATIBILITY_FLAGS = ("unsafe_module", "experimental", "nodejs_compat")
START_S = 20
STOP_S = 3
ENDING_S = 1
REQUEST_S = 60

_CONFIG = """\
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .scripted),
    (name = "disk", disk = (path = "data", writable = true)),
  ],
  sockets = [ (name = "main", address = "127.0.0.1:0", http = (), service = "main") ],
);
const scripted :Workerd.Worker = (
  compatibilityDate = {date},
  compatibilityFlags = [{flags}],
  modules = [ (name = "worker", esModule = embed "worker.mjs") ],
  durableObjectNamespaces = [
    (className = "Scripted", uniqueKey = "oracle-sql", enableSql = true),
    (className = "ScriptedKv", uniqueKey = "oracle-kv", enableSql = false),
    (className = "ScriptedNoAlarm", uniqueKey = "oracle-noalarm", enableSql = true),
  ],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [
    (name = "Scripted", durableObjectNamespace = "Scripted"),
    (name = "ScriptedKv", durableObjectNamespace = "ScriptedKv"),
    (name = "ScriptedNoAlarm", durableObjectNamespace = "ScriptedNoAlarm"),
    (name = "SCENARIO", json = {scenario}),
  ],
);
"""


class NoWorkerd(Exception):
    """The real runtime cannot be had or does not start; the message says why."""


def install(folder: Path) -> Path:
    """Install `workerd` below a folder unless it is there, and return the program.

    Raises:
        NoWorkerd: there is no npm, or it refuses, or has nothing for this platform.
    """
    folder = folder.resolve()
    found = _program(folder)
    if found is not None:
        return found
    npm = shutil.which("npm")
    if npm is None:
        raise NoWorkerd("workerd comes from npm, and there is no npm on the PATH; install Node.js 20 or newer")
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--prefix", str(folder)]
    done = subprocess.run([*command, f"workerd@{VERSION}"], capture_output=True, text=True, check=False)
    found = _program(folder)
    if done.returncode != 0 or found is None:
        raise NoWorkerd(f"npm could not install workerd {VERSION}:\n{(done.stderr or done.stdout)[-1500:]}")
    return found


def _program(folder: Path) -> Path | None:
    for path in sorted((folder / "node_modules" / "@cloudflare").glob("workerd-*")):
        version = json.loads((path / "package.json").read_text(encoding="utf-8"))["version"]
        if version == VERSION and (path / "bin" / "workerd").exists():
            return path / "bin" / "workerd"
    return None


@attrs.define(eq=False)
class Workerd:
    """One server with its storage in a folder; it can be stopped or killed and started again.

    Attributes:
        port: on loopback, while it runs.
    """

    program: Path
    folder: Path
    nursery: trio.Nursery
    http: httpx.AsyncClient
    worker: Path = HERE / "worker.mjs"
    port: int = 0
    _process: trio.Process | None = None

    def prepare(self, scenario: Mapping[str, Any] | None = None) -> None:
        """Write its configuration.

        Args:
            scenario: for actors with their plain names; without one it takes runs.
        """
        given = scenario or {"actors": {}}
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        shutil.copy(self.worker, self.folder / "worker.mjs")
        text = _CONFIG.format(
            date=_cap(given.get("compatibilityDate", COMPATIBILITY_DATE)),
            flags=", ".join(map(_cap, given.get("compatibilityFlags", COMPATIBILITY_FLAGS))),
            scenario=_cap(json.dumps(given, ensure_ascii=False)),
        )
        (self.folder / "config.capnp").write_text(text, encoding="utf-8")

    async def start(self) -> None:
        """Start it, and wait until it listens.

        Raises:
            NoWorkerd: it ends instead, or takes too long.
        """
        reading, writing = os.pipe()
        log = (self.folder / "workerd.log").open("ab")
        command = [str(self.program), "serve", "config.capnp", "--experimental", f"--control-fd={writing}"]
        start = partial(
            trio.run_process,
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            check=False,
        )
        try:
            self._process = await self.nursery.start(start)
        finally:
            os.close(writing)
            log.close()
        async with trio.lowlevel.FdStream(reading) as control:
            with trio.move_on_after(START_S):
                if await self._listens(control):
                    return
        raise NoWorkerd(f"workerd did not start:\n{(self.folder / 'workerd.log').read_text()[-1500:]}")

    async def _listens(self, control: trio.lowlevel.FdStream) -> bool:
        text = b""
        while data := await control.receive_some():
            text += data
            for line in text.split(b"\n"):
                if b'"listen"' in line and line.endswith(b"}"):
                    self.port = json.loads(line)["port"]
                    return True
        return False

    async def has_ended(self) -> bool:
        """It has ended by itself, or does within a second."""
        with trio.move_on_after(ENDING_S):
            if self._process is not None:
                await self._process.wait()
            return True
        return False

    async def revive(self) -> None:
        """Start it again if it has ended by itself."""
        if self._process is None or self._process.poll() is not None:
            await self.start()

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it and wait for its end."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        with trio.move_on_after(STOP_S):
            await process.wait()
            return
        process.kill()
        await process.wait()

    async def post(self, target: str, body: Any = None) -> str:
        """Send a request to the worker and return the body of the answer."""
        response = await self.http.post(f"http://127.0.0.1:{self.port}{target}", json=body)
        return response.text

    async def connect(self) -> trio.SocketStream:
        """A connection of one's own."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        stream.setsockopt(6, 1, 1)  # IPPROTO_TCP, TCP_NODELAY
        return stream


@asynccontextmanager
async def workerd(
    program: Path,
    scenario: Mapping[str, Any] | None = None,
    *,
    worker: Path = HERE / "worker.mjs",
    below: Path | None = None,
) -> AsyncGenerator[Workerd]:
    """A running server whose storage is removed afterwards.

    Args:
        program: the real runtime.
        scenario: for actors with their plain names; without one it takes runs.
        worker: what it runs.
        below: the folder that its storage is made in, and removed from; None for the usual place.
    """
    with tempfile.TemporaryDirectory(prefix="workerd-", dir=below) as folder:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with (
            httpx.AsyncClient(timeout=REQUEST_S, limits=limits, trust_env=False) as http,
            trio.open_nursery() as nursery,
        ):
            server = Workerd(program, Path(folder), nursery, http, worker)
            server.prepare(scenario)
            await server.start()
            try:
                yield server
            finally:
                with trio.CancelScope(shield=True):
                    await server.stop(signal.SIGKILL)
                nursery.cancel_scope.cancel()


def _cap(text: str) -> str:
    """A text as Cap'n Proto writes it: everything that is not plain ASCII as the bytes of its UTF-8."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if 32 <= ord(c) < 127 else "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8")) for c in quoted)
