"""permessage-deflate (RFC 7692): what is agreed about it, and inflating what a client sends within a bound.

Neither side keeps anything from one message to the next (`no_context_takeover`): a frame compressed once serves every
receiver, and an idle connection holds no window. What is sent is compressed in `runtime.frames`.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import attrs
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

if TYPE_CHECKING:
    from zlib import _Decompress

NAME = "permessage-deflate"
WINDOW_BITS = 15
_SMALLEST_WINDOW_BITS = 9  # zlib has no raw deflate with 8, which the RFC allows
_WINDOW_BITS = {str(bits): bits for bits in range(8, WINDOW_BITS + 1)}
_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_TAIL = b"\x00\x00\xff\xff"  # what the sender took off (section 7.2.2)


@attrs.frozen
class Agreement:
    """One offer of a client that can be met.

    Attributes:
        window_bits: how far back in a message the client can look, as a power of two: 9 to 15.
        answer: the value of `Sec-WebSocket-Extensions` that agrees to it.
    """

    window_bits: int
    answer: str


def agree(offers: str) -> Agreement | None:
    """The first of a client's offers that can be met; None without one.

    Args:
        offers: the value of its `Sec-WebSocket-Extensions`.
    """
    for offer in offers.split(","):
        name, *parameters = [part.strip() for part in offer.split(";")]
        if name == NAME and (agreement := _meet(parameters)) is not None:
            return agreement
    return None


def _meet(parameters: list[str]) -> Agreement | None:
    """What answers an offer; None when it has something unknown, twice, or out of range (section 7.1)."""
    seen: dict[str, str | None] = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if name.strip() in seen:
            return None
        seen[name.strip()] = value.strip().strip('"') if equals else None
    answer = "; ".join((NAME, *_FLAGS))
    window_bits = WINDOW_BITS
    for name, given in seen.items():
        if name in _FLAGS and given is None:
            continue
        if name == "client_max_window_bits" and (given is None or given in _WINDOW_BITS):
            continue  # every window of a client fits
        if name == "server_max_window_bits" and _WINDOW_BITS.get(given or "", 0) >= _SMALLEST_WINDOW_BITS:
            window_bits = _WINDOW_BITS[given or ""]
            answer = f"{answer}; server_max_window_bits={window_bits}"
            continue
        return None
    return Agreement(window_bits, answer)


class InflationFailed(Exception):
    """A message cannot be inflated, or not within its bound: code and reason of the close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Inflater(Extension):
    """wsproto's extension interface for the messages of one client, compressed or not.

    Never makes more than one byte beyond the bound, whatever a message would grow to.

    Args:
        wire_bytes: the most bytes of one message as it is sent.
        inflated_bytes: the most bytes of one message once it is inflated.
    """

    name = NAME

    def __init__(self, wire_bytes: int, inflated_bytes: int) -> None:
        self._wire_bytes = wire_bytes
        self._inflated_bytes = inflated_bytes
        self._wire = 0  # of the frames of a message that have ended
        self._announced = 0  # of the frame that has begun
        self._room = 0  # what it may still grow by
        self._ended = 0  # bytes after its last block
        self._stream: _Decompress | None = None
        self._control = False

    def offer(self) -> bool | str:
        """Nothing: a server is offered extensions."""
        return False

    def frame_inbound_header(self, proto: Any, opcode: Opcode, rsv: RsvBits, payload_length: int) -> RsvBits:
        """A frame begins; returns the reserved bits that may be set in it.

        wsproto asks again for the same frame when its mask has not arrived yet.

        Raises:
            InflationFailed: the frames of its message add up to too much.
        """
        self._control = opcode.iscontrol()
        if self._control:
            return RsvBits(False, False, False)
        begins = opcode is not Opcode.CONTINUATION
        if begins:
            self._wire, self._room, self._ended = 0, self._inflated_bytes, 0
            self._stream = zlib.decompressobj(-WINDOW_BITS) if rsv.rsv1 else None
        self._announced = payload_length
        if (size := self._wire + payload_length) > self._wire_bytes:
            raise InflationFailed(CloseReason.MESSAGE_TOO_BIG, f"Message is too large: {size} > {self._wire_bytes}")
        return RsvBits(begins, False, False)

    def frame_inbound_payload_data(self, proto: Any, data: bytes) -> bytes:
        """Inflate a piece of a frame.

        Raises:
            InflationFailed: it cannot be inflated, or to too much.
        """
        stream = self._stream
        if stream is None or self._control:
            return data
        was_over = stream.eof
        inflated = b"" if was_over else self._inflate(stream, data)
        if stream.eof:
            # A sender that marked its block as the last one adds one empty byte (section 7.2.3.4).
            extra = data if was_over else stream.unused_data
            self._ended += len(extra)
            if extra.strip(b"\x00") or self._ended > 1:
                raise InflationFailed(CloseReason.INVALID_FRAME_PAYLOAD_DATA, "compressed data after its last block")
        return inflated

    def frame_inbound_complete(self, proto: Any, fin: bool) -> bytes | None:
        """A frame ends; returns the rest of its message when it was the last one.

        Raises:
            InflationFailed: as above.
        """
        if self._control:
            return None
        self._wire += self._announced
        stream = self._stream
        if stream is None or not fin:
            return None
        self._stream = None
        return None if stream.eof else self._inflate(stream, _TAIL)

    def _inflate(self, stream: _Decompress, data: bytes) -> bytes:
        try:
            inflated = stream.decompress(data, self._room + 1)
        except zlib.error as error:
            raise InflationFailed(
                CloseReason.INVALID_FRAME_PAYLOAD_DATA, "compressed data that cannot be inflated"
            ) from error
        self._room -= len(inflated)
        if self._room < 0:
            raise InflationFailed(
                CloseReason.MESSAGE_TOO_BIG, f"Message is too large once inflated: more than {self._inflated_bytes}"
            )
        return inflated
