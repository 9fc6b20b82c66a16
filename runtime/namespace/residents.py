"""Who is in memory without anything to do, the longest first; an event of an actor costs nothing here."""

from __future__ import annotations

import heapq
from itertools import count

from runtime.namespace.container import Container


class IdleOrder:
    """Actors in memory in the order in which they became idle, sorted no earlier than somebody asks.

    An entry says since when its actor was idle when it was put in or last looked at. An actor with an entry gets no
    other, and being busy takes none away: whoever comes to the front and is found busy or newer is put right then.

    Args:
        bit: marks its entries in `Container.listed`, as no other order does.
    """

    def __init__(self, bit: int) -> None:
        self._bit = bit
        self._heap: list[tuple[float, int, Container]] = []
        self._ages = count()

    def __bool__(self) -> bool:
        return bool(self._heap)

    def note(self, container: Container) -> None:
        """It is idle, since `container.idle_since`."""
        if not container.listed & self._bit:
            container.listed |= self._bit
            heapq.heappush(self._heap, (container.idle_since, next(self._ages), container))

    def longest(self) -> Container | None:
        """Who is idle for the longest time."""
        while self._heap:
            since, _, container = self._heap[0]
            if container.cell is None or not container.cell.idle:
                heapq.heappop(self._heap)
                container.listed &= ~self._bit
            elif container.idle_since != since:
                heapq.heapreplace(self._heap, (container.idle_since, next(self._ages), container))
            else:
                return container
        return None
