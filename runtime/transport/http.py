"""HTTP/1.1 on one stream: bounded request heads and bodies in, responses out, kept alive in between.

h11 parses and frames; this adds the bounds, the deadlines and what a client is told when it breaks one.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import attrs
import h11
import trio

from runtime.actor.http import Response
from runtime.transport.config import TransportConfig
from runtime.transport.frame_stream import send_response

SERVER = b"heliograph"
_OURS = frozenset({"content-length", "transfer-encoding", "date", "server"})
_BODILESS = frozenset({204, 304})
_NAME = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.1
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")  # section 5.5
_BARE_LF = re.compile(rb"(?<!\r)\n")  # which a proxy may read as another line than we do (RFC 9112, section 2.2)
_ABSOLUTE = re.compile("https?://[^/?]+/", re.IGNORECASE)


class RequestError(Exception):
    """The request is answered with `response` and the connection ends."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.status} {response.body[:200]!r}")
        self.response = response


def refuse(status: int, message: str, headers: Mapping[str, str] | None = None) -> RequestError:
    """A refusal with a plain-text message."""
    text = Response.text(message + "\n", status)
    return RequestError(attrs.evolve(text, headers={**text.headers, **(headers or {})}))


@attrs.frozen
class Head:
    """A request line and its headers.

    Attributes:
        version: such as `1.1`.
        headers: lower-case names; repeated headers joined by ", ".
    """

    method: str
    path: str
    query: str
    version: str
    headers: Mapping[str, str]

    def tokens(self, name: str) -> list[str]:
        """The comma-separated values of a header."""
        return [token for part in self.headers.get(name, "").split(",") if (token := part.strip())]


