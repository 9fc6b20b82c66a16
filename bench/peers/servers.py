"""How the peers are started; one that is not installed says so and the others go on."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.measure import BenchError, Setting
from bench.peers.npm import node_modules
from bench.servers import RAW, Dialect, Server, keepers

PEERS = Path(__file__).parent
WS = "ws@8.23.0"
WORKERD = "workerd@1.20261117.1"

_WORKERD_CONFIG = """using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = (
    modules = [(name = "room.mjs", esModule = embed "room.mjs")],
    compatibilityDate = "2025-01-01",
    durableObjectNamespaces = [(className = "Room", uniqueKey = "room")],
    durableObjectStorage = (inMemory = void),
    bindings = [(name = "rooms", durableObjectNamespace = "Room")],
  ))],
  sockets = [(name = "http", address = "127.0.0.1:PORT", http = (), service = "main")],
);
"""

_WORKERD_KEEPERS_CONFIG = """using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "disk", disk = (path = "objects", writable = true)),
    (name = "main", worker = (
      modules = [(name = "keepers.mjs", esModule = embed "keepers.mjs")],
      compatibilityDate = "2026-08-01",
      durableObjectNamespaces = [(className = "Keeper", uniqueKey = "keeper", enableSql = true)],
      durableObjectStorage = (localDisk = "disk"),
      bindings = [(name = "keepers", durableObjectNamespace = "Keeper")],
    )),
  ],
  sockets = [(name = "http", address = "127.0.0.1:PORT", http = (), service = "main")],
);
"""

NATS = Dialect(
    path="/",
    publish_path="/",
    hello=lambda _filter: 'CONNECT {"verbose":false}\r\nSUB bench 1\r\nPING\r\n',
    publish_hello='CONNECT {"verbose":false}\r\n',
    live_marker="PONG",
    error_marker="-ERR",
    template="PUB bench 80\r\n@DATA@\r\n",
)
"""NATS' text protocol in WebSocket frames; the load client's data are 80 bytes."""


def _module(name: str, *packages: str) -> Server:
    def command(_setting: Setting, _data: Path) -> Sequence[str]:
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            raise BenchError(f"needs {' and '.join(missing)}: pip install --group peers")
        return [sys.executable, "-m", f"bench.peers.{name}"]

    return Server(command=command, dialect=RAW)


def _node_ws(setting: Setting, data: Path) -> Sequence[str]:
    modules = node_modules(setting.build, WS)
    script = data / "node_ws.mjs"
    script.write_text((PEERS / "node_ws.mjs").read_text())
    (data / "node_modules").symlink_to(modules.absolute())
    return ["node", str(script)]


def _workerd(setting: Setting, data: Path) -> Sequence[str]:
    modules = node_modules(setting.build, WORKERD)
    port = _free_port()
    (data / "room.mjs").write_text((PEERS / "workerd_room.mjs").read_text())
    (data / "config.capnp").write_text(_WORKERD_CONFIG.replace("PORT", str(port)))
    return _announced([str(modules / "workerd" / "bin" / "workerd"), "serve", str(data / "config.capnp")], port)


def _workerd_keepers(setting: Setting, data: Path) -> Sequence[str]:
    modules = node_modules(setting.build, WORKERD)
    port = _free_port()
    (data / "objects").mkdir()
    (data / "keepers.mjs").write_text((PEERS / "workerd_keepers.mjs").read_text())
    config = data / "config.capnp"
    config.write_text(_WORKERD_KEEPERS_CONFIG.replace("PORT", str(port)))
    program = str(modules / "workerd" / "bin" / "workerd")
    return _announced([program, "serve", str(config), f"--directory-path=disk={data / 'objects'}"], port)


def _nats(_setting: Setting, data: Path) -> Sequence[str]:
    program = shutil.which("nats-server")
    if program is None:
        raise BenchError("needs nats-server")
    port = _free_port()
    config = data / "nats.conf"
    config.write_text(f'port: -1\nhost: "127.0.0.1"\nwebsocket {{ host: "127.0.0.1", port: {port}, no_tls: true }}\n')
    return _announced([program, "-c", str(config)], port)


def _announced(command: Sequence[str], port: int) -> Sequence[str]:
    """The same program under the same process id, with the line that says where it listens once it does."""
    return [sys.executable, "-m", "bench.peers.announced", str(port), *command]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


PEER_SERVERS = {
    "websockets": _module("websockets_broadcast", "websockets"),
    "picows": _module("picows_uvloop", "picows", "uvloop"),
    "node_ws": Server(command=_node_ws, dialect=RAW),
    "workerd": Server(command=_workerd, dialect=RAW),
    "workerd_keepers": Server(command=_workerd_keepers, dialect=keepers("/")),
    "nats": Server(command=_nats, dialect=NATS),
}
