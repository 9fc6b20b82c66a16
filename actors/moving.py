"""How a shard's clients are sent elsewhere: asked a few at a time, served until their time is over, then closed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import attrs
import trio

from actors.protocol.codes import CloseCode
from actors.protocol.messages import Goaway
from actors.session import Connection
from actors.settings import ConnectionSettings

STEP_S = 0.1  # between two batches
ASKING_S_MAX = 60.0  # the rate is raised when asking everybody would take longer
RETURN_MS = 1_000  # the window in which clients without a hand-over come back


@attrs.define(eq=False)
class Departure:
    """Sends connections of one shard elsewhere, at most so many in a second that whoever takes them can cope.

    A client that knows `goaway` is told, and goes on being served for `handover_s`: it opens its next connection
    first, and leaves this one when it has everything there. Any other is closed when its turn comes, and resumes.

    Args:
        connections: who is to go. code: what they are closed with.
        settings: how many in a second, and how long they are served. shards: that share the rate.
    """

    connections: Iterable[Connection]
    code: CloseCode
    settings: ConnectionSettings
    shards: int
    _waiting: deque[Connection] = attrs.field(init=False)
    _leaving: deque[tuple[float, Connection]] = attrs.field(factory=deque, init=False)
    _batch: int = attrs.field(init=False)
    _text: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._waiting = deque(self.connections)
        per_s = max(self.settings.moves_per_s / self.shards, len(self._waiting) / ASKING_S_MAX)
        self._batch = max(1, math.ceil(per_s * STEP_S))
        self._text = self._goaway().encode()

    def step(self) -> bool:
        """Ask the next ones, close those whose time is over; False when nobody is left. To be called every `STEP_S`."""
        now = trio.current_time()
        for _ in range(min(self._batch, len(self._waiting))):
            connection = self._waiting.popleft()
            moves = connection.machine.state.moves
            if moves:
                connection.send(self._text)
            self._leaving.append((now + (self.settings.handover_s if moves else 0.0), connection))
        leaving, self._leaving = self._leaving, deque()
        for due, connection in leaving:
            if connection.closed:
                continue
            if due <= now:
                connection.close(self.code, self._words)
            else:
                self._leaving.append((due, connection))
        return bool(self._waiting or self._leaving)

    @property
    def _words(self) -> str:
        return self.code.name.lower()

    def _goaway(self) -> Goaway:
        stays_ms = round(self.settings.handover_s * 1000)
        return Goaway(
            reason=self._words,
            after_ms=(0, stays_ms // 2 or RETURN_MS),
            deadline_ms=stays_ms,
            url=self.settings.move_to or None,
        )
