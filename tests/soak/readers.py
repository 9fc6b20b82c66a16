"""The clients of a soak, and what each is to be told: every signal of its filter once, in order, as acknowledged."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import attrs
import trio

from actors.client import Gap, Signal, SignalClient
from actors.client.address import Address
from actors.client.transport import Connect
from actors.client.websocket import websocket_connect

ENTITIES = 7
FILTERED_EVERY = 4  # each fourth reader follows one entity
STALL_S = 30.0
STALL_EVERY = 5  # signals between two stalls
STALLED_BUFFER = 4  # signals that a stalled reader's client takes before it leaves its socket alone
STALLED_RECEIVE_BYTES = 4_096  # without these two the kernels of both sides take in megabytes for a reader that
STALLED_SEGMENT_BYTES = 536  # does not read, because segments on the loopback have 64 KiB


@attrs.define(eq=False)
class Told:
    """What publishers were answered and readers were told about each offset; contradictions are violations."""

    ids: dict[int, str] = attrs.field(factory=dict)
    per_entity: dict[str, int] = attrs.field(factory=dict)
    acknowledged: dict[str, int] = attrs.field(factory=dict)
    violations: list[str] = attrs.field(factory=list)
    violation_count: int = 0

    def violated(self, what: str) -> None:
        """Count it; the first hundred are kept."""
        self.violation_count += 1
        if len(self.violations) < 100:
            self.violations.append(what)

    def is_at(self, offset: int, id_: str) -> None:
        """An offset has one content for ever."""
        if (known := self.ids.get(offset)) is None:
            self.ids[offset] = id_
            self.per_entity[entity_of(id_)] = self.per_entity.get(entity_of(id_), 0) + 1
        elif known != id_:
            self.violated(f"offset {offset} was {known} and is {id_}")


@attrs.define(eq=False)
class Reader:
    """One client and its one subscription.

    Attributes:
        entity: the only one it follows; None for all.
        stalls: whether it keeps leaving its socket unread.
        received: signals. last: offset of the newest. sockets: connections that it has opened.
    """

    number: int
    told: Told
    entity: str | None
    stalls: bool
    received: int = 0
    last: int = 0
    sockets: int = 0

    async def read(self, url: str, ready: Callable[[], None], calm: trio.Event) -> None:
        """Read for ever; from `calm` on without stalls."""
        with_buffer: dict[str, Any] = {"buffer": STALLED_BUFFER} if self.stalls else {}
        if self.entity is not None:
            with_buffer["entities"] = [self.entity]
        connect = _small_window() if self.stalls else None
        async with SignalClient(url, name=f"soak {self.number}", connect=connect) as client:
            async with client.subscribe(since="earliest", on_gap="fail", **with_buffer) as signals:
                ready()
                async for item in signals:
                    self.take(item)
                    self.sockets = client.stats.sockets
                    if self.stalls and self.received % STALL_EVERY == 0:
                        with trio.move_on_after(STALL_S):
                            await calm.wait()

    def matching(self, told: Told) -> int:
        """How many of the known signals match its filter."""
        return len(told.ids) if self.entity is None else told.per_entity.get(self.entity, 0)

    def take(self, item: Signal | Gap) -> None:
        """Look at what came next."""
        if isinstance(item, Gap):
            self.told.violated(f"reader {self.number}: a gap after {item.after} up to {item.upto} ({item.reason})")
            return
        if item.o <= self.last:
            self.told.violated(f"reader {self.number}: offset {item.o} after {self.last}")
        if self.entity not in (None, item.entity):
            self.told.violated(f"reader {self.number}: {item.entity} is not {self.entity}")
        self.told.is_at(item.o, item.id)
        self.received += 1
        self.last = max(self.last, item.o)


def fleet(clients: int, stalled_share: float, told: Told) -> list[Reader]:
    """So many readers, of which a share stalls; both kinds have some that follow one entity."""
    stalled = round(clients * stalled_share)
    return [
        Reader(
            number,
            told,
            entity=None if number % FILTERED_EVERY else f"e{number % ENTITIES}",
            stalls=number < stalled,
        )
        for number in range(clients)
    ]


def check(readers: list[Reader], told: Told) -> None:
    """After the end: what was acknowledged is in the log once, and every reader had all of its filter.

    A reader whose offsets rise, whose contents are those of the log and who has as many as match has each once.
    """
    by_id = {id_: offset for offset, id_ in told.ids.items()}
    if len(by_id) != len(told.ids):
        told.violated(f"{len(told.ids) - len(by_id)} signals are in the log twice")
    for id_, offset in told.acknowledged.items():
        if by_id.get(id_) != offset:
            told.violated(f"{id_} was acknowledged at {offset} and is at {by_id.get(id_)}")
    for reader in readers:
        wanted = reader.matching(told)
        if reader.received != wanted:
            told.violated(f"reader {reader.number}: {reader.received} signals, {wanted} match its filter")


def entity_of(id_: str) -> str:
    """The entity that a publication of this id is about."""
    return f"e{int(id_.rpartition('-')[2]) % ENTITIES}"


def _small_window() -> Connect:
    return websocket_connect(_open_small)


async def _open_small(address: Address) -> trio.abc.Stream:
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, STALLED_RECEIVE_BYTES
        )  # before connect: it sets the window
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, STALLED_SEGMENT_BYTES)
        await sock.connect((address.host, address.port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)
