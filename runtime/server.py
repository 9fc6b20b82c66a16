"""The composition root: an app, a store on disk and a network, in one nursery, until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import trio

from runtime.app import App
from runtime.config import ServerConfig
from runtime.node import Node, open_node
from runtime.platform import Platform
from runtime.storage.shared import SharedStore
from runtime.transport.connection import Transport, TransportConfig

GOING_AWAY = 1001
DRAIN_S = 10.0


async def serve(
    app: App, *, config: ServerConfig, settings: Any, platform: Platform, ready: Callable[[str], None]
) -> None:
    """Serve an app and return after a graceful shutdown.

    On SIGTERM or SIGINT it stops accepting, answers what it has begun, closes every socket with 1001, and commits.

    Args:
        ready: called with the URL once connections are accepted.

    Raises:
        OSError: the address cannot be used. Others: the data directory cannot be opened (see `SharedStore`).
    """
    log = structlog.stdlib.get_logger("heliograph")
    store = SharedStore(Path(config.data), platform=platform)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        listeners = await platform.listen(config.host, config.port)
        async with open_node(app, settings=settings, store=store, platform=platform, log=log) as node:
            async with trio.open_nursery() as connections:
                transport = Transport(
                    node.handle,
                    config=TransportConfig(
                        allowed_hosts=config.allowed_hosts,
                        allowed_origins=config.allowed_origins,
                        connections=config.connections,
                        body_bytes=config.body_bytes,
                    ),
                    platform=platform,
                    nursery=connections,
                    log=log,
                )
                connections.start_soon(transport.serve, listeners)
                ready(_url(config.host, listeners[0]))
                async for number in signals:
                    log.info("shutting down", signal=signal.Signals(number).name)
                    break
                await _close(node, transport)
                connections.cancel_scope.cancel()


async def _close(node: Node, transport: Transport) -> None:
    await transport.stop_accepting()
    with trio.move_on_after(DRAIN_S):
        await node.router.drain()
    node.router.close_sockets(GOING_AWAY, "server shutdown")
    await transport.drain(DRAIN_S)


def _url(host: str, listener: trio.abc.Listener[trio.abc.Stream]) -> str:
    assert isinstance(listener, trio.SocketListener)
    port = listener.socket.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
