"""Server-side WebSocket frames as bytes (RFC 6455, section 5.2): unmasked, one frame per message.

A server's frame carries no key and no per-connection state, so one encoding serves every receiver.
"""

from __future__ import annotations

import struct

import attrs

from runtime import limits
from runtime.errors import LimitExceeded

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def encode(opcode: int, payload: bytes) -> bytes:
    """One complete, final frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


def encode_message(message: str | bytes) -> bytes:
    """A text frame for str, a binary frame for bytes."""
    return encode(_TEXT, message.encode()) if isinstance(message, str) else encode(_BINARY, message)


def encode_pong(payload: bytes) -> bytes:
    """The answer to a protocol ping."""
    return encode(_PONG, payload)


def encode_close(code: int | None, reason: str = "") -> bytes:
    """A close frame; code None sends no status (the other side sees 1005)."""
    return encode(_CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())


@attrs.frozen
class PreparedMessage:
    """One message, encoded once, to be sent to many sockets.

    `frame` is the complete WebSocket frame. Deeply immutable, so it passes between actors by reference.
    """

    frame: bytes

    @classmethod
    def of(cls, message: str | bytes) -> PreparedMessage:
        """Encode a message. Raises: LimitExceeded over 32 MiB."""
        if len(message) > limits.MESSAGE_BYTES:
            raise LimitExceeded(
                f"message is {len(message):,} bytes; at most {limits.MESSAGE_BYTES:,} (limits.MESSAGE_BYTES)",
                limit=limits.MESSAGE_BYTES,
                actual=len(message),
            )
        return cls(encode_message(message))
