"""The sockets of a client: each is opened, read and written by tasks of its own, as long as the machine wants it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
import anyio.abc
import attrs

from actors.client.address import Address
from actors.client.errors import InvalidUrl
from actors.client.transport import Connect, Transport, TransportClosed
from actors.protocol import events as happened
from actors.protocol.client import ClientMachine
from actors.protocol.codes import TOKEN_EXPIRING

CLOSE_S = 1.0  # how long a closing handshake may take

Token = str | Callable[[], Awaitable[str]]


class Told(Protocol):
    """Takes what the machine makes of what a socket brought, or of its end."""

    def __call__(self, events: list[happened.Event], /) -> None:
        """Deliver it."""
        ...


@attrs.define(eq=False)
class _Link:
    """One socket: its number, the scope of the task that owns it, and how it shall be closed."""

    number: int
    address: Address
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    texts: anyio.Event = attrs.field(factory=anyio.Event)
    renews: bool = False
    code: int = 1000
    reason: str = ""


@attrs.define(eq=False)
class Links:
    """None, one, or two while the connection moves to another server.

    Attributes:
        frames: that came. opened: sockets that were opened.
    """

    _machine: ClientMachine
    _address: Address
    _connect: Connect
    _token: Token | None
    _told: Told
    frames: int = attrs.field(default=0, init=False)
    opened: int = attrs.field(default=0, init=False)
    _links: dict[int, _Link] = attrs.field(factory=dict[int, _Link], init=False)
    _reading: anyio.Event = attrs.field(factory=anyio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._reading.set()

    @property
    def reads(self) -> bool:
        """Sockets are read; otherwise the application has to take something first."""
        return self._reading.is_set()

    def read(self, allowed: bool) -> None:
        """Read the sockets from now on, or do not."""
        if allowed:
            self._reading.set()
        elif self.reads:
            self._reading = anyio.Event()

    def open(self, wanted: happened.Open, tasks: anyio.abc.TaskGroup) -> None:
        """Open a socket."""
        link = self._links[wanted.socket] = _Link(wanted.socket, self._address_of(wanted.url))
        tasks.start_soon(self._run, link)

    def close(self, wanted: happened.Close) -> None:
        """Close a socket, saying why."""
        if (ending := self._links.pop(wanted.socket, None)) is not None:
            ending.code, ending.reason = int(wanted.code), wanted.reason
            ending.scope.cancel()

    def send(self) -> None:
        """The machine may have texts to send."""
        for link in self._links.values():
            link.texts.set()

    async def _run(self, link: _Link) -> None:
        """One socket, from opening to the end."""
        try:
            with link.scope:
                token = await self._read_token()
                async with self._connect(link.address, token, self._machine.encoding.subprotocol) as transport:
                    await self._run_transport(link, transport, token)
        except TransportClosed as closed:
            self._ended(link, closed)

    async def _run_transport(self, link: _Link, transport: Transport, token: str | None) -> None:
        self.opened += 1
        self._machine.opened(now_ms(), token, link.number)
        self._told([])
        ended: TransportClosed | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send, link, transport)
                try:
                    while True:
                        if not self._reading.is_set():
                            await self._reading.wait()
                        if self._received(link, await transport.receive()) and not link.renews:
                            link.renews = True
                            tasks.start_soon(self._renew, link)
                except TransportClosed as closed:
                    ended = closed
                tasks.cancel_scope.cancel()
        finally:
            if ended is None:
                with anyio.CancelScope(deadline=anyio.current_time() + CLOSE_S, shield=True):
                    await transport.aclose(link.code, link.reason)
        if ended is not None:
            self._ended(link, ended)

    def _received(self, link: _Link, frame: str | bytes) -> bool:
        """Whether the server said that the token ends soon."""
        if link.number not in self._links:
            return False
        self.frames += 1
        events = self._machine.receive(frame, now_ms(), link.number)
        self._told(events)
        return any(isinstance(event, happened.Notice) and event.slug == TOKEN_EXPIRING.slug for event in events)

    async def _renew(self, link: _Link) -> None:
        """Go on with a newer token. Without one the server ends the connection, and the next one asks for it again."""
        try:
            token = None if isinstance(self._token, str) else await self._read_token()
        except TransportClosed as failed:
            self._told([happened.Notice(code=TOKEN_EXPIRING.code, slug="no_token", msg=failed.reason)])
            token = None
        link.renews = False
        if token is not None:
            self._machine.authenticate(token, link.number)
            link.texts.set()

    async def _send(self, link: _Link, transport: Transport) -> None:
        while True:
            link.texts = anyio.Event()
            try:
                for text in self._machine.texts_to_send(link.number):
                    await transport.send(self._machine.encoding.encode(text))
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

    def _ended(self, link: _Link, closed: TransportClosed) -> None:
        if self._links.pop(link.number, None) is not None:
            self._told(
                self._machine.closed(
                    closed.code,
                    now_ms(),
                    reason=closed.reason,
                    status=closed.status,
                    retry_after_ms=closed.retry_after_ms,
                    socket=link.number,
                )
            )

    def _address_of(self, url: str | None) -> Address:
        """Where a server says to go; never without TLS when this one has it, and never to what is no address."""
        if url is None:
            return self._address
        try:
            address = Address.parse(url, self._address.stream)
        except InvalidUrl:
            return self._address
        return address if address.tls or not self._address.tls else self._address


def now_ms() -> float:
    """The clock of the loop, in the machine's unit."""
    return anyio.current_time() * 1000
