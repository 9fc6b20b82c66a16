"""The Python SDK: one connection to a signal service, kept alive, with subscriptions and publications on it."""

from __future__ import annotations

import math
import random as randomness
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

import attrs
import trio

from actors.client.address import DEFAULT_URL, Address
from actors.client.errors import ClientClosed, ClientError, InvalidUrl, PublishRefused, SubscriptionFailed
from actors.client.subscription import Subscription
from actors.client.transport import Connect, Transport, TransportClosed
from actors.client.websocket import websocket_connect
from actors.filters import Filter
from actors.protocol import events as happened
from actors.protocol.client import ClientMachine
from actors.protocol.codes import close_name
from actors.protocol.cursor import Cursor, Last, Since
from actors.protocol.messages import ClientInfo, OnGap
from actors.signals import Draft

CLOSE_S = 1.0  # how long a closing handshake may take
EVENTS_KEPT = 100  # for a slow reader of `events`; the oldest are dropped

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")

Token = str | Callable[[], Awaitable[str]]
Delivery = happened.Signals | happened.Gap | happened.SubState
ClientEvent = happened.ClientState | happened.SubState | happened.GapDetected | happened.Notice


@attrs.frozen
class Ack:
    """A publication is stored: its place in the stream, and whether it had been stored before."""

    id: str
    offset: int
    epoch: str
    dup: bool


@attrs.define(eq=False)
class _Link:
    """One socket: its number, the scope of the task that owns it, and how it shall be closed."""

    number: int
    address: Address
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    texts: trio.Event = attrs.field(factory=trio.Event)
    code: int = 1000
    reason: str = ""


@attrs.define(eq=False)
class _Publishing:
    answered: trio.Event = attrs.field(factory=trio.Event)
    outcome: happened.Published | happened.PublishRefused | None = None


class EventStream(AsyncIterator[ClientEvent]):
    """What happens to the connection, for status lines and logs; a slow reader loses the oldest events."""

    def __init__(self) -> None:
        self._events: deque[ClientEvent] = deque(maxlen=EVENTS_KEPT)
        self._news = trio.Event()

    def put(self, event: ClientEvent) -> None:
        """Tell the reader. For the client only."""
        self._events.append(event)
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ClientEvent:
        """The next event."""
        await trio.lowlevel.checkpoint()
        while not self._events:
            self._news = trio.Event()
            await self._news.wait()
        return self._events.popleft()


