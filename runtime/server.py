"""The composition root: an app, a store on disk and a network, until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import structlog
import trio

from runtime.app import App
from runtime.config import ServerConfig
from runtime.frontend import serve_node
from runtime.node import open_node
from runtime.platform import Platform
from runtime.storage.bookmarks import Retention
from runtime.storage.shared import SharedStore
from runtime.tcp import TcpListener
from runtime.transport.config import TransportConfig


async def serve(
    app: App, *, config: ServerConfig, settings: Any, platform: Platform, ready: Callable[[str], None]
) -> None:
    """Serve an app and return after a graceful shutdown.

    On SIGTERM or SIGINT the app may ask its clients to leave, which a second signal cuts short. Then it stops
    accepting, answers what it has begun, closes every socket with 1001, and commits.

    Args:
        ready: called with the URL once connections are accepted.

    Raises:
        OSError: the address cannot be used. Others: the data directory cannot be opened (see `SharedStore`).
    """
    log = structlog.stdlib.get_logger("heliograph")
    retention = Retention(age_s=config.history_days * 86_400, total_bytes=config.history_bytes)
    store = SharedStore(config.data, platform=platform, retention=retention)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

        async def stop() -> None:
            async for number in signals:
                log.info("shutting_down", signal=signal.Signals(number).name)
                return

        listeners = await platform.listen(config.host, config.port)
        async with open_node(
            app,
            settings=settings,
            store=store,
            platform=platform,
            log=log,
            objects=config.data / "objects",
            retention=retention,
        ) as node:
            await serve_node(
                node,
                listeners,
                config=TransportConfig(
                    hosts=(config.host, *config.allowed_hosts),
                    origins=config.allowed_origins,
                    connections=config.connections,
                    body_bytes=config.body_bytes,
                ),
                ready=lambda: ready(_url(config.host, listeners[0])),
                stop=stop,
            )


def _url(host: str, listener: trio.abc.Listener[trio.abc.Stream]) -> str:
    assert isinstance(listener, TcpListener)
    port = listener.socket.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
