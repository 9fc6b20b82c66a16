"""What happens to a client's connection, as an async iterator."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Self

import anyio
import anyio.lowlevel

from actors.protocol import events as happened

EVENTS_KEPT = 100  # for a slow reader; the oldest are dropped

ClientEvent = happened.ClientState | happened.SubState | happened.GapDetected | happened.Notice


class EventStream(AsyncIterator[ClientEvent]):
    """State changes, detected gaps and notices, for status lines and logs; a slow reader loses the oldest."""

    def __init__(self) -> None:
        self._events: deque[ClientEvent] = deque(maxlen=EVENTS_KEPT)
        self._news = anyio.Event()

    def put(self, event: ClientEvent) -> None:
        """Tell the reader. For the client only."""
        self._events.append(event)
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ClientEvent:
        """The next event."""
        await anyio.lowlevel.checkpoint()
        while not self._events:
            self._news = anyio.Event()
            await self._news.wait()
        return self._events.popleft()
