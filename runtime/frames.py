"""Server-side WebSocket frames as bytes (RFC 6455, section 5.2): unmasked, one frame per message.

A server's frame carries no key and no per-connection state, so one encoding serves every receiver. That holds for
compressed frames, too, because each is compressed by itself (RFC 7692, `server_no_context_takeover`).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import ClassVar

import attrs

from runtime import limits
from runtime.errors import LimitExceeded

_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_FIN, _RSV1 = 0x80, 0x40
_LEVEL = 3  # of zlib: JSON shrinks within a few percent of the default level's result, in a third of the time
_MEMORY = 8
_FLUSHED = 4  # bytes at the end of a flushed block that the receiver puts back (RFC 7692, section 7.2.1)


def encode(opcode: int, payload: bytes) -> bytes:
    """One complete, final frame; `opcode` may have the bit that says that it is compressed."""
    size = len(payload)
    if size < 126:
        return bytes((_FIN | opcode, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", _FIN | opcode, 126, size) + payload
    return struct.pack("!BBQ", _FIN | opcode, 127, size) + payload


def encode_message(message: str | bytes) -> bytes:
    """A text frame for str, a binary frame for bytes."""
    return encode(_TEXT, message.encode()) if isinstance(message, str) else encode(_BINARY, message)


def encode_pong(payload: bytes) -> bytes:
    """The answer to a protocol ping."""
    return encode(_PONG, payload)


def encode_close(code: int | None, reason: str = "") -> bytes:
    """A close frame; code None sends no status (the other side sees 1005)."""
    return encode(_CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())


def deflate(frame: bytes, window_bits: int) -> bytes:
    """The frame compressed by itself (RFC 7692), even where that makes it a few bytes longer.

    Args:
        frame: as `encode_message` made it; anything else, such as a control frame, comes back as it is.
        window_bits: how far back the receiver can look, 9 to 15.
    """
    opcode, size = frame[0] & ~_FIN, frame[1]
    start = 2 if size < 126 else 4 if size == 126 else 10
    payload = memoryview(frame)[start:]
    if opcode not in (_TEXT, _BINARY) or len(payload) != (size if start == 2 else int.from_bytes(frame[2:start])):
        return frame
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -window_bits, _MEMORY)
    compressed = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return encode(_RSV1 | opcode, compressed[:-_FLUSHED])


@attrs.frozen
class PreparedMessage:
    """One message, encoded once, to be sent to many sockets.

    `frame` is the complete WebSocket frame, or several. For sockets that compress, it is compressed when the first of
    them gets it, and once. It passes between actors by reference.
    """

    passes_by_reference: ClassVar[bool] = True

    frame: bytes
    _parts: tuple[PreparedMessage, ...] = ()
    _deflated: dict[int, bytes] = attrs.field(factory=dict, init=False, repr=False, eq=False)

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

    @classmethod
    def join(cls, messages: Iterable[PreparedMessage]) -> PreparedMessage:
        """Messages that leave together, in this order, in one write."""
        parts = tuple(messages)
        return parts[0] if len(parts) == 1 else cls(b"".join([part.frame for part in parts]), parts)

    def deflated(self, window_bits: int) -> bytes:
        """What a socket gets whose client inflates with such a window; the very same bytes each time."""
        found = self._deflated.get(window_bits)
        if found is None:
            parts = [part.deflated(window_bits) for part in self._parts]
            found = self._deflated[window_bits] = b"".join(parts) if parts else deflate(self.frame, window_bits)
        return found