class SignalClient:
    """A client of a signal service.

    `async with SignalClient(url) as client` connects in the background, and reconnects (with full jitter, resuming
    where it was) until the block ends or the server says that there is no point. Subscriptions and publications made
    while there is no connection wait for one.

    Args:
        url: `http(s):`, `ws(s):` or `host:port`.
        token: sent as `Authorization: Bearer` and in `hello`; a function is asked before each connection.
        random: draws the jitter; give a seeded one for repeatable tests.
        connect: opens a socket.
        new_id: makes the ids of publications that have none.
        name: how operators see this client.

    Raises: InvalidUrl.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: Token | None = None,
        random: randomness.Random | None = None,
        connect: Connect | None = None,
        new_id: Callable[[], str] | None = None,
        name: str = "",
    ) -> None:
        self._address = Address.parse(url)
        self._token = token
        self._connect = connect or websocket_connect()
        self._new_id = new_id or _new_id
        info = ClientInfo(name=name, version=version("heliograph"), sdk="python")
        self._machine = ClientMachine((random or randomness.Random()).random, info)  # noqa: S311 - jitter
        self._subs: dict[str, Subscription] = {}
        self._names = 0
        self._publishing: dict[int, _Publishing] = {}
        self._listeners: list[EventStream] = []
        self._links: dict[int, _Link] = {}  # two while the connection moves to another server
        self._arrived: list[tuple[Subscription, Delivery | ClientError]] = []
        self._arrival = trio.Event()
        self._idle = trio.Event()
        self._timer_until = 0.0
        self._timer_moved = trio.Event()
        self._failure: ClientClosed | None = None
        self._nursery: trio.Nursery | None = None
        self._nursery_manager = trio.open_nursery()

    async def __aenter__(self) -> Self:
        self._nursery = await self._nursery_manager.__aenter__()
        self._nursery.start_soon(self._deliver)
        self._nursery.start_soon(self._watch_time)
        self._happened(self._machine.start(_now_ms()))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._nursery is not None
        self._happened(self._machine.stop())
        self._nursery.cancel_scope.cancel()
        try:
            return await self._nursery_manager.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            if error is not None and group.exceptions == (error,):
                return False  # the block's own exception, and nothing else: no group around it
            raise

    @property
    def state(self) -> happened.ClientState:
        """Where the connection is: connecting, connected, resuming, reconnecting, draining or closed."""
        return self._machine.state

    def subscribe(
        self,
        *,
        types: Sequence[str] | None = None,
        entities: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        since: Since | str = "now",
        on_gap: OnGap = "fail",
        buffer: int = 1_000,
        name: str | None = None,
    ) -> Subscription:
        """A subscription, active inside `async with`.

        Args:
            types: patterns such as `price.>`, `price.*`, `!price.test.>`.
            entities: patterns such as `btc-*`.
            where: the tree of conditions on the signal.
            since: "now", "earliest", `Last(n)`, a `Cursor` or its text.
            on_gap: when the cursor is too old: "fail" goes on at the head, "skip" with the oldest that is retained.
                Either way a `Gap` says so.
            buffer: how many items may wait for the application, at least 1.
            name: 1–64 of `A-Z a-z 0-9 _ . -`, unique in this client.

        Raises: InvalidFilter, InvalidCursor, ValueError.
        """
        parts = {"types": types, "entities": entities, "where": where}
        filter_ = Filter.parse({key: _plain(part) for key, part in parts.items() if part is not None})
        if on_gap not in ("fail", "skip"):
            raise ValueError(f"on_gap is {on_gap!r}; it is 'fail' or 'skip'")
        if buffer < 1:
            raise ValueError(f"buffer is {buffer}; it is at least 1")
        if name is None:
            self._names += 1
            name = f"sub-{self._names}"
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"name is {name!r}; it is 1–64 of A-Z a-z 0-9 _ . -")
        return Subscription(self, name, filter_, _since(since), on_gap, buffer)

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

        Sent again it keeps its id, so it is stored once. A cancelled wait may or may not have published.

        Raises: InvalidSignal, OutboxFull, PublishRefused, ClientClosed.
        """
        draft = Draft.of(type, entity, data, id=id or self._new_id(), tags=tags)
        self._check_open()
        key, events = self._machine.publish(draft)
        waiting = self._publishing[key] = _Publishing()
        self._happened(events)
        try:
            await waiting.answered.wait()
        finally:
            del self._publishing[key]
            self._machine.forget_publication(key)
        match waiting.outcome:
            case happened.Published(id=signal_id, o=offset, epoch=epoch, dup=dup):
                return Ack(signal_id, offset, epoch, dup)
            case happened.PublishRefused(code=code, slug=slug, msg=message):
                raise PublishRefused(code, slug, message)
            case None:
                assert self._failure is not None
                raise self._failure

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
        self._machine.subscribe(sub.name, sub.filter, sub.since, sub.on_gap)
        self._settle()

    def take_back(self, sub: Subscription) -> None:
        """End a subscription."""
        if self._subs.get(sub.name) is sub:
            del self._subs[sub.name]
            self._machine.unsubscribe(sub.name)
            self._settle()

    # --- tasks ---------------------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        """What arrived, to its subscriptions: the one task that waits for the application.

        It is not a part of any socket's task, so that what the machine counts as delivered cannot be cancelled away.
        """
        while True:
            while not self._arrived:
                self._arrival = trio.Event()
                self._idle.set()
                await self._arrival.wait()
            items, self._arrived = self._arrived, []
            for sub, item in items:
                if isinstance(item, ClientError):
                    sub.fail(item)
                else:
                    await sub.deliver(item)

    def _hand_over(self, items: list[tuple[Subscription, Delivery | ClientError]]) -> None:
        if items:
            self._arrived += items
            self._idle = trio.Event()
            self._arrival.set()

    async def _watch_time(self) -> None:
        """What is due by the machine's timers."""
        while True:
            due = self._machine.next_deadline_ms
            # A microsecond late rather than early: a rounded clock must not find nothing due, again and again.
            self._timer_until = math.inf if due is None else due / 1000 + 1e-6
            self._timer_moved = trio.Event()
            with trio.CancelScope(deadline=self._timer_until):
                await self._timer_moved.wait()
            self._happened(self._machine.tick(_now_ms(), reading=self._idle.is_set()))

    async def _run_link(self, link: _Link) -> None:
        """One socket, from opening to the end."""
        try:
            with link.scope:
                token = await self._read_token()
                async with self._connect(link.address, token) as transport:
                    await self._run_transport(link, transport, token)
        except TransportClosed as closed:
            self._ended(link, closed)

    async def _run_transport(self, link: _Link, transport: Transport, token: str | None) -> None:
        self._machine.opened(_now_ms(), token, link.number)
        self._settle()
        ended: TransportClosed | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, link, transport)
                try:
                    while True:
                        await self._idle.wait()
                        self._received(link, await transport.receive())
                except TransportClosed as closed:
                    ended = closed
                nursery.cancel_scope.cancel()
        finally:
            if ended is None:
                with trio.CancelScope(deadline=trio.current_time() + CLOSE_S, shield=True):
                    await transport.aclose(link.code, link.reason)
        if ended is not None:
            self._ended(link, ended)

    def _received(self, link: _Link, text: str) -> None:
        if link.number not in self._links:
            return
        events = self._machine.receive(text, _now_ms(), link.number)
        # Who is meant is settled now: while these wait for their application a name may pass to another subscription.
        items: list[tuple[Subscription, Delivery | ClientError]] = []
        for event in events:
            if isinstance(event, Delivery) and (sub := self._subs.get(event.s)) is not None:
                items.append((sub, event))
                if isinstance(event, happened.SubState) and event.state == "failed":
                    items.append((sub, SubscriptionFailed(sub.name, event.code, event.reason)))
                    del self._subs[sub.name]
        self._hand_over(items)
        self._happened(events)

    async def _send(self, link: _Link, transport: Transport) -> None:
        while True:
            link.texts = trio.Event()
            try:
                for text in self._machine.texts_to_send(link.number):
                    await transport.send(text)
            except TransportClosed:
                return  # the reader meets the same end, and knows its code
            await link.texts.wait()

    async def _read_token(self) -> str | None:
        if self._token is None or isinstance(self._token, str):
            return self._token
        try:
            return await self._token()
        except Exception as error:
            raise TransportClosed(reason=f"no token: {error!r}") from error

    # --- small steps ---------------------------------------------------------------------------------------

    def _ended(self, link: _Link, closed: TransportClosed) -> None:
        if self._links.pop(link.number, None) is not None:
            self._happened(
                self._machine.closed(
                    closed.code,
                    _now_ms(),
                    reason=closed.reason,
                    status=closed.status,
                    retry_after_ms=closed.retry_after_ms,
                    socket=link.number,
                )
            )

    def _happened(self, events: list[happened.Event]) -> None:
        """Everything but the delivery of signals, which may have to wait."""
        for event in events:
            match event:
                case happened.Open(socket=number, url=url):
                    assert self._nursery is not None
                    link = self._links[number] = _Link(number, self._address_of(url))
                    self._nursery.start_soon(self._run_link, link)
                case happened.Close(code=code, reason=reason, socket=number):
                    if (ending := self._links.pop(number, None)) is not None:
                        ending.code, ending.reason = int(code), reason
                        ending.scope.cancel()
                case happened.Published(key=key) | happened.PublishRefused(key=key):
                    if (waiting := self._publishing.get(key)) is not None:
                        waiting.outcome = event
                        waiting.answered.set()
                case happened.ClientState(state="closed"):
                    self._over(event)
                case _:
                    pass
            if isinstance(event, ClientEvent):
                for listener in self._listeners:
                    listener.put(event)
        self._settle()

    def _address_of(self, url: str | None) -> Address:
        """Where a server says to go; never without TLS when this one has it, and never to what is no address."""
        if url is None:
            return self._address
        try:
            address = Address.parse(url)
        except InvalidUrl:
            return self._address
        return address if address.tls or not self._address.tls else self._address

    def _check_open(self) -> None:
        if self._nursery is None:
            raise RuntimeError("the client is not running; use it inside `async with client:`")
        if self._failure is not None:
            raise self._failure

    def _over(self, state: happened.ClientState) -> None:
        reason = state.reason or ("the client's block has ended" if not state.terminal else close_name(state.code))
        self._failure = ClientClosed(state.code, reason)
        if state.terminal:  # behind what has arrived and still waits for the application
            self._hand_over([(sub, self._failure) for sub in self._subs.values()])
        else:
            for sub in self._subs.values():
                sub.fail(self._failure)
        for waiting in self._publishing.values():
            waiting.answered.set()

    def _settle(self) -> None:
        """Whatever the machine was told, its texts leave and its timers hold."""
        for link in self._links.values():
            link.texts.set()
        due = self._machine.next_deadline_ms
        if due is not None and due / 1000 + 1e-6 < self._timer_until:
            self._timer_moved.set()


def _since(since: Since | str) -> Since:
    match since:
        case "now" | "earliest" | Last() | Cursor():
            return since
        case _:
            return Cursor.parse(since)


def _new_id() -> str:
    return secrets.token_hex(12)


def _now_ms() -> float:
    return trio.current_time() * 1000


def _plain(part: object) -> object:
    """JSON's own types for what applications pass: tuples as lists, mappings as dicts."""
    return dict(part) if isinstance(part, Mapping) else list(part) if isinstance(part, tuple) else part
