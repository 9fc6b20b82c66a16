"""What live actors have around them: the services of the server, and the container that keeps each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import attrs
import structlog

from runtime.actor.facets import Facets
from runtime.actor.socket_table import SocketTable
from runtime.actor.workers import Workers
from runtime.ids import ActorId
from runtime.platform import Platform
from runtime.storage.backend import Backend
from runtime.storage.store import Store
from runtime.timers import Timers

if TYPE_CHECKING:
    from runtime.actor.cell import Cell


@attrs.frozen(kw_only=True)
class Services:
    """What every actor of a server shares.

    Attributes:
        backends: where the storage of each kind of class lives, by `Actor.storage`.
        workers: what runs handlers.
        alarm_changed: tells the alarm index about a durable change.
    """

    platform: Platform
    store: Store
    backends: Mapping[str, Backend]
    timers: Timers
    workers: Workers
    alarm_changed: Callable[[ActorId, float | None], None]
    log: structlog.stdlib.BoundLogger


class Owner(Protocol):
    """What keeps a cell: the actor's container."""

    @property
    def sockets(self) -> SocketTable:
        """The actor's sockets."""
        ...

    def facets(self, cell: Cell, /) -> Facets:
        """What `ctx.facets` is for an instance."""
        ...

    def clearing(self, cell: Cell, /) -> None:
        """An instance deletes everything that it has stored."""
        ...

    def cut_sockets(self) -> None:
        """Drop every connection."""
        ...

    def cell_idle(self) -> None:
        """Nothing runs and nothing is pending."""
        ...

    def cell_broken(self) -> None:
        """The instance was destroyed."""
        ...

    def cell_settled(self) -> None:
        """The sealed batches of a destroyed instance have ended."""
        ...
