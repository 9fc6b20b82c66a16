"""Requests and responses as values; no I/O."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import attrs

if TYPE_CHECKING:
    from runtime.actor.sockets import WebSocket


def _lower(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@attrs.frozen(kw_only=True)
class Request:
    """One HTTP request, its body already read (bounded by the route's limit).

    Attributes:
        method, path, query: from the request line; the path is percent-decoded, the query is raw text.
        headers: lower-case names; repeated headers joined by ", ".
        peer: the address of the other end, as text ("" when it has none).
        number: counts requests of this server, from 1; spreads work over shards.
        web_socket: the socket to accept when this is a WebSocket upgrade, else None.
        params: what the route's `{name}` parts matched.
    """

    method: str = "GET"
    path: str = "/"
    query: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict, converter=_lower)
    body: bytes = b""
    peer: str = ""
    number: int = 0
    web_socket: WebSocket | None = None
    params: Mapping[str, str] = attrs.field(factory=dict)

    def json(self) -> Any:
        """The body as JSON. Raises: ValueError."""
        return json.loads(self.body)

    def query_values(self) -> dict[str, str]:
        """The query's names and values; of a repeated name the last."""
        return dict(parse_qsl(self.query, keep_blank_values=True))


@attrs.frozen
class Response:
    """One HTTP response; status 101 answers an upgrade whose socket an actor accepted.

    Attributes:
        body: the whole of it.
        stream: instead of `body`, its chunks as they come: an async iterator, such as an async generator, or what
            `ctx.response_stream()` made. It is asked for the next chunk when the client has room for it, and closed
            (`aclose`) when the client is gone. What an actor returns is iterated over as an event of that actor,
            which stays in memory meanwhile.

    Raises:
        ValueError: both a body and a stream.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = attrs.field(factory=dict, converter=_lower)
    stream: AsyncIterable[bytes] | None = attrs.field(default=None, kw_only=True, eq=False)

    def __attrs_post_init__(self) -> None:
        if self.body and self.stream is not None:
            raise ValueError("a response has a body or a stream, not both")

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """A response with a JSON body."""
        body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        return cls(status, body, {"content-type": "application/json", **(headers or {})})

    @classmethod
    def text(cls, value: str, status: int = 200) -> Response:
        """A response with a plain-text body."""
        return cls(status, value.encode(), {"content-type": "text/plain; charset=utf-8"})
