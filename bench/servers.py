"""The servers that are measured: how each is started, how the load speaks to it, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import attrs

from bench.build import compile_program
from bench.measure import BenchError, Setting

READY_S = 30.0
STOP_S = 15.0
ROOT = Path(__file__).parents[1]
DATA = "data"


@attrs.frozen(kw_only=True)
class Dialect:
    """How the load client subscribes and publishes.

    Attributes:
        path, publish_path: what subscribers and the publisher upgrade.
        subprotocol: offered in the handshake.
        hello: from the filter of each variant, what a subscriber sends first; None: nothing.
        publish_hello: what the publisher sends first.
        live_marker: a subscriber is live when it has received this.
        error_marker: a frame with this ends the run.
        answer_marker: what the publisher is answered with for each signal; at most 32 wait for theirs.
        template: what is published; the load client fills in @DATA@, @ID@ and @SEQUENCE@.
        ping_text: keeps a silent connection alive.
    """

    path: str
    publish_path: str
    subprotocol: str | None = None
    hello: Callable[[object], str] | None = None
    publish_hello: str | None = None
    live_marker: str | None = None
    error_marker: str | None = None
    answer_marker: str | None = None
    template: str = "@DATA@"
    ping_text: str | None = None


RAW = Dialect(path="/sub", publish_path="/pub")
"""Every text frame that the publisher sends goes to every subscriber."""


ECHO = Dialect(path="/_test/echo", publish_path="/_test/echo")
"""An actor that accepts WebSockets and does nothing else with them."""


def keepers(path: str) -> Dialect:
    """Objects that store every message and send it back; the path of one ends with its name."""
    return Dialect(path=path, publish_path=path)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _hello(filter_: object) -> str:
    return _compact({"t": "hello", "id": 1, "subs": [{"s": "bench", "filter": filter_, "from": "now"}]})


SIGNALS = Dialect(
    path="/v1/stream",
    publish_path="/v1/stream",
    subprotocol="signals.v1.json",
    hello=_hello,
    publish_hello=_compact({"t": "hello", "id": 1}),
    live_marker='"t":"live"',
    error_marker='"t":"err"',
    answer_marker='"t":"ok"',
    template='{"t":"pub","id":@ID@,"signal":{"type":"bench.s@SEQUENCE@","entity":"load","data":@DATA@}}',
    ping_text='{"t":"ping"}',
)
"""The product's wire protocol."""


@attrs.frozen(kw_only=True)
class Server:
    """A server that can be started on a free port and says `listening on http://HOST:PORT` on stdout.

    Attributes:
        command: how to start it; gets an empty folder.
        dialect: how the load speaks to it.
        folder: where that folder is made, instead of in the build folder.
    """

    command: Callable[[Setting, Path], Sequence[str]]
    dialect: Dialect
    folder: Path | None = None


def _limit(mode: str) -> Server:
    return Server(command=lambda setting, _data: [str(compile_program("limit", setting.build)), mode], dialect=RAW)


def _product(
    *flags: str, app: str | None = None, dialect: Dialect = SIGNALS, config: str = "", folder: Path | None = None
) -> Server:
    def command(_setting: Setting, data: Path) -> Sequence[str]:
        file = data / "heliograph.toml"
        file.write_text(config)
        places = ["--config", str(file), "--data", str(data / DATA)]
        served = [] if app is None else [app]
        return [sys.executable, "-m", "runtime", "serve", *served, "--port", "0", *places, *flags]

    return Server(command=command, dialect=dialect, folder=folder)


_SMALL_LOG = """
[server]
history_bytes = 67_108_864
[stream]
retention_signals = 50_000
retention_s = 0
dedup_signals = 50_000
"""


SERVERS = {
    "product": _product("--no-sources"),
    "product_ingest": _product(),
    "product_echo": _product("--no-sources", "--test-routes", dialect=ECHO),
    "product_small_log": _product("--no-sources", config=_SMALL_LOG),
    "product_volatile": _product("--no-sources", folder=Path("/dev/shm")),
    "shared": _product(app="bench.keepers:app", dialect=keepers("/shared/")),
    "sql": _product(app="bench.keepers:app", dialect=keepers("/sql/")),
    "c_send": _limit("send"),
    "c_coalesce": _limit("coalesce"),
    "trio_naive": Server(command=lambda _setting, _data: [sys.executable, "-m", "bench.trio_naive"], dialect=RAW),
}


@attrs.frozen(kw_only=True)
class Running:
    """A server that listens.

    Attributes:
        data: the product's data directory.
    """

    pid: int
    port: int
    dialect: Dialect
    data: Path


@contextlib.contextmanager
def running(name: str, setting: Setting, servers: Mapping[str, Server] = SERVERS) -> Generator[Running]:
    """Starts a server pinned to the server core with an empty data directory, and stops it at the end.

    Raises:
        BenchError: it cannot be built, does not become ready in 30 s, or has ended by itself.
    """
    server = servers[name]
    setting.build.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=server.folder or setting.build, prefix="run-") as folder:
        data = Path(folder)
        log = data / "log.txt"
        with log.open("wb") as log_file:
            process = subprocess.Popen(
                server.command(setting, data),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log_file,
                cwd=ROOT,
                preexec_fn=lambda: os.sched_setaffinity(0, {setting.server_core}),
            )
        try:
            port = _ready_port(name, process, log)
            yield Running(pid=process.pid, port=port, dialect=server.dialect, data=data / DATA)
            if process.poll() is not None:
                raise BenchError(f"{name} ended by itself with status {process.returncode}\n{_tail(log)}")
        finally:
            _stop(process)


def _ready_port(name: str, process: subprocess.Popen[bytes], log: Path) -> int:
    assert process.stdout is not None
    seen = b""
    while True:
        line = _line_within(process, READY_S)
        seen += line
        found = re.search(rb"listening on http://[^\s:]+:(\d+)", seen)
        if found:
            return int(found[1])
        if not line:
            state = "ended" if process.poll() is not None else f"was not ready within {READY_S:g} s"
            raise BenchError(f"{name} {state}; it printed {seen.decode(errors='replace')!r}\n{_tail(log)}")


def _line_within(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return os.read(process.stdout.fileno(), 65536) if ready else b""


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
