"""The sockets of a client: none, one, or two while a new one takes the place of the old one (section 2.14)."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from actors.protocol.connection import Connection
from actors.protocol.subscriptions import Subscriptions


@attrs.define(eq=False)
class Sockets:
    """Numbers the sockets and knows which is which.

    Attributes:
        used: the one that the application's requests go to. next: the one that is to take its place.
    """

    used: Connection | None = None
    next: Connection | None = None
    _count: int = 0

    def __iter__(self) -> Iterator[Connection]:
        return (socket for socket in (self.used, self.next) if socket is not None)

    @property
    def is_ready(self) -> bool:
        """Requests can be sent."""
        return self.used is not None and self.used.is_welcomed

    def find(self, number: int | None) -> Connection | None:
        """The open socket of this number; None asks for the one in use."""
        if number is None:
            return self.used
        return next((socket for socket in self if socket.number == number), None)

    def ask(self, open_by: float) -> Connection:
        """Ask for the socket to use, or while there is one for its successor."""
        self._count += 1
        socket = Connection(number=self._count, open_by=open_by, is_successor=self.used is not None)
        if self.used is None:
            self.used = socket
        else:
            self.next = socket
        return socket

    def close(self) -> list[int]:
        """Forget all of them; returns the numbers of those that were there."""
        numbers = [socket.number for socket in self]
        self.used = self.next = None
        return numbers

    def succeed(self) -> None:
        """The next one is in use from now on."""
        self.used, self.next = self.next, None
        if self.used is not None:
            self.used.is_successor = False

    def leave(self, name: str) -> None:
        """Take a subscription back wherever it was asked for."""
        for socket in self:
            socket.leave(name)

    def has_moved(self, subs: Subscriptions) -> bool:
        """Whether the next one is live with everything, and as far as either has brought the application."""
        return (
            self.next is not None
            and self.next.is_welcomed
            and all(
                place.coverage.state == "live" and place.coverage.cursor == subs[name].cursor
                for name, place in self.next.places.items()
            )
        )
