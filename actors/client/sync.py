"""The client for scripts without async: each call blocks, and the connection lives in a thread of its own."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from actors.client.address import DEFAULT_URL
from actors.client.buffer import AckWhen, Gap, Overflow
from actors.client.client import Ack, ClientStats, SignalClient
from actors.client.conditions import Condition
from actors.client.cursor_store import CursorStore
from actors.client.errors import ClientClosed
from actors.client.history import History
from actors.client.links import Token
from actors.client.subscription import Subscription
from actors.protocol import events as happened
from actors.protocol.cursor import Ago, Cursor, Last, Since
from actors.protocol.encoding import EncodingName
from actors.protocol.events import SubStateName
from actors.protocol.requests import Mode, OnGap, OnSlow
from actors.signals import Signal

T = TypeVar("T")


class Filtered(TypedDict, total=False):
    """Which signals; see `SignalClient.subscribe`."""

    types: Sequence[str] | None
    entities: Sequence[str] | None
    where: Condition | Mapping[str, Any] | None


class Subscribed(Filtered, total=False):
    """The arguments of `SignalClient.subscribe`."""

    since: Since | str
    on_gap: OnGap
    mode: Mode
    min_ms: int | None
    on_slow: OnSlow
    buffer: int
    overflow: Overflow
    ack: AckWhen
    name: str | None


class Stored(Filtered, total=False):
    """The arguments of `SignalClient.history`."""

    since: Since | str | None
    reverse: bool
    limit: int | None
    page: int


class Changed(TypedDict, total=False):
    """The arguments of `Subscription.modify`."""

    filter: Mapping[str, Any] | None
    mode: Mode | None
    min_ms: int | None
    on_slow: OnSlow | None
    backfill: Last | Ago | None


class SyncSignalClient:
    """`SignalClient` with calls that block: `with SyncSignalClient(url) as client`.

    The connection runs in one thread, which ends with the block. Ctrl-C works wherever the script waits. The methods
    may be called from several threads; a subscription belongs to one at a time.

    Args:
        url, token, ssl_context, name, stream, encoding, cursor_store: as for `SignalClient`.

    Raises: InvalidUrl, ValueError.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: Token | None = None,
        ssl_context: ssl.SSLContext | None = None,
        name: str = "",
        stream: str | None = None,
        encoding: EncodingName = "json",
        cursor_store: CursorStore | None = None,
    ) -> None:
        self._client = SignalClient(
            url,
            token=token,
            ssl_context=ssl_context,
            name=name,
            stream=stream,
            encoding=encoding,
            cursor_store=cursor_store,
        )
        self._block = ExitStack()
        self._portal: BlockingPortal | None = None
        self._calls: set[Future[Any]] = set()
        self._over = False

    def __enter__(self) -> Self:
        with ExitStack() as block:
            self._portal = block.enter_context(start_blocking_portal("trio"))
            block.enter_context(self._portal.wrap_async_context_manager(self._running()))
            self._block = block.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._block.__exit__(kind, error, trace)

    @property
    def is_open(self) -> bool:
        """The client's block has begun and not ended."""
        return self._portal is not None and not self._over

    @property
    def state(self) -> happened.ClientState:
        """Where the connection is."""
        return self._client.state

    @property
    def rtt(self) -> float | None:
        """Seconds that the last answer to a greeting or a ping took."""
        return self._client.rtt

    @property
    def stats(self) -> ClientStats:
        """What this client has done, and what waits."""
        return self.call(self._stats)

    def subscribe(self, **wanted: Unpack[Subscribed]) -> SyncSubscription:
        """A subscription, which begins at once and ends with `close()`, its own `with` block, or the client's.

        Raises: as `SignalClient.subscribe`; ClientClosed.
        """
        sub = self._client.subscribe(**wanted)
        self.call(sub.__aenter__)
        return SyncSubscription(self, sub)

    def publish(
        self,
        type: str,  # noqa: A002 - the protocol's word
        entity: str,
        data: object,
        *,
        id: str | None = None,  # noqa: A002 - the protocol's word
        tags: Mapping[str, str | float | bool] | None = None,
        timeout_s: float | None = None,
    ) -> Ack:
        """Publish a signal and wait until it is stored.

        Raises: as `SignalClient.publish`; TimeoutError after `timeout_s`: it may be stored or not, and the same `id`
            makes it harmless to try again.
        """
        return self.call(partial(self._client.publish, type, entity, data, id=id, tags=tags), timeout_s)

    def history(self, *, timeout_s: float | None = None, **wanted: Unpack[Stored]) -> Iterator[Signal]:
        """What is stored and matches.

        Raises: as `SignalClient.history` and its iteration; TimeoutError when a page takes longer than `timeout_s`.
        """
        return self._iterate(self._client.history(**wanted), timeout_s)

    def call(self, work: Callable[[], Awaitable[T]], timeout_s: float | None = None) -> T:
        """Run something on the client's loop and wait for it. For the client's own objects.

        Raises: TimeoutError; ClientClosed when the client's block ends meanwhile; whatever `work` raises.
        """
        if self._portal is None or not self.is_open:
            raise ClientClosed(None, "the client is not running; use it inside `with client:`")
        future = self._portal.start_task_soon(_limited, work, timeout_s)
        self._calls.add(future)
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed(None, "the client's block has ended") from None
        finally:
            future.cancel()  # of use after Ctrl-C: nobody waits for it any more
            self._calls.discard(future)

    def _iterate(self, history: History, timeout_s: float | None) -> Iterator[Signal]:
        while True:
            try:
                yield self.call(history.__anext__, timeout_s)
            except StopAsyncIteration:
                return

    async def _stats(self) -> ClientStats:
        return self._client.stats

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None]:
        async with self._client:
            try:
                yield
            finally:
                self._over = True
                for future in list(self._calls):
                    future.cancel()


class SyncSubscription(Iterator[Signal | Gap]):
    """A subscription whose loop blocks: `for signal in client.subscribe(…)`."""

    def __init__(self, client: SyncSignalClient, sub: Subscription) -> None:
        self._client = client
        self._sub = sub

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __next__(self) -> Signal | Gap:
        """The next signal or gap. Raises: as `Subscription.__anext__`."""
        return self.take()

    def take(self, timeout_s: float | None = None) -> Signal | Gap:
        """The next signal or gap. Raises: as `Subscription.__anext__`; TimeoutError: nothing came, nothing is lost."""
        return self._client.call(self._sub.__anext__, timeout_s)

    def modify(self, *, timeout_s: float | None = None, **change: Unpack[Changed]) -> Cursor | None:
        """Change it in place. Raises: as `Subscription.modify`; TimeoutError."""
        return self._client.call(partial(self._sub.modify, **change), timeout_s)

    def close(self) -> None:
        """End it; harmless when the client's block has ended."""
        if self._client.is_open:
            self._client.call(self._end)

    @property
    def name(self) -> str:
        """Its name on the wire."""
        return self._sub.name

    @property
    def state(self) -> SubStateName:
        """`pending`, `catchup`, `live` or `failed`."""
        return self._sub.state

    @property
    def cursor(self) -> Cursor | None:
        """What the script has taken; it moves when the next item is asked for."""
        return self._sub.cursor

    async def _end(self) -> None:
        await self._sub.__aexit__(None, None, None)


async def _limited(work: Callable[[], Awaitable[T]], timeout_s: float | None) -> T:
    with anyio.fail_after(timeout_s):
        return await work()
