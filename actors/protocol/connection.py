"""What a client machine keeps per subscription and per socket."""

from __future__ import annotations

import attrs

from actors.filters import Filter
from actors.protocol import messages as wire
from actors.protocol.backoff import WINDOW_MS
from actors.protocol.coverage import Coverage
from actors.protocol.cursor import Since


@attrs.define(eq=False, kw_only=True)
class Subscription:
    """One subscription: what the application wants, and how far this connection is with it."""

    name: str
    filter: Filter
    since: Since
    on_gap: wire.OnGap
    coverage: Coverage = attrs.Factory(Coverage)
    request: int | None = None  # the id of the `sub` (or `hello`) whose answer is awaited
    retry_at: float | None = None
    lost_at: float | None = None  # when this connection last lost a frame of it

    def message(self, request: int | None) -> wire.Sub:
        """The `sub` that asks for it; without an id inside `hello`."""
        return wire.Sub(id=request, s=self.name, filter=self.filter, since=self.wanted(), on_gap=self.on_gap)

    def wanted(self) -> Since:
        """Where to begin: at the cursor once there is one."""
        return self.coverage.cursor or self.since


@attrs.define(eq=False, kw_only=True)
class Connection:
    """One socket's timers, limits and request counter, from the moment it is asked for."""

    open_by: float | None  # when it must have been welcomed; None once it was
    opened: bool = False
    welcomed_at: float | None = None
    requests: int = 0
    heard_at: float = 0
    ping_at: float | None = None
    ping_ms: int = 0
    dead_ms: int = 0
    message_bytes: int = 0
    window: tuple[float, float] = WINDOW_MS
    trouble: str = ""  # the last err about the connection, for the words of a terminal close

    def next_request(self) -> int:
        """The id of the next request of this connection."""
        self.requests += 1
        return self.requests
