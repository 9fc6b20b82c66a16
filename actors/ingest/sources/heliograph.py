"""Source `heliograph`: follows the stream of another Heliograph by cursor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import trio

from actors.client.address import Address
from actors.client.errors import InvalidUrl
from actors.filters import Filter, InvalidFilter
from actors.ingest.link import Link, LinkClosed, OpenStream, Target, open_stream
from actors.ingest.options import Options
from actors.ingest.source import Batch, Gathering, InvalidCursor, Rejected, Source, SourceFailed, World
from actors.protocol.client import ClientMachine
from actors.protocol.cursor import Cursor, Since
from actors.protocol.cursor import InvalidCursor as NoCursor
from actors.protocol.events import Event, Gap, Open, Signals, SubState
from actors.signals import Draft, InvalidSignal, Signal
from runtime import Secret

BUSY_S = 1.0
SUBPROTOCOL = "signals.v1.json"
_SUB = "upstream"
_NOWHERE = "nowhere"


@attrs.define(eq=False)
class Heliograph:
    """It runs the client machine of `signals.v1`, over a socket that is kept from one fetch to the next.

    Signals keep their ids, so that one which comes in two ways within `dedup_s` is stored once.

    Args:
        since: where to begin with no stored place: "earliest" or "now".
    """

    world: World
    address: Address
    token: Secret | None
    filter: Filter
    since: Literal["earliest", "now"]
    wait_s: float
    open_stream: OpenStream
    _machine: ClientMachine | None = attrs.field(default=None, init=False)
    _link: Link | None = attrs.field(default=None, init=False)
    _opening: bool = attrs.field(default=False, init=False)
    _at: str | None = attrs.field(default=_NOWHERE, init=False)
    _offered: tuple[str | None, Batch] | None = attrs.field(default=None, init=False)
    _arrived: list[Signals | Gap] = attrs.field(factory=list[Signals | Gap], init=False)
    _start: str = attrs.field(default="", init=False)
    _failure: str = attrs.field(default="", init=False)
    _busy_until: float | None = attrs.field(default=None, init=False)

    async def fetch(self, cursor: str | None) -> Batch:
        """What has arrived; waits for the first of it. Raises: SourceFailed, InvalidCursor."""
        if self._offered is not None and self._offered[0] == cursor:
            return self._offered[1]
        machine = self._machine
        if machine is None or self._at != cursor:
            machine = await self._begin(cursor)
        if self._busy_until is None:
            self._busy_until = trio.current_time() + BUSY_S
        try:
            await self._follow(machine)
        except SourceFailed:
            self._busy_until = None
            raise
        batch = self._batch(cursor)
        more = bool(self._arrived) or (bool(batch.signals) and trio.current_time() < self._busy_until)
        if not more:
            self._busy_until = None
        batch = attrs.evolve(batch, more=more)
        if batch.cursor != cursor:
            self._offered = (cursor, batch)
            self._at = batch.cursor
        return batch

    async def _begin(self, cursor: str | None) -> ClientMachine:
        """A new machine from here; whatever another one had is forgotten."""
        await self._drop()
        self._arrived.clear()
        try:
            since: Since = self.since if not cursor else Cursor.parse(cursor)
        except NoCursor as error:
            raise InvalidCursor(f"the stored place is no cursor ({error}); give the source another name") from None
        self._machine = machine = ClientMachine(self.world.random, features=())  # one socket at a time
        machine.subscribe(_SUB, self.filter, since, "skip")
        self._at = cursor
        self._failure = ""
        self._apply(machine.start(_now_ms()))
        return machine

    async def _drop(self) -> None:
        link, self._link, self._machine = self._link, None, None
        if link is not None:
            await link.aclose()

    async def _follow(self, machine: ClientMachine) -> None:
        until = trio.current_time() + self.wait_s
        # Nobody read since the last fetch: that silence is ours.
        self._apply(machine.tick(_now_ms(), reading=False))
        while not self._arrived and trio.current_time() < until:
            if self._failure:
                failure = self._failure
                await self._drop()
                raise SourceFailed(failure)
            if self._opening:
                await self._open(machine)
            else:
                await self._exchange(machine, until)
            self._apply(machine.tick(_now_ms()))
        if self._link is None and machine.state.state == "reconnecting" and not self._arrived:
            raise SourceFailed(f"{self.address}: {machine.state.reason or 'no connection'}")

    async def _open(self, machine: ClientMachine) -> None:
        self._opening = False
        address = self.address
        token = None if self.token is None else self.token.value
        try:
            self._link = await Link.open(
                Target(address.host, address.port, address.resource, address.tls),
                headers={} if token is None else {"authorization": f"Bearer {token}"},
                subprotocols=[SUBPROTOCOL],
                open_stream=self.open_stream,
            )
        except LinkClosed as closed:
            self._apply(machine.closed(closed.code, _now_ms(), reason=str(closed), status=closed.status))
            return
        machine.opened(_now_ms(), token)

    async def _exchange(self, machine: ClientMachine, until: float) -> None:
        """Send what is to be sent and take in a message, or wait for the machine's next deadline."""
        due_ms = machine.next_deadline_ms
        if due_ms is not None:
            until = min(until, due_ms / 1000 + 1e-6)
        link = self._link
        with trio.move_on_at(until):
            if link is None:
                await trio.sleep(until - trio.current_time())
                return
            try:
                for text in machine.texts_to_send():
                    await link.send(text)
                self._apply(machine.receive(await link.receive(), _now_ms()))
            except LinkClosed as closed:
                self._link = None
                await link.aclose()
                self._apply(machine.closed(closed.code, _now_ms(), reason=str(closed)))

    def _apply(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Open():
                    self._opening = True
                case Signals() | Gap():
                    self._arrived.append(event)
                case SubState(state="catchup") if event.since is not None:
                    self._start = self._start or str(event.since)
                case SubState(state="failed"):
                    self._failure = f"the subscription was refused: {event.reason} ({event.code})"
                case _:
                    pass
        if self._machine is not None and self._machine.state.state == "closed" and self._machine.state.terminal:
            self._failure = f"{self.address}: {self._machine.state.reason or 'closed for good'}"

    def _batch(self, cursor: str | None) -> Batch:
        gathering, rejected, reached = Gathering(), list[Rejected](), cursor or self._start
        while self._arrived:
            event = self._arrived[0]
            if isinstance(event, Gap):
                rejected.append(
                    Rejected("upstream", f"signals after {event.a} up to {event.b} are lost: {event.reason}")
                )
                if event.epoch is not None and event.c is not None:
                    reached = str(Cursor(event.epoch, event.c))
                self._arrived.pop(0)
                continue
            for number, signal in enumerate(event.signals):
                draft = _draft(signal, rejected)
                if draft is not None and not gathering.has_room(draft):
                    self._arrived[0] = attrs.evolve(event, signals=event.signals[number:])
                    return Batch(reached, tuple(gathering.signals), rejected=tuple(rejected))
                if draft is not None:
                    gathering.add(draft)
                reached = str(Cursor(event.epoch, signal.o))
            reached = str(Cursor(event.epoch, event.c))
            self._arrived.pop(0)
        return Batch(reached, tuple(gathering.signals), rejected=tuple(rejected))


def heliograph(world: World, options: Mapping[str, Any], open_stream: OpenStream = open_stream) -> Source:
    """A source that follows another Heliograph. Raises: InvalidOptions."""
    read = Options("heliograph", options)
    try:
        address = Address.parse(read.text("url"))
    except InvalidUrl as error:
        raise read.wrong("url", str(error)) from None
    try:
        filter_ = Filter.parse(dict(read.table("filter") or {}))
    except InvalidFilter as error:
        raise read.wrong("filter", f"{error} (at {error.at or '/'})") from None
    source = Heliograph(
        world=world,
        address=address,
        token=read.secret("token") if read.has("token") else None,
        filter=filter_,
        since="now" if read.choice("since", ("earliest", "now")) == "now" else "earliest",
        wait_s=read.number("wait_s", 1, 0.01, 20),
        open_stream=open_stream,
    )
    read.done()
    return source


def _draft(signal: Signal, rejected: list[Rejected]) -> Draft | None:
    try:
        return Draft.of(signal.type, signal.entity, signal.data, id=signal.id, tags=signal.tags)
    except InvalidSignal as error:
        rejected.append(Rejected(f"upstream offset {signal.o}", str(error)))
        return None


def _now_ms() -> float:
    return trio.current_time() * 1000
