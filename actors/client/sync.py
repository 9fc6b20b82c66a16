"""The client for scripts without async: each call blocks, and the connection lives in a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from inspect import signature
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from actors.client.buffer import Gap
from actors.client.client import Ack, ClientStats, SignalClient
from actors.client.errors import ClientClosed
from actors.client.history import History
from actors.client.subscription import Subscription
from actors.protocol import events as happened
from actors.protocol.cursor import Cursor
from actors.protocol.events import SubStateName
from actors.signals import Signal

P = ParamSpec("P")
T = TypeVar("T")


def _taking(
    method: Callable[Concatenate[Any, P], object],
) -> Callable[[Callable[..., T]], Callable[Concatenate[Any, P], T]]:
    """The arguments are those of a method that has them already, for checkers of types and for `help`."""

    def decorate(blocking: Callable[..., T]) -> Callable[Concatenate[Any, P], T]:
        parameters = signature(method).parameters.values()
        blocking.__signature__ = signature(blocking).replace(parameters=tuple(parameters))  # type: ignore[attr-defined]
        return blocking

    return decorate


class SyncSignalClient:
    """`SignalClient` with calls that block: `with SyncSignalClient(url) as client`.

    The connection runs in one thread, which ends with the block. Ctrl-C works wherever the script waits. The methods
    may be called from several threads; a subscription belongs to one at a time.

    Takes the arguments of `SignalClient`.

    Raises: InvalidUrl, ValueError.
    """

    @_taking(SignalClient.__init__)
    def __init__(self, *url: Any, **options: Any) -> None:
        self._client = SignalClient(*url, **options)
        self._limit_s: ContextVar[float | None] = ContextVar("limit_s", default=None)
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

    @contextmanager
    def limit(self, seconds: float) -> Generator[None]:
        """Inside the block, in this thread, a call that takes longer raises TimeoutError.

        What it was about may have happened or not: a publication under an `id` may be repeated without harm.
        """
        before = self._limit_s.set(seconds)
        try:
            yield
        finally:
            self._limit_s.reset(before)

    @_taking(SignalClient.subscribe)
    def subscribe(self, **wanted: Any) -> SyncSubscription:
        """A subscription, which begins at once and ends with `close()`, its own `with` block, or the client's.

        Raises: as `SignalClient.subscribe`; ClientClosed, TimeoutError.
        """
        sub = self._client.subscribe(**wanted)
        self.call(sub.__aenter__)
        return SyncSubscription(self, sub)

    @_taking(SignalClient.publish)
    def publish(self, *signal: Any, **how: Any) -> Ack:
        """Publish a signal and wait until it is stored.

        Raises: as `SignalClient.publish`; TimeoutError.
        """
        return self.call(partial(self._client.publish, *signal, **how))

    @_taking(SignalClient.history)
    def history(self, **wanted: Any) -> Iterator[Signal]:
        """What is stored and matches.

        Raises: as `SignalClient.history` and its iteration; TimeoutError, when a page takes too long.
        """
        return self._iterate(self._client.history(**wanted))

    def call(self, work: Callable[[], Awaitable[T]], timeout_s: float | None = None) -> T:
        """Run something on the client's loop and wait for it. For the client's own objects.

        Args:
            work: what to run. timeout_s: how long it may take; None for what `limit` says.

        Raises: TimeoutError; ClientClosed when the client's block ends meanwhile; whatever `work` raises.
        """
        if self._portal is None or not self.is_open:
            raise ClientClosed(None, "the client is not running; use it inside `with client:`")
        limit_s = self._limit_s.get() if timeout_s is None else timeout_s
        future = self._portal.start_task_soon(_limited, work, limit_s)
        self._calls.add(future)
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed(None, "the client's block has ended") from None
        finally:
            future.cancel()  # of use after Ctrl-C: nobody waits for it any more
            self._calls.discard(future)

    def _iterate(self, history: History) -> Iterator[Signal]:
        while True:
            try:
                yield self.call(history.__anext__)
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

    @_taking(Subscription.modify)
    def modify(self, **change: Any) -> Cursor | None:
        """Change it in place. Raises: as `Subscription.modify`; TimeoutError."""
        return self._client.call(partial(self._sub.modify, **change))

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
