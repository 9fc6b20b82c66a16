"""What is known of the connection beneath a stream, whatever layers are on it."""

from __future__ import annotations

import trio


def peer_of(stream: trio.abc.Stream) -> str:
    """The address of the other end without its port; "" when it has none."""
    return str(getattr(_beneath(stream), "peer", ""))


def round_trip_of(stream: trio.abc.Stream) -> float | None:
    """The round trip to the other end, smoothed, in seconds; None of a stream that does not know it."""
    measured = getattr(_beneath(stream), "round_trip_s", None)
    return None if measured is None else float(measured)


def number_of(stream: trio.abc.Stream) -> int | None:
    """Which one it is of the connections that can be made to fail; None where none can."""
    number = getattr(_beneath(stream), "number", None)
    return None if number is None else int(number)


def _beneath(stream: trio.abc.Stream) -> trio.abc.Stream:
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream
