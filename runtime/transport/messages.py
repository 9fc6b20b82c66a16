"""Received bytes to WebSocket messages: reassembled, bounded, checked; no I/O.

wsproto reads the frames; this joins fragments into messages in one buffer that never exceeds the bound, so that a
client which sends many tiny pieces costs no more than their sum. What most frames are, a short message in one piece, is
read here: that takes a fifth of the time.
"""

from __future__ import annotations

import codecs
import math
import struct

import attrs
from wsproto.frame_protocol import LOCAL_ONLY_CLOSE_REASONS, CloseReason, Frame, FrameDecoder, Opcode, ParseFailed

from runtime.transport.deflate import Inflater, InflationFailed

_REGISTERED = frozenset(CloseReason) - frozenset(LOCAL_ONLY_CLOSE_REASONS)
_PRIVATE = range(3000, 5000)
_WHOLE_TEXT, _WHOLE_BINARY = 0x81, 0x82  # the first byte of a frame that is a message, not compressed
_WHOLE = (_WHOLE_TEXT, _WHOLE_BINARY)


@attrs.frozen
class Ping:
    """A protocol ping; the pong carries its payload."""

    payload: bytes


@attrs.frozen
class Closed:
    """The peer's close frame; 1005 when it had no code."""

    code: int
    reason: str


class ProtocolError(Exception):
    """The peer broke the protocol or a bound: what its close frame says, and what `web_socket_error` gets."""

    def __init__(self, code: int, reason: str) -> None:
        # Durable Objects: the error handler's text.
        super().__init__(
            f"WebSocket protocol error; protocolError.statusCode = {code}; protocolError.description = {reason}"
        )
        self.code = code
        self.reason = reason


class MessageDecoder:
    """Decodes what one client sends.

    Args:
        limit: the most bytes of one message, as it is sent.
        inflated: the most bytes of one message once it is inflated; None: none may be compressed.
    """

    __slots__ = ("_arrived", "_at", "_buffer", "_decoder", "_limit", "_opcode", "_short", "_utf8")

    def __init__(self, limit: int, inflated: int | None = None) -> None:
        self._limit: float = limit
        self._short = inflated is None  # frames are read here while they are short and whole
        self._arrived = b""  # what came last, and from where on it is still to be read
        self._at = 0
        if inflated is None:
            self._decoder = FrameDecoder(client=False)
        else:
            self._decoder = FrameDecoder(client=False, extensions=[Inflater(limit, inflated)])
            self._limit = math.inf  # the inflater has both bounds
        self._opcode: Opcode | None = None  # of the message that has begun
        self._buffer: bytearray | None = None
        self._utf8: codecs.IncrementalDecoder | None = None

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        decoder = self._decoder
        if self._arrived:
            self._arrived, self._at = self._arrived[self._at :] + data, 0
        elif self._short and self._opcode is None and decoder.header is None and not decoder.buffer:
            self._arrived, self._at = data, 0
        else:
            decoder.receive_bytes(data)

    def next(self) -> str | bytes | Ping | Closed | None:
        """The next message or control frame; None when more bytes are needed.

        Raises:
            ProtocolError: nothing more can be decoded.
        """
        if self._arrived:
            if (message := self._next_short()) is not None:
                return message
            if self._at < len(self._arrived):
                self._decoder.receive_bytes(self._arrived[self._at :])
            self._arrived = b""
        if not self._decoder.buffer:
            return None  # as after most messages: nothing has come since
        try:
            while (frame := self._decoder.process_buffer()) is not None:
                event = self._control(frame) if frame.opcode.iscontrol() else self._data(frame)
                if event is not None:
                    return event
        except ParseFailed as error:
            raise ProtocolError(error.code, str(error)) from error
        except InflationFailed as error:
            raise ProtocolError(error.code, error.reason) from error
        self._check_announced()
        return None

    def _next_short(self) -> str | bytes | None:
        """The message that comes next if it is one whole frame of less than 64 KiB; else wsproto is to read on.

        Raises:
            ProtocolError: it is no UTF-8.
        """
        data, at = self._arrived, self._at
        if len(data) < at + 6 or data[at] not in _WHOLE or (size := data[at + 1] - 0x80) < 0 or size == 127:
            return None
        begin = at + 6
        if size == 126:
            size = data[at + 2] << 8 | data[at + 3]
            begin += 2
            if size < 126:
                return None  # it says in two bytes what goes into one
        end = begin + size
        if end > len(data) or size > self._limit:
            return None
        self._at = end
        masks = data[begin - 4 : begin] * ((size + 3) // 4)
        plain = (int.from_bytes(data[begin:end], "little") ^ int.from_bytes(masks[:size], "little")).to_bytes(
            size, "little"
        )
        return _decode(plain) if data[at] == _WHOLE_TEXT else plain

    def _control(self, frame: Frame) -> Ping | Closed | None:
        assert isinstance(frame.payload, bytes)
        if frame.opcode is Opcode.PING:
            return Ping(frame.payload)
        if frame.opcode is Opcode.CLOSE:
            return _closed(frame.payload)
        return None  # a pong: nobody asked

    def _data(self, frame: Frame) -> str | bytes | None:
        payload = frame.payload
        assert isinstance(payload, bytes)
        if self._opcode is None:
            if frame.opcode is Opcode.CONTINUATION:
                raise ProtocolError(1002, "a continuation frame without a message to continue")
            self._opcode = frame.opcode
        elif frame.opcode is not Opcode.CONTINUATION:
            raise ProtocolError(1002, "a new message inside an unfinished one")
        finished = frame.frame_finished and frame.message_finished
        if self._buffer is None and finished:
            self._check_size(len(payload))
            whole: bytes | bytearray = payload
        else:
            self._check_announced(len(payload))
            whole = self._extend(payload, finished)
        if not finished:
            return None
        text, self._opcode, self._buffer, self._utf8 = self._opcode is Opcode.TEXT, None, None, None
        return _decode(whole) if text else bytes(whole)

    def _extend(self, payload: bytes, finished: bool) -> bytearray:
        if self._buffer is None:
            self._buffer = bytearray()
            if self._opcode is Opcode.TEXT:
                self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._buffer += payload
        if self._utf8 is not None:
            try:
                self._utf8.decode(payload, finished)  # refuse early what can never become valid
            except UnicodeDecodeError as error:
                raise _not_utf8() from error
        return self._buffer

    def _check_announced(self, arrived: int = 0) -> None:
        """Refuse a message as soon as its frame headers add up to too much."""
        header = self._decoder.header
        size = len(self._buffer or b"") + arrived
        if header is not None and not header.opcode.iscontrol():
            size += header.payload_len - self._decoder.payload_consumed
        self._check_size(size)

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise ProtocolError(1009, f"Message is too large: {size} > {self._limit}")


def _closed(payload: bytes) -> Closed:
    if not payload:
        return Closed(1005, "")
    if len(payload) == 1:
        raise ProtocolError(1002, "a close frame of one byte")
    (code,) = struct.unpack_from("!H", payload)
    if code not in _REGISTERED and code not in _PRIVATE:
        raise ProtocolError(1002, f"a close frame with code {code}, which nobody may send")
    return Closed(code, _decode(payload[2:]))


def _decode(data: bytes | bytearray) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8() from error


def _not_utf8() -> ProtocolError:
    return ProtocolError(1007, "text that is not UTF-8")
