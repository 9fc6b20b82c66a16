"""The Python SDK: one connection to a signal service, kept alive, with subscriptions and publications on it."""

from __future__ import annotations

import math
import random as randomness
import re
import secrets
import ssl
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc
import attrs

from actors.client.address import DEFAULT_URL, Address
from actors.client.buffer import AckWhen, Buffer, Overflow
from actors.client.conditions import Condition
from actors.client.cursor_store import CursorStore
from actors.client.cursors import Cursors
from actors.client.errors import ClientClosed, PublishRefused, ReadRefused, SubscriptionFailed
from actors.client.event_stream import ClientEvent, EventStream
from actors.client.flow import Flow
from actors.client.history import History
from actors.client.links import Links, Token, now_ms
from actors.client.subscription import Subscription
from actors.client.transport import Connect
from actors.client.websocket import default_connect
from actors.client.wishes import check_choices, filter_of, history_since_of, min_ms_of, since_of
from actors.filters import Filter
from actors.protocol import events as happened
from actors.protocol.client import ClientMachine
from actors.protocol.codes import close_name
from actors.protocol.cursor import Since
from actors.protocol.encoding import ENCODINGS, EncodingName
from actors.protocol.limits import HISTORY_LIMIT, HISTORY_LIMIT_MAX
from actors.protocol.requests import Change, ClientInfo, Mode, OnGap, OnSlow
from actors.signals import Draft

READ_AGAIN_MS = 1_000

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_VERSION = version("heliograph")

Delivery = happened.Signals | happened.Snap | happened.Gap | happened.SubState


@attrs.frozen
class Ack:
    """A publication is stored: its place in the stream, and whether it had been stored before."""

    id: str
    offset: int
    epoch: str
    dup: bool


@attrs.frozen(kw_only=True)
class ClientStats:
    """Counts since the client was made, and what waits now.

    Attributes:
        sockets: that were opened. frames: text frames that came. signals: that came for subscriptions, once for each.
        gaps: that the server told of. published: publications that were answered.
        publishing: publications that wait for an answer. waiting: items that wait for the application.
        dropped: signals that gave way to a `Gap` of a full buffer, of the subscriptions that there are.
        replaced: signals that gave way to newer ones, of those.
    """

    sockets: int
    frames: int
    signals: int
    gaps: int
    published: int
    publishing: int
    waiting: int
    dropped: int
    replaced: int


@attrs.define(eq=False)
class _Asking:
    """A request that waits for its answer."""

    answered: anyio.Event = attrs.field(factory=anyio.Event)
    outcome: happened.Published | happened.PublishRefused | happened.PageRead | happened.ReadRefused | None = None


