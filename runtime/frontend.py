"""A node behind its network: serves until it is told to stop, and then goes down in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from runtime.node import Node
from runtime.transport.certificate import Certificate
from runtime.transport.config import TransportConfig
from runtime.transport.listen import Transport

GOING_AWAY = 1001
STEP_S = 10.0
CLOSE_S = 3.0  # who reads has answered to its close frame long before, and who does not keeps no restart waiting


async def serve_node(
    node: Node,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    *,
    config: TransportConfig,
    ready: Callable[[], None],
    stop: Callable[[], Awaitable[object]],
    certificate: Certificate | None = None,
) -> None:
    """Serve a node's app on listeners until `stop()` returns.

    Then: the app's drain, no new connections, an answer to what has begun, every socket closed with 1001, the
    connections' end. Each step takes 10 s at most, the last one 3 s, the app's drain as long as it wants.

    Args:
        stop: awaited once more during the app's drain, which ends when it returns: told twice, the server hurries.
        ready: called once connections are accepted.
        certificate: what clients are shown; None serves them without TLS.
    """
    transport = Transport(node.handle, config=config, platform=node.platform, log=node.log, certificate=certificate)
    async with trio.open_nursery() as connections:
        await connections.start(transport.serve, listeners)
        ready()
        await stop()
        await _drain(node, stop)
        await transport.drain(STEP_S)
        with trio.move_on_after(STEP_S):
            await node.router.drain()
        node.router.close_sockets(GOING_AWAY, "the server is going down")
        await transport.gone(CLOSE_S)
        connections.cancel_scope.cancel()


async def _drain(node: Node, hurry: Callable[[], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            await hurry()
            nursery.cancel_scope.cancel()

        nursery.start_soon(end)
        await node.drain()
        nursery.cancel_scope.cancel()
