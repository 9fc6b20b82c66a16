"""Where connections come in: accept loops, a bound on open connections, and going down in order."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

import trio
from structlog.stdlib import BoundLogger
from trio.lowlevel import ParkingLot

from runtime.platform import Platform
from runtime.tcp import TcpListener
from runtime.transport.certificate import Certificate
from runtime.transport.config import TransportConfig
from runtime.transport.connection import Handler, Site, busy, serve_connection
from runtime.transport.http import HttpConnection

_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_GONE_BEFORE_ACCEPT = frozenset({errno.ECONNABORTED, errno.EPERM, errno.EPROTO})


class Transport:
    """Serves HTTP and WebSocket on any number of listeners, under TLS if it has a certificate.

    Going down: `stop()`, then `await drain(seconds)` for the requests under way; then the server closes its sockets
    and waits for `await gone(seconds)`; cancelling `serve` drops what is left.

    Args:
        handler: answers requests; see `Site`.
        config: bounds and allow lists.
        platform: clock, ids and the write that never waits.
        log: structured log.
        certificate: what clients are shown; None serves them without TLS.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        config: TransportConfig,
        platform: Platform,
        log: BoundLogger,
        certificate: Certificate | None = None,
    ) -> None:
        self._handler = handler
        self._certificate = certificate
        self._config = config
        self._platform = platform
        self._log = log
        self._accepting = trio.CancelScope()
        self._ended = ParkingLot()
        self._open = 0
        self._refusing = 0
        self._site: Site | None = None

    @property
    def open_connections(self) -> int:
        """Connections being served, WebSockets included."""
        return self._open

    @property
    def requests_under_way(self) -> int:
        """Requests that have begun and are not answered yet."""
        return 0 if self._site is None else self._site.requests

    async def serve(
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept and serve connections; returns after `stop` once every connection has ended. Closes the listeners.

        Raises:
            OSError: a listener broke. (Running out of descriptors is waited out.)
        """
        async with trio.open_nursery() as connections:
            site = self._site = Site(
                handler=self._handler,
                config=self._config,
                platform=self._platform,
                log=self._log,
                start_soon=connections.start_soon,
                certificate=self._certificate,
                moved_on=self._ended.unpark_all,
            )
            with self._accepting:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        if isinstance(listener, TcpListener):
                            listener.keep_alive(self._config.keepalive_s)
                        accepting.start_soon(self._accept, listener, site, connections)
                    task_status.started()

    def stop(self) -> None:
        """Accept no more connections; end those on which no request is under way; refuse further requests."""
        self._accepting.cancel()
        if self._site is not None:
            self._site.draining = True
            for wait in self._site.waiting:
                wait.cancel()

    async def drain(self, seconds: float) -> bool:
        """Stop, and wait for the requests under way; False when some are left after `seconds`."""
        self.stop()
        return await self._until(lambda: self.requests_under_way == 0, seconds)

    async def gone(self, seconds: float) -> bool:
        """Wait until every connection has ended; False when some are left after `seconds`."""
        return await self._until(lambda: self._open == 0, seconds)

    async def _until(self, done: Callable[[], bool], seconds: float) -> bool:
        with trio.move_on_after(seconds):
            while not done():
                await self._ended.park()
        return done()

    async def _accept(
        self, listener: trio.abc.Listener[trio.abc.Stream], site: Site, connections: trio.Nursery
    ) -> None:
        starved = False
        async with listener:
            while True:
                if len(site.arriving) >= self._config.arriving:
                    await self._make_room(site)
                if site.openings >= self._config.openings:
                    await self._until(lambda: site.openings < self._config.openings, self._config.opening_s)
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno in _GONE_BEFORE_ACCEPT:
                        continue
                    if error.errno not in _OUT_OF_RESOURCES:
                        raise
                    if not starved:
                        self._log.error("accept_paused", reason=str(error), open_connections=self._open)
                    starved = True
                    await trio.sleep(self._config.backoff_s)
                    continue
                starved = False
                if self._open < self._config.connections:
                    self._open += 1
                    connections.start_soon(self._serve, stream, site)
                elif self._refusing < self._config.refusals and self._certificate is None:
                    self._refusing += 1
                    connections.start_soon(self._refuse, stream)
                else:
                    await trio.aclose_forcefully(stream)

    async def _make_room(self, site: Site) -> None:
        """Wait for one of the many that arrive, and drop the slowest when there is still no room."""
        if not await self._until(lambda: len(site.arriving) < self._config.arriving, self._config.opening_s):
            slowest, _ = site.arriving.popitem(last=False)
            slowest.cancel()

    async def _serve(self, stream: trio.abc.Stream, site: Site) -> None:
        try:
            await serve_connection(stream, site)
        finally:
            self._open -= 1
            self._ended.unpark_all()

    async def _refuse(self, stream: trio.abc.Stream) -> None:
        http = HttpConnection(stream, config=self._config, now=self._platform.now)
        try:
            await http.respond_refused(busy("The server has all the connections it may have.", self._config))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client is gone
        finally:
            self._refusing -= 1
            await trio.aclose_forcefully(stream)
