"""The sending half of a connection, as sockets see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from runtime.platform import Writer


class Outbound(Protocol):
    """The sending half of a connection (the transport's `FrameStream`)."""

    @property
    def backlog_bytes(self) -> int:
        """Accepted and not yet taken by the kernel."""
        ...

    @property
    def round_trip_s(self) -> float | None:
        """The round trip of the TCP connection, smoothed, as the kernel knows it; None where nobody does."""
        ...

    @property
    def connection_number(self) -> int | None:
        """Which one it is of the connections that can be made to fail; None where none can."""
        ...

    @property
    def direct(self) -> Writer | None:
        """The write of the connection, while nothing is queued and nothing closes."""
        ...

    def push(self, data: bytes, /) -> None:
        """Send complete frames; never waits. Ignored once the connection closes or is lost."""
        ...

    def push_rest(self, data: bytes, taken: int, /) -> None:
        """The same for frames of which `direct` has taken the first bytes."""
        ...

    def close(self, code: int | None, reason: str = "", /) -> None:
        """Send a close frame after everything pushed so far."""
        ...

    def cut(self) -> None:
        """Drop the connection at once, without a close frame."""
        ...

    def configure(
        self, *, backlog_bytes: int, slow_code: int, stall_s: float, changed: Callable[[], None] | None = None
    ) -> None:
        """Set what a slow reader may make the server hold, the code it is closed with, and who is told of `direct`."""
        ...
