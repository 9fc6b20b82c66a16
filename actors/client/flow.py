"""What full buffers hold up: the reading of sockets, or themselves alone while somebody waits for an answer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import attrs

from actors.client.links import Links
from actors.client.subscription import Subscription
from actors.protocol.client import ClientMachine


@attrs.define(eq=False)
class Flow:
    """Back pressure from the buffers of subscriptions to the connection.

    Normally sockets are not read while a buffer is full, so the server notices, and does what `on_slow` says. But an
    answer of the server stands behind what it has sent before: who waited for one in a loop over a full subscription
    would wait for ever. So as long as anybody does, full subscriptions rest instead: they are taken off the
    connection, and asked for again from their cursor when half of the buffer was read.
    """

    _machine: ClientMachine
    _links: Links
    _settle: Callable[[], None]
    _full: dict[str, Subscription] = attrs.field(factory=dict[str, Subscription], init=False)
    _resting: dict[str, Subscription] = attrs.field(factory=dict[str, Subscription], init=False)
    _awaited: int = attrs.field(default=0, init=False)

    def no_room(self, sub: Subscription) -> None:
        """The buffer is full."""
        if sub.name not in self._resting:
            self._full[sub.name] = sub
            self._hold()

    def room(self, sub: Subscription) -> None:
        """The application has taken something, and the buffer is not full."""
        if self._full.get(sub.name) is sub:
            del self._full[sub.name]
            self._hold()
        elif self._resting.get(sub.name) is sub and sub.may_go_on:
            del self._resting[sub.name]
            self._machine.go_on(sub.name)
            self._settle()

    def forget(self, sub: Subscription) -> None:
        """There is no such subscription any more."""
        for held in (self._full, self._resting):
            if held.get(sub.name) is sub:
                del held[sub.name]
        self._hold()

    @contextmanager
    def awaiting(self) -> Generator[None]:
        """Somebody waits for an answer as long as the block lasts."""
        self._awaited += 1
        self._hold()
        try:
            yield
        finally:
            self._awaited -= 1

    def _hold(self) -> None:
        if self._awaited and self._full:
            for name in self._full:
                self._machine.rest(name)
            self._resting |= self._full
            self._full.clear()
            self._settle()
        self._links.read(not self._full)
