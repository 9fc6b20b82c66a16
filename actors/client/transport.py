"""The seam between the client and a socket: frames in and out, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from actors.client.address import Address


class TransportClosed(Exception):  # an outcome of every receive, not a mistake
    """The socket has ended, or could not be opened.

    Attributes:
        code: the close code; None without one.
        reason: what the other side, or the network, said.
        status: the HTTP status of a refused handshake. retry_after_ms: what it asked for.
    """

    def __init__(
        self,
        code: int | None = None,
        reason: str = "",
        *,
        status: int | None = None,
        retry_after_ms: float | None = None,
    ) -> None:
        super().__init__(f"closed with {code}: {reason}")
        self.code = code
        self.reason = reason
        self.status = status
        self.retry_after_ms = retry_after_ms


class Transport(Protocol):
    """An open socket."""

    async def send(self, frame: str | bytes) -> None:
        """Send one frame: a text for str, a binary one for bytes. Raises: TransportClosed."""

    async def receive(self) -> str | bytes:
        """The next frame. Raises: TransportClosed."""
        ...

    async def aclose(self, code: int, reason: str) -> None:
        """Say why, and close; the caller limits how long that may take."""


Connect = Callable[[Address, str | None, str], AbstractAsyncContextManager[Transport]]
"""Opens a socket to an address with a token and a subprotocol, and ends it at the end of the block.

Raises: TransportClosed."""
