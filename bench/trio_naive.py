"""The reference a newcomer would write: trio-websocket, and `await send_message` to one subscriber after another."""

from __future__ import annotations

from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, WebSocketServer, serve_websocket


async def main() -> None:
    """Serves /sub and /pub on a free port until it is stopped."""
    subscribers: set[WebSocketConnection] = set()

    async def handle(request: WebSocketRequest) -> None:
        connection = await request.accept()
        try:
            if request.path == "/sub":
                subscribers.add(connection)
                while True:
                    await connection.get_message()
            while True:
                message = await connection.get_message()
                for subscriber in tuple(subscribers):
                    await _send(subscriber, message)
        except ConnectionClosed:
            subscribers.discard(connection)

    serve = partial(serve_websocket, handle, "127.0.0.1", 0, None, max_message_size=1 << 20)
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve)
        print(f"listening on http://127.0.0.1:{server.port}", flush=True)


async def _send(subscriber: WebSocketConnection, message: str | bytes) -> None:
    try:
        await subscriber.send_message(message)
    except ConnectionClosed:
        return  # its own task takes it out of the set


if __name__ == "__main__":
    trio.run(main)
