"""Source `websocket`: an upstream WebSocket of JSON messages, resumed by its own sequence where it has one."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from actors.ingest.link import Link, LinkClosed, OpenStream, Target, open_stream
from actors.ingest.mapping import ItemMapping, NoSignal
from actors.ingest.options import Options
from actors.ingest.pointer import NothingThere, Pointer
from actors.ingest.source import (
    BATCH_SIGNALS,
    Batch,
    Gathering,
    InvalidCursor,
    InvalidOptions,
    Rejected,
    Source,
    SourceFailed,
    World,
)
from runtime import Secret

BUSY_S = 1.0  # how long one run follows a stream that does not pause
SEQUENCE = "{sequence}"
_NOWHERE = "nowhere"  # the cursor of no position, before anything was fetched


@attrs.frozen(kw_only=True)
class Place:
    """What is in the cursor: how many messages were taken, and the sequence of the last one that had any."""

    count: int = 0
    sequence: Any = None

    @classmethod
    def parse(cls, cursor: str | None) -> Place:
        """Read what `cursor` wrote. Raises: InvalidCursor."""
        if cursor is None:
            return cls()
        try:
            count, sequence = json.loads(cursor)
            return cls(count=int(count), sequence=sequence)
        except (ValueError, TypeError) as error:
            raise InvalidCursor(
                f"the stored place is not one of a WebSocket ({error}); give the source another name"
            ) from None

    @property
    def cursor(self) -> str:
        """For the stream to keep."""
        return json.dumps([self.count, self.sequence], separators=(",", ":"))

    def is_behind(self, sequence: Any) -> bool:
        """Whether a message of this sequence was taken already."""
        if sequence is None or self.sequence is None:
            return False
        if isinstance(sequence, int | float) and isinstance(self.sequence, int | float):
            return sequence <= self.sequence
        return bool(sequence == self.sequence)


@attrs.define(eq=False)
class WebSocket:
    """Its connection is kept from one fetch to the next.

    A message counts as taken when its cursor comes back. Until then it is offered again, over a new connection if the
    stream can be resumed.

    Args:
        subscribe: the text that is sent first. resume: sent instead once there is a sequence to go on from.
        sequence: where a message has its sequence. only: messages that have nothing there are passed over.
        wait_s: how long one fetch waits for a message.
    """

    world: World
    target: Target
    headers: Mapping[str, Secret]
    subscribe: str
    resume: str
    sequence: Pointer | None
    only: Pointer | None
    wait_s: float
    mapping: ItemMapping
    open_stream: OpenStream
    _link: Link | None = attrs.field(default=None, init=False)
    _at: str | None = attrs.field(default=_NOWHERE, init=False)
    _offered: tuple[str | None, Batch] | None = attrs.field(default=None, init=False)
    _waiting: deque[str] = attrs.field(factory=deque[str], init=False)
    _busy_until: float | None = attrs.field(default=None, init=False)

    async def fetch(self, cursor: str | None) -> Batch:
        """What has arrived; waits for the first message. Raises: SourceFailed, InvalidCursor."""
        if self._offered is not None and self._offered[0] == cursor:
            return self._offered[1]
        place = Place.parse(cursor)
        if self._busy_until is None:
            self._busy_until = trio.current_time() + BUSY_S
        try:
            if self._link is None or self._at != cursor:
                await self._connect(place)
                self._at = cursor
            await self._receive()
        except LinkClosed as closed:
            await self._drop()
            if not self._waiting:
                self._busy_until = None
                raise SourceFailed(str(closed)) from None
        batch = self._batch(place)
        more = bool(self._waiting) or (bool(batch.signals) and trio.current_time() < self._busy_until)
        if not more:
            self._busy_until = None
        batch = attrs.evolve(batch, more=more)
        if batch.cursor != cursor:
            self._offered = (cursor, batch)
            self._at = batch.cursor
        return batch

    async def _connect(self, place: Place) -> None:
        await self._drop()
        self._waiting.clear()
        headers = {name: value.value for name, value in self.headers.items()}
        link = await Link.open(self.target, headers=headers, open_stream=self.open_stream)
        self._link = link
        text = self.subscribe
        if self.resume and place.sequence is not None:
            text = self.resume.replace(SEQUENCE, json.dumps(place.sequence))
        if text:
            await link.send(text)

    async def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    async def _receive(self) -> None:
        """Take in what is there, waiting for the first message only."""
        assert self._link is not None
        if not self._waiting:
            with trio.move_on_after(self.wait_s):
                self._waiting.append(await self._link.receive())
        while len(self._waiting) < BATCH_SIGNALS and (text := self._link.receive_now()) is not None:
            self._waiting.append(text)

    def _batch(self, place: Place) -> Batch:
        gathering, rejected = Gathering(), list[Rejected]()
        while self._waiting:
            message = self._signals(self._waiting[0], place, rejected)
            if message is None:
                self._waiting.popleft()
                continue
            sequence, drafts = message
            if not all(gathering.has_room(draft) for draft in drafts) or (
                len(gathering.signals) + len(drafts) > BATCH_SIGNALS
            ):
                if gathering.signals:
                    break
                rejected.append(Rejected(f"message {place.count + 1}", "its signals do not fit a batch"))
                drafts = []
            self._waiting.popleft()
            for draft in drafts:
                gathering.add(draft)
            place = Place(count=place.count + 1, sequence=place.sequence if sequence is None else sequence)
        return Batch(place.cursor, tuple(gathering.signals), rejected=tuple(rejected))

    def _signals(self, text: str, place: Place, rejected: list[Rejected]) -> tuple[Any, list[Any]] | None:
        """The sequence of a message and its signals; None for one that does not count."""
        where = f"message {place.count + 1}"
        try:
            message: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            rejected.append(Rejected(where, f"not JSON: {error}"))
            return None, []
        if self.only is not None and not _has(self.only, message):
            return None
        sequence = None if self.sequence is None or not _has(self.sequence, message) else self.sequence.read(message)
        if place.is_behind(sequence):
            return None
        drafts: list[Any] = []
        try:
            values = self.mapping.split(message)
        except NoSignal as error:
            rejected.append(Rejected(where, str(error)))
            return sequence, []
        for index, value in enumerate(values):
            try:
                item = self.mapping.item(value, self.world)
            except NoSignal as error:
                rejected.append(Rejected(f"{where}, item {index}", str(error)))
                continue
            key = f"{place.count + 1}:{index}" if sequence is None else f"{json.dumps(sequence)}:{index}"
            drafts.append(item.draft if item.own else attrs.evolve(item.draft, id=self.world.id(key)))
        return sequence, drafts


def websocket(world: World, options: Mapping[str, Any], open_stream: OpenStream = open_stream) -> Source:
    """A source that follows a WebSocket. Raises: InvalidOptions."""
    read = Options("websocket", options)
    target = Target.parse(read.secret("url").value)
    if target is None:
        raise InvalidOptions("options.url must be a ws: or wss: address")  # not shown: it may have a key
    resume = read.text("resume") if read.has("resume") else ""
    sequence = read.pointer("sequence") if read.has("sequence") else None
    if resume and (SEQUENCE not in resume or sequence is None):
        raise read.wrong("resume", f"must have {SEQUENCE} in it, and options.sequence must say where to find one")
    source = WebSocket(
        world=world,
        target=target,
        headers=read.secret_table("headers"),
        subscribe=read.text("subscribe") if read.has("subscribe") else "",
        resume=resume,
        sequence=sequence,
        only=read.pointer("only") if read.has("only") else None,
        wait_s=read.number("wait_s", 1, 0.01, 20),
        mapping=ItemMapping.of(read, entity=world.name),
        open_stream=open_stream,
    )
    read.done()
    return source


def _has(pointer: Pointer, message: object) -> bool:
    try:
        pointer.read(message)
    except NothingThere:
        return False
    return True
