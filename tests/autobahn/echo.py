"""`python -m tests.autobahn.echo URL AGENT`: the Python client's connection, echoing to the suite's own server."""

from __future__ import annotations

import sys

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from actors.client.address import Address
from actors.client.transport import TransportClosed
from actors.client.websocket import websocket_connect


async def main(url: str, agent: str) -> None:
    """Run every case that the server has."""
    counted: list[str | bytes] = []

    async def count(connection: WebSocketConnection) -> None:
        counted.append(await connection.get_message())

    async def echo(connection: WebSocketConnection) -> None:
        while True:
            await connection.send_message(await connection.get_message())

    async def wait(connection: WebSocketConnection) -> None:
        await connection.get_message()

    await visit(url, "/getCaseCount", count)
    for case in range(1, int(counted[0]) + 1):
        await visit(url, f"/runCase?case={case}&agent={agent}", echo)
    await visit(url, f"/updateReports?agent={agent}", wait)


async def visit(url: str, resource: str, talk) -> None:
    """One connection, opened as the client opens its own."""
    address = attrs.evolve(Address.parse(url), resource=resource)
    try:
        async with websocket_connect()(address, None) as transport:
            await talk(transport._connection)
    except* (ConnectionClosed, TransportClosed, trio.BrokenResourceError):
        pass


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
