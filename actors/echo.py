"""An echo WebSocket on the same stack, for conformance tools."""

from __future__ import annotations

from typing import ClassVar

from runtime import Actor, Request, Response, WebSocket

MESSAGE_BYTES = 16 * 1024 * 1024


class Echo(Actor[object]):
    """Sends every message back, compressed if the client offers it; up to 16 MiB in any number of fragments."""

    message_bytes: ClassVar[int] = MESSAGE_BYTES
    backlog_bytes: ClassVar[int] = 4 * MESSAGE_BYTES

    async def fetch(self, request: Request) -> Response:
        """Accept any WebSocket."""
        if request.web_socket is None:
            return Response(426, b"this is a WebSocket endpoint\n", {"upgrade": "websocket", "connection": "upgrade"})
        self.ctx.accept_web_socket(request.web_socket, compress=True)
        return Response(101)

    async def web_socket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Send it back."""
        ws.send(message)
