"""picows on uvloop: one `send` for each subscriber."""

from __future__ import annotations

import asyncio

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server


async def main() -> None:
    """Serves /sub and /pub on a free port until it is stopped."""
    subscribers: set[WSTransport] = set()

    class Subscriber(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            subscribers.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            subscribers.discard(transport)

    class Publisher(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.TEXT:
                message = frame.get_payload_as_bytes()
                for subscriber in subscribers:
                    subscriber.send(WSMsgType.TEXT, message)

    def listener(request: WSUpgradeRequest) -> WSListener:
        return Subscriber() if request.path == b"/sub" else Publisher()

    server = await ws_create_server(listener, "127.0.0.1", 0, backlog=4096)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