class SignalClient:
    """A client of a signal service, under Trio and under asyncio.

    `async with SignalClient(url) as client` connects in the background, and reconnects (with full jitter, resuming
    where it was) until the block ends or the server says that there is no point. Subscriptions and publications made
    while there is no connection wait for one.

    Args:
        url: `http(s):`, `ws(s):` or `host:port`.
        token: sent as `Authorization: Bearer` and in `hello`; a function is asked before each connection.
        random: draws the jitter; give a seeded one for repeatable tests.
        connect: opens a socket; under asyncio the default needs `heliograph[asyncio]`.
        ssl_context: of `wss` and `https`, where no `connect` is given; None trusts whom the system trusts.
        new_id: makes the ids of publications that have none.
        name: how operators see this client.
        stream: the name of a stream; None for the one of the URL, which mostly is the only one there is.
        encoding: of the frames: "json", or "msgpack" for MessagePack, which a server may not have.
        cursor_store: where subscriptions with a name go on after a restart; written at most every 0.5 s and at the end.

    Raises: InvalidUrl, ValueError.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: Token | None = None,
        random: randomness.Random | None = None,
        connect: Connect | None = None,
        ssl_context: ssl.SSLContext | None = None,
        new_id: Callable[[], str] | None = None,
        name: str = "",
        stream: str | None = None,
        encoding: EncodingName = "json",
        cursor_store: CursorStore | None = None,
    ) -> None:
        if encoding not in ENCODINGS:
            raise ValueError(f"encoding is {encoding!r}; it is 'json' or 'msgpack'")
        self._new_id = new_id or _new_id
        info = ClientInfo(name=name, version=_VERSION, sdk="python")
        jitter = (random or randomness.Random()).random  # noqa: S311
        self._machine = ClientMachine(jitter, info, encoding=ENCODINGS[encoding])
        address = Address.parse(url, stream)
        self._links = Links(self._machine, address, connect or default_connect(ssl_context), token, self._happened)
        self._subs: dict[str, Subscription] = {}
        self._flow = Flow(self._machine, self._links, self._settle)
        self._names = self._signals = self._gaps = self._published = 0
        self._asking: dict[tuple[str, int], _Asking] = {}
        self._listeners: list[EventStream] = []
        self._cursors = None if cursor_store is None else Cursors(cursor_store)
        self._timer_until = 0.0
        self._timer_moved = anyio.Event()
        self._failure: ClientClosed | None = None
        self._tasks: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await anyio.create_task_group().__aenter__()
        self._tasks.start_soon(self._watch_time)
        if self._cursors is not None:
            self._tasks.start_soon(self._cursors.keep)
        self._happened(self._machine.start(now_ms()))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._tasks is not None
        self._happened(self._machine.stop())
        self._tasks.cancel_scope.cancel()
        try:
            return await self._tasks.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            if error is not None and group.exceptions == (error,):
                return False  # the block's own exception, and nothing else: no group around it
            raise
        finally:
            if self._cursors is not None:
                await self._cursors.finish()

    @property
    def state(self) -> happened.ClientState:
        """Where the connection is: connecting, connected, resuming, reconnecting, draining or closed."""
        return self._machine.state

    @property
    def rtt(self) -> float | None:
        """Seconds that the last answer to a greeting or a ping took; None while there is no connection."""
        rtt_ms = self._machine.rtt_ms
        return None if rtt_ms is None else rtt_ms / 1000

    @property
    def stats(self) -> ClientStats:
        """What this client has done, and what waits."""
        subs = self._subs.values()
        return ClientStats(
            sockets=self._links.opened,
            frames=self._links.frames,
            signals=self._signals,
            gaps=self._gaps,
            published=self._published,
            publishing=sum(kind == "publish" for kind, _ in self._asking),
            waiting=sum(sub.waiting for sub in subs),
            dropped=sum(sub.dropped for sub in subs),
            replaced=sum(sub.replaced for sub in subs),
        )

    def subscribe(
        self,
        *,
        types: Sequence[str] | None = None,
        entities: Sequence[str] | None = None,
        where: Condition | Mapping[str, Any] | None = None,
        since: Since | str = "now",
        on_gap: OnGap = "fail",
        mode: Mode = "all",
        min_ms: int | None = None,
        on_slow: OnSlow = "close",
        buffer: int = 1_000,
        overflow: Overflow = "block",
        ack: AckWhen = "taken",
        name: str | None = None,
    ) -> Subscription:
        """A subscription, active inside `async with`.

        Args:
            types: patterns such as `price.>`, `price.*`, `!price.test.>`.
            entities: patterns such as `btc-*`.
            where: conditions on the signal: `F("/data/pct") >= 2.5`, or their tree.
            since: "now", "earliest", `Last(n)`, `Ago(ms)`, a `Cursor` or its text; "snapshot" for the newest signal of
                each type and entity, as `SnapSignal`, and then what follows. A cursor in the client's store counts
                more.
            on_gap: when the cursor is too old: "fail" goes on at the head, "skip" with the oldest that is retained.
                Either way a `Gap` says so.
            mode: "latest" for no more than the newest signal of each type and entity every `min_ms`.
            min_ms: of mode "latest": 20 to 60,000, by default 1,000.
            on_slow: when this client reads too slowly: "close" ends the connection, which resumes without a loss;
                "latest" leaves out what has a newer signal of the same type and entity; "skip" leaves out all, and a
                `Gap` says so. Where one subscription says "close", the connection is closed.
            buffer: how many items may wait for the application, at least 1.
            overflow: when so many wait: "block" stops reading, and the server holds on; "drop_oldest" lets the oldest
                give way to one `Gap` with the reason `slow`; "latest" replaces the waiting signal of the same type and
                entity, and when there are more of those does as "drop_oldest"; "error" ends the subscription.
            ack: when the cursor moves: "taken", when the next item is asked for; "receive", when the signal arrives.
            name: 1–64 of `A-Z a-z 0-9 _ . -`, unique in this client.

        Raises: InvalidFilter, InvalidCursor, ValueError.
        """
        filter_ = filter_of({"types": types, "entities": entities, "where": where})
        check_choices(on_gap=on_gap, on_slow=on_slow, overflow=overflow, ack=ack)
        if buffer < 1:
            raise ValueError(f"buffer is {buffer}; it is at least 1")
        stored = name is not None and self._cursors is not None
        if name is None:
            self._names += 1
            name = f"sub-{self._names}"
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"name is {name!r}; it is 1–64 of A-Z a-z 0-9 _ . -")
        waiting = Buffer(buffer, overflow, ack)
        latest = min_ms_of(mode, min_ms)
        return Subscription(self, name, filter_, since_of(since), on_gap, waiting, latest, on_slow, stored)

    async def publish(
        self,
        type: str,  # noqa: A002 - the protocol's word
        entity: str,
        data: object,
        *,
        id: str | None = None,  # noqa: A002 - the protocol's word
        tags: Mapping[str, str | float | bool] | None = None,
    ) -> Ack:
        """Publish a signal and wait until it is stored, over any number of reconnects.

        Sent again it keeps its id, so it is stored once. A cancelled wait may or may not have published. A full
        subscription of this client is no reason to wait: it rests until the application has read half of it.

        Raises: InvalidSignal, OutboxFull, PublishRefused, ClientClosed.
        """
        draft = Draft.of(type, entity, data, id=id or self._new_id(), tags=tags)
        self._check_open()
        key, events = self._machine.publish(draft)
        try:
            outcome = await self._answer("publish", key, events)
        finally:
            self._machine.forget_publication(key)
        if isinstance(outcome, happened.PublishRefused):
            raise PublishRefused(outcome.code, outcome.slug, outcome.msg)
        assert isinstance(outcome, happened.Published)
        self._published += 1
        return Ack(outcome.id, outcome.o, outcome.epoch, outcome.dup)

    def history(
        self,
        *,
        types: Sequence[str] | None = None,
        entities: Sequence[str] | None = None,
        where: Condition | Mapping[str, Any] | None = None,
        since: Since | str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        page: int = HISTORY_LIMIT,
    ) -> History:
        """What is stored and matches, up to the newest signal there is when the last page is read: `async for`.

        Args:
            types, entities, where: as for `subscribe`.
            since: "earliest", `Last(n)`, `Ago(ms)`, a `Cursor` or its text; in reverse "now" or a cursor, which is
                then the first that may come. By default "earliest", in reverse "now".
            reverse: newest first.
            limit: the most signals, at least 1.
            page: how many to ask for at once, 1 to 500.

        Raises: InvalidFilter, InvalidCursor, ValueError.
        """
        filter_ = filter_of({"types": types, "entities": entities, "where": where})
        at = history_since_of(since, reverse=reverse)
        if not 1 <= page <= HISTORY_LIMIT_MAX:
            raise ValueError(f"page is {page}; it is 1 … {HISTORY_LIMIT_MAX}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}; it is at least 1")
        return History(self._page, filter_, at, reverse, math.inf if limit is None else limit, page)

    @contextmanager
    def events(self) -> Generator[EventStream]:
        """State changes, detected gaps and notices, as long as the block lasts: `async for event in events`."""
        stream = EventStream()
        self._listeners.append(stream)
        try:
            yield stream
        finally:
            self._listeners.remove(stream)

    # --- for Subscription ----------------------------------------------------------------------------------

    def declare(self, sub: Subscription) -> None:
        """Begin a subscription. Raises: ClientClosed, ValueError when the name is in use."""
        self._check_open()
        if sub.name in self._subs:
            raise ValueError(f"a subscription named {sub.name!r} is active already")
        self._subs[sub.name] = sub
        self._machine.subscribe(sub.name, sub.filter, sub.since, sub.on_gap, sub.min_ms, sub.on_slow)
        self._settle()

    def change(self, sub: Subscription, change: Change) -> None:
        """Change a subscription. Raises: ClientClosed, anyio.ClosedResourceError outside its block."""
        self._check_open()
        if self._subs.get(sub.name) is not sub:
            raise anyio.ClosedResourceError("the subscription's block has not begun, or has ended")
        self._machine.modify(sub.name, change)
        self._settle()

    def filter_of(self, name: str) -> Filter:
        """The filter that is in force."""
        return self._machine.filter_of(name)

    def take_back(self, sub: Subscription) -> None:
        """End a subscription."""
        if self._subs.get(sub.name) is sub:
            del self._subs[sub.name]
            self._machine.unsubscribe(sub.name)
        self._flow.forget(sub)
        self._settle()

    @property
    def flow(self) -> Flow:
        """What full buffers hold up."""
        return self._flow

    @property
    def cursors(self) -> Cursors:
        """What stores cursors."""
        assert self._cursors is not None, "the client has no cursor store"
        return self._cursors

    # --- tasks ---------------------------------------------------------------------------------------------

    async def _watch_time(self) -> None:
        """What is due by the machine's timers."""
        while True:
            due = self._machine.next_deadline_ms
            # A microsecond late rather than early: a rounded clock must not find nothing due, again and again.
            self._timer_until = math.inf if due is None else due / 1000 + 1e-6
            self._timer_moved = anyio.Event()
            with anyio.CancelScope(deadline=self._timer_until):
                await self._timer_moved.wait()
            self._happened(self._machine.tick(now_ms(), reading=self._links.reads))

    # --- small steps ---------------------------------------------------------------------------------------

    async def _answer(self, kind: str, key: int, events: list[happened.Event]) -> object:
        """Wait for the outcome of a request. Raises: ClientClosed."""
        asking = self._asking[kind, key] = _Asking()
        try:
            self._happened(events)
            with self._flow.awaiting():
                await asking.answered.wait()
        finally:
            del self._asking[kind, key]
        if asking.outcome is None:
            assert self._failure is not None
            raise self._failure
        return asking.outcome

    async def _page(self, filter_: Filter, since: Since, limit: int, reverse: bool) -> happened.PageRead:
        while True:
            self._check_open()
            key, events = self._machine.read(filter_, since, limit, reverse)
            try:
                outcome = await self._answer("read", key, events)
            finally:
                self._machine.forget_read(key)
            if isinstance(outcome, happened.PageRead):
                return outcome
            assert isinstance(outcome, happened.ReadRefused)
            if not outcome.retry:
                raise ReadRefused(outcome.code, outcome.slug, outcome.msg)
            await anyio.sleep((outcome.retry_after_ms or READ_AGAIN_MS) / 1000)

    def _happened(self, events: list[happened.Event]) -> None:
        for event in events:
            match event:
                case happened.Signals() | happened.Snap() | happened.Gap() | happened.SubState():
                    self._deliver(event)
                case happened.Open():
                    assert self._tasks is not None
                    self._links.open(event, self._tasks)
                case happened.Close():
                    self._links.close(event)
                case happened.Published(key=key) | happened.PublishRefused(key=key):
                    self._answered("publish", key, event)
                case happened.PageRead(key=key) | happened.ReadRefused(key=key):
                    self._answered("read", key, event)
                case happened.Modified(s=name) | happened.ModifyRefused(s=name):
                    if (sub := self._subs.get(name)) is not None:
                        sub.changed(event)
                case happened.ClientState(state="closed"):
                    self._over(event)
                case _:
                    pass
            if isinstance(event, ClientEvent):
                for listener in self._listeners:
                    listener.put(event)
        self._settle()

    def _deliver(self, event: Delivery) -> None:
        sub = self._subs.get(event.s)
        if sub is None:
            return
        if isinstance(event, happened.Signals | happened.Snap):
            self._signals += len(event.signals)
        self._gaps += isinstance(event, happened.Gap)
        sub.deliver(event)
        if isinstance(event, happened.SubState) and event.state == "failed":
            sub.fail(SubscriptionFailed(sub.name, event.code, event.reason))
            del self._subs[sub.name]
            self._flow.forget(sub)

    def _answered(self, kind: str, key: int, event: Any) -> None:
        if (asking := self._asking.get((kind, key))) is not None:
            asking.outcome = event
            asking.answered.set()

    def _check_open(self) -> None:
        if self._tasks is None:
            raise RuntimeError("the client is not running; use it inside `async with client:`")
        if self._failure is not None:
            raise self._failure

    def _over(self, state: happened.ClientState) -> None:
        reason = state.reason or ("the client's block has ended" if not state.terminal else close_name(state.code))
        self._failure = ClientClosed(state.code, reason)
        for sub in self._subs.values():
            sub.fail(self._failure)
        for asking in self._asking.values():
            asking.answered.set()

    def _settle(self) -> None:
        """Whatever the machine was told, its texts leave and its timers hold."""
        self._links.send()
        due = self._machine.next_deadline_ms
        if due is not None and due / 1000 + 1e-6 < self._timer_until:
            self._timer_moved.set()


def _new_id() -> str:
    return secrets.token_hex(12)