class HttpConnection:
    """The HTTP life of one connection.

    Args:
        stream: the connection.
        config: the bounds.
        now: wall clock, for the `Date` header.
    """

    def __init__(self, stream: trio.abc.Stream, *, config: TransportConfig, now: Callable[[], float]) -> None:
        self._stream = stream
        self._config = config
        self._now = now
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=config.head_bytes)
        self._fed = 0  # bytes received since the last request's end
        self._raw: bytearray | None = bytearray()  # the same, until they were read as a head
        self._fresh = True
        self._gone = False  # the client, while a response was streamed to it
        self._method = ""  # of the last request

    async def next_head(self, waiting: set[trio.CancelScope]) -> Head | None:
        """The next request's head; None when the client has no more.

        While nothing of it has arrived, the wait's scope is in `waiting`: cancelling it ends the connection.

        Raises:
            RequestError: too large, too slow, or malformed. trio.BrokenResourceError: the client is gone.
        """
        config = self._config
        event = None
        with trio.CancelScope(
            deadline=trio.current_time() + (config.head_s if self._fresh else config.idle_s)
        ) as patience:
            if not self._fed:
                waiting.add(patience)
                try:
                    await self._receive()
                finally:
                    waiting.discard(patience)
            if not self._fresh:
                patience.deadline = trio.current_time() + config.head_s
            event = await self._next_event()
        if patience.cancelled_caught:
            if trio.current_time() >= patience.deadline and (self._fresh or self._fed):
                raise self._late_head()
            return None
        if isinstance(event, h11.ConnectionClosed):
            return None
        assert isinstance(event, h11.Request), event
        self._fresh = False
        self._method = event.method.decode("latin-1")
        return self._check_head(event)

    async def read_body(self, head: Head) -> bytes:
        """The whole body.

        Raises:
            RequestError: too large (before it is read, when its length is declared), too slow, or malformed.
        """
        limit = self._config.body_bytes
        if int(head.headers.get("content-length", 0)) > limit:
            raise refuse(413, f"The body is {head.headers['content-length']} bytes; at most {limit:,}.")
        if "content-length" not in head.headers and "transfer-encoding" not in head.headers:
            await self._next_event()  # the end of the request; nothing to wait for
            return b""
        body = bytearray()
        with trio.move_on_after(self._config.body_s):
            if self._protocol.they_are_waiting_for_100_continue:
                await self._send(self._protocol.send(h11.InformationalResponse(status_code=100, headers=[])))
            while True:
                event = await self._next_event()
                if isinstance(event, h11.EndOfMessage):
                    return bytes(body)
                assert isinstance(event, h11.Data), event
                body += event.data
                if len(body) > limit:
                    raise refuse(413, f"The body is over {limit:,} bytes, which is the most it may be.")
        raise refuse(408, f"The body did not arrive within {self._config.body_s:g} s.")

    async def respond(self, response: h11.Response, body: bytes) -> bool:
        """Send a response made by `frame_response`; False when the connection ends with it.

        Raises:
            trio.BrokenResourceError: the client is gone, or does not read.
        """
        protocol = self._protocol
        parts = [protocol.send(response), protocol.send(h11.Data(data=body)), protocol.send(h11.EndOfMessage())]
        await self._send(b"".join(parts))
        return self._next_cycle()

    async def respond_stream(self, response: h11.Response, chunks: AsyncIterable[bytes]) -> bool:
        """Send a response made by `frame_response` whose body comes in chunks; False when the connection ends with it.

        The next chunk is asked for when the client has taken the one before. HTTP/1.1 gets them in chunked encoding,
        HTTP/1.0 up to the end of the connection.

        Raises:
            trio.BrokenResourceError: the client is gone, or does not read, or the rest will not come.
            Exception: of the chunks; the client sees that the response is incomplete.
        """
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                await self._send_chunks(response, chunks)
            except Exception as error:  # noqa: BLE001 -- raised below, out of the nursery
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if self._gone:
            raise trio.BrokenResourceError("the client is gone")
        return self._next_cycle()

    async def _send_chunks(self, response: h11.Response, chunks: AsyncIterable[bytes]) -> None:
        protocol = self._protocol
        await self._send(protocol.send(response))
        async for chunk in chunks:
            if chunk:
                await self._send(protocol.send(h11.Data(data=chunk)))
        await self._send(protocol.send(h11.EndOfMessage()))

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Notice that the client goes away, which may send its next requests meanwhile, up to a bound."""
        try:
            while len(self._protocol.trailing_data[0]) < self._config.head_bytes:
                data = await self._stream.receive_some()
                if not data:
                    break
                self._protocol.receive_data(bytes(data))
            else:
                return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._gone = True
        scope.cancel()

    def _next_cycle(self) -> bool:
        protocol = self._protocol
        if protocol.our_state is not h11.DONE or protocol.their_state is not h11.DONE:
            return False
        protocol.start_next_cycle()
        self._method = ""
        self._raw = bytearray(protocol.trailing_data[0])
        self._fed = len(self._raw)
        return True

    async def respond_refused(self, refused: RequestError) -> None:
        """Say why, and let the client read it although it may still be sending.

        Raises:
            trio.BrokenResourceError: the client is gone, or does not read.
        """
        if self._protocol.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self.respond(*self.frame_response(self._method, refused.response, close=True))
            await linger(self._stream, self._config.linger_s)

    def frame_response(self, method: str, response: Response, *, close: bool) -> tuple[h11.Response, bytes]:
        """A response as h11 sends it, and the body that goes out with it.

        Raises:
            ValueError: a status or header that HTTP cannot carry. TypeError: a body that is not bytes.
        """
        if not isinstance(response.body, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a response's body is {type(response.body).__name__}; it must be bytes")
        headers = self._headers(response.headers)
        if response.stream is None and response.status not in _BODILESS:
            headers.append((b"content-length", b"%d" % len(response.body)))
        if close:
            headers = [header for header in headers if header[0] != b"connection"] + [(b"connection", b"close")]
        try:
            framed = h11.Response(status_code=response.status, headers=headers, reason=_reason(response.status))
        except h11.LocalProtocolError as error:
            raise ValueError(f"the response cannot be sent: {error}") from error
        return framed, response.body if has_body(method, response.status) else b""

    def switch(self, headers: Mapping[str, str]) -> tuple[bytes, bytes]:
        """The bytes of a 101, and what the client has sent after its request.

        Raises:
            ValueError: a header that HTTP cannot carry.
        """
        lines = [b"HTTP/1.1 101 Switching Protocols"]
        for name, value in self._headers(headers):
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise ValueError(f"the response cannot be sent: the header {name!r}: {value!r}")
            lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join([*lines, b"", b""]), self._protocol.trailing_data[0]

    def _headers(self, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        encoded = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items() if name not in _OURS
        ]
        return [(b"server", SERVER), (b"date", _date(int(self._now()))), *encoded]

    def _check_head(self, event: h11.Request) -> Head:
        config = self._config
        size = self._fed - len(self._protocol.trailing_data[0])
        if size > config.head_bytes:
            raise self._large_head(size)
        assert self._raw is not None
        if _BARE_LF.search(self._raw, 0, size):
            raise refuse(400, "Malformed request: a line ends without a carriage return.")
        self._raw = None
        if len(event.headers) > config.head_count:
            raise refuse(431, f"The request has {len(event.headers)} headers; at most {config.head_count}.")
        headers = _join_headers(event.headers)
        if "content-length" in headers and "transfer-encoding" in headers:  # RFC 9112, 6.1: perhaps smuggled
            raise refuse(400, "Malformed request: it has Content-Length and Transfer-Encoding; send one of them.")
        target = event.target.decode("latin-1")
        if _ABSOLUTE.match(target):  # as to a proxy; its authority stands for the Host header (RFC 9112, 3.2.2)
            _, _, rest = target.partition("://")
            headers["host"], slash, path = rest.partition("/")
            target = slash + path
        path, query = _split_target(target)
        return Head(
            method=event.method.decode("latin-1"),
            path=path,
            query=query,
            version=event.http_version.decode("latin-1"),
            headers=headers,
        )

    async def _next_event(self) -> Any:
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                await self._receive()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
                raise self._large_head(self._fed) from error
            raise refuse(error.error_status_hint, f"Malformed request: {error}.") from error
        return event

    async def _receive(self) -> None:
        data = await self._stream.receive_some()
        self._fed += len(data)
        if self._raw is not None:
            self._raw += data
        self._protocol.receive_data(bytes(data))

    async def _send(self, data: bytes) -> None:
        await send_response(self._stream, data, stall_s=self._config.write_s)

    def _large_head(self, size: int) -> RequestError:
        limit = self._config.head_bytes
        return refuse(431, f"Request line and headers are {size:,} bytes or more; at most {limit:,}.")

    def _late_head(self) -> RequestError:
        return refuse(408, f"Request line and headers did not arrive within {self._config.head_s:g} s.")


async def linger(stream: trio.abc.Stream, seconds: float) -> None:
    """End our half and discard what the client still sends.

    Closing at once would make the kernel answer those bytes with a reset, and the client might lose our last words.
    """
    with trio.move_on_after(seconds), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        while await stream.receive_some():
            pass


def has_body(method: str, status: int) -> bool:
    """Whether the response to such a request has a body (RFC 9110, section 6.4.1)."""
    return method != "HEAD" and status not in _BODILESS


def _split_target(target: str) -> tuple[str, str]:
    """Path (percent-decoded) and raw query of a request target in origin or asterisk form."""
    path, _, query = target.partition("?")
    if not path.startswith("/") and target != "*":
        raise refuse(400, f"The request target is {target!r}; it must start with a slash.")
    try:
        return unquote_to_bytes(path).decode(), query
    except UnicodeDecodeError as error:
        raise refuse(400, f"The path {path!r} is not UTF-8 once percent-decoded.") from error


def _join_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
