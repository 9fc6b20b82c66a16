"""A WebSocket client that sends what it is told and writes down what comes back, frame by frame.

It answers nothing by itself but pings, and can drop the connection.
"""

from __future__ import annotations

from typing import Any

import trio
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Client:
    """One connection of a scenario.

    Attributes:
        received: what a trace shows of it.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.received: list[Any] = []
        self._stream = stream
        self._frames = FrameProtocol(client=True, extensions=[])
        self._news = trio.Event()
        self._parts: list[Any] = []
        self._outgoing: list[bytes] = []

    async def open(self, target: str, host: str) -> None:
        """Do the handshake; a refusal is what `received` then shows."""
        await self._stream.send_all(
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            data = await self._receive()
            if not data:
                raise ConnectionError("closed during handshake")
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status != 101:
            self._note({"refused": status})
            await trio.aclose_forcefully(self._stream)
            return
        self._frames.receive_bytes(rest)

    async def run(self) -> None:
        """Note what arrives until the connection ends."""
        while True:
            for frame in self._frames.received_frames():
                await self._take(frame)
            data = await self._receive()
            if not data:
                break
            self._frames.receive_bytes(data)
        self._note("<eof>")

    async def send(self, message: str | bytes) -> None:
        """Send a message."""
        await self._send(self._frames.send_data(message, fin=True))

    async def ping(self, text: str) -> None:
        """Send a protocol ping."""
        await self._send(self._frames.ping(text.encode()))

    async def close(self, code: int | None = None, reason: str = "") -> None:
        """Send a close frame."""
        await self._send(self._frames.close(code, reason or None))

    async def drop(self) -> None:
        """Cut the connection."""
        await trio.aclose_forcefully(self._stream)

    async def until(self, count: int, seconds: float) -> bool:
        """Wait until so many frames have come."""
        with trio.move_on_after(seconds):
            while len(self.received) < count:
                await self._news.wait()
        return len(self.received) >= count

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the reader notes the end

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(65_536))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def _take(self, frame: Any) -> None:
        if frame.opcode is Opcode.CLOSE:
            code, reason = frame.payload
            self._note({"close": None if code == CloseReason.NO_STATUS_RCVD else int(code), "reason": reason or ""})
        elif frame.opcode is Opcode.PING:
            await self._send(self._frames.pong(frame.payload))
        elif frame.opcode is Opcode.PONG:
            self._note({"pong": bytes(frame.payload).decode()})
        else:
            self._parts.append(frame.payload)
            if frame.message_finished:
                parts, self._parts = self._parts, []
                self._note(_message(parts))

    def _note(self, what: Any) -> None:
        self.received.append(what)
        self._news.set()
        self._news = trio.Event()


def _message(parts: list[Any]) -> Any:
    if isinstance(parts[0], str):
        text = "".join(parts)
        units = len(text.encode("utf-16-le")) // 2
        return {"text": units} if units > 160 else text
    data = b"".join(bytes(part) for part in parts)
    return {"binary": len(data) if len(data) > 32 else data.hex()}
