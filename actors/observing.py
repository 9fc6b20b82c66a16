"""What an operator sees of a shard."""

from __future__ import annotations

import attrs

from actors.measures import Distribution
from actors.protocol.limits import Limits
from actors.session import Connection
from actors.shard_connections import ShardConnections
from runtime import Context

AT_ONCE = 256  # connections that are looked at before others get a moment
SLOW_SHARE = 4  # what part of its backlog's limit is on its way to a client that is called slow


@attrs.frozen(kw_only=True)
class ShardView:
    """One shard: its connections now, and its totals since its instance began.

    Attributes:
        hello: connections that have not said hello yet. leaving: the shard sends all of its clients elsewhere.
        slow: clients that read too slowly now: their subscriptions wait, or a quarter of their backlog's limit is used.
        slowest: the session of the one with the most on its way.
        backlog_bytes: on their way to all clients. handshakes: by the status of the answer.
        closes: by code.
        messages, errors, resumptions, skipped: by kind, slug, result and reason.
        bytes_in, bytes_out: of clients' messages, and of those to clients.
        behind, recovery, lag, end_to_end: see `ShardMeasures`.
    """

    shard: str
    connections: int
    hello: int
    leaving: bool
    slow: int
    slowest: str | None
    backlog_bytes: int
    deliveries: int
    delivered_bytes: int
    resumed: int
    gaps: int
    failed: int
    slowed: int
    opened: int
    handshakes: tuple[tuple[int, int], ...]
    closes: tuple[tuple[int, int], ...]
    fanout: Distribution
    messages: tuple[tuple[str, int], ...]
    errors: tuple[tuple[str, int], ...]
    resumptions: tuple[tuple[str, int], ...]
    skipped: tuple[tuple[str, int], ...]
    conflated: int
    behind: Distribution
    recovery: Distribution
    lag: Distribution
    bytes_in: int
    bytes_out: int
    end_to_end: Distribution


async def observed(ctx: Context, shard: str, connections: ShardConnections) -> ShardView:
    """Look at every connection, with the turn, and let the rest of the server run in between."""
    hello = slow = most = backlog = 0
    slowest: str | None = None
    for n, connection in enumerate(list(connections), 1):
        if n % AT_ONCE == 0:
            await ctx.checkpoint()
        hello += not connection.machine.is_welcomed
        waiting = connection.ws.backlog_bytes
        backlog += waiting
        if is_slow(connection, connections.limits):
            slow += 1
            if waiting >= most:
                most, slowest = waiting, connection.machine.state.session
    measures = connections.groups.measures
    return ShardView(
        shard=shard,
        connections=len(connections),
        hello=hello,
        leaving=connections.departure is not None,
        slow=slow,
        slowest=slowest,
        backlog_bytes=backlog,
        deliveries=measures.deliveries,
        delivered_bytes=measures.delivered_bytes,
        resumed=measures.resumed,
        gaps=measures.gaps,
        failed=measures.failed,
        slowed=measures.slow,
        opened=measures.opened,
        handshakes=tuple(measures.handshakes.items()),
        closes=tuple(measures.closes.items()),
        fanout=Distribution.of(measures.fanout),
        messages=tuple(measures.messages.items()),
        errors=tuple(measures.errors.items()),
        resumptions=tuple(measures.resumptions.items()),
        skipped=tuple(measures.skipped.items()),
        conflated=measures.conflated,
        behind=Distribution.of(measures.behind),
        recovery=Distribution.of(measures.recovery),
        lag=Distribution.of(measures.lag),
        bytes_in=measures.heard_bytes,
        bytes_out=measures.delivered_bytes + measures.told_bytes,
        end_to_end=Distribution.of(measures.end_to_end),
    )


def is_slow(connection: Connection, limits: Limits) -> bool:
    """It reads too slowly now."""
    if connection.ws.backlog_bytes >= limits.backlog_bytes // SLOW_SHARE:
        return True
    return connection.careful and any(sub.slow for sub in connection.machine.state.subs.values())
