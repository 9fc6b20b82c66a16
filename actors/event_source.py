"""What a client of `GET /v1/sse` asks for, and the sending half of its connection.

It is a connection of a shard like every other, with one subscription; only its messages are events of a response.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from actors.history import filter_of_query
from actors.protocol import ijson
from actors.protocol.codes import BAD_FROM
from actors.protocol.cursor import Cursor
from actors.protocol.decoding import decode_sub
from actors.protocol.fields import Refused
from actors.protocol.requests import Sub
from actors.protocol.server_sent_events import (
    COMMENT,
    MEDIA_TYPE,
    encode_comment,
    encode_event,
    encode_events,
    encode_retry,
    events_after,
)
from runtime import Request, Response, ResponseStream

S = "sse"
"""The name of its subscription."""
COMMENT_S = 15.0
RETRY_MS = (1_000, 3_000)  # at random, so that a crowd does not come back at once
HEADERS: Mapping[str, str] = {
    "content-type": MEDIA_TYPE,
    "cache-control": "no-cache, no-store",
    "x-accel-buffering": "no",
}
_WORDS = frozenset({"now", "earliest", "snapshot"})
_PATHS = re.compile(r"/v1(/streams/[^/]+)?/sse")


def is_for_events(request: Request) -> bool:
    """Whether a request that a shard gets is for server-sent events."""
    return _PATHS.fullmatch(request.path) is not None


def wanted(request: Request) -> Sub:
    """The subscription that a request asks for; `Last-Event-ID` goes before `last_event_id`, and that before `from`.

    What is missing stays or everything follows a gap (`on_gap` `skip`): a browser cannot ask for the rest elsewhere.

    Raises: Refused.
    """
    query = request.query_values()
    asked: dict[str, Any] = {"s": S, "filter": filter_of_query(query.get("filter", "")), "on_gap": "skip"}
    asked |= {name: query[name] for name in ("on_gap", "mode") if name in query}
    if "min_ms" in query:
        asked["min_ms"] = _number(query["min_ms"], "/min_ms")
    last = request.headers.get("last-event-id") or query.get("last_event_id")
    if last:
        asked["from"] = {"cursor": last}
    elif "from" in query:
        asked["from"] = _since(query["from"])
    return decode_sub(asked)


def _number(text: str, at: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Refused(f"{at[1:]} is {text[:64]!r}; it is an integer", at=at)
    return int(text)


def _since(text: str) -> object:
    """A word, a cursor, or the JSON that a socket would send."""
    if text in _WORDS:
        return text
    if not text.startswith("{"):
        return {"cursor": text}
    try:
        return ijson.parse(text)
    except ijson.InvalidJson as error:
        raise Refused(f"from is no JSON: {error}", at="/from", error=BAD_FROM) from None


def later(request: Request, refusal: Response) -> Response:
    """What somebody who is to come back is answered.

    A browser gives an event source up for good whatever error it gets. So it gets an empty stream, after which it asks
    again; anybody else gets the error.
    """
    wait_s = refusal.headers.get("retry-after")
    if wait_s is None or MEDIA_TYPE not in request.headers.get("accept", ""):
        return refusal
    told = encode_comment(f"{refusal.status} {refusal.body.decode()}")
    return Response(200, encode_retry(int(wait_s) * 1000) + told, HEADERS)


@attrs.define(eq=False)
class EventSource:
    """What a `Connection` has in the place of a WebSocket when its client reads events.

    Attributes:
        stream: the body of the response. epoch: of the cursors in its ids.
        skips: what is still stored follows a gap.
        has: it joined a group with frames pending, of which it has got everything up to here.
    """

    stream: ResponseStream
    skips: bool
    epoch: str = ""
    has: int | None = None

    @property
    def backlog_bytes(self) -> int:
        """Sent and not yet taken by the connection."""
        return self.stream.backlog_bytes

    def send(self, texts: str) -> None:
        """Send messages, whose texts are separated by newlines."""
        self._write(encode_events(self.epoch, texts.split("\n")))

    def push(self, events: bytes) -> None:
        """Send what was pending for all members of its group."""
        if self.has is not None:
            events, self.has = events_after(events, self.has), None
        self._write(events)

    def begin(self, events: bytes) -> None:
        """Send what comes before all messages."""
        self._write(events)

    def _write(self, events: bytes) -> None:
        if events:
            self.stream.push(events)

    def comment(self) -> None:
        """Send a line that nobody sees, and that keeps proxies from closing the connection."""
        self.stream.push(COMMENT)

    def reset(self, text: str, epoch: str, head: int) -> None:
        """Say that cursors of another epoch count from now on, and which one the client has."""
        self.epoch = epoch
        self._write(encode_event("reset", text, Cursor(epoch, 0 if self.skips else head)))

    def close(self, code: int, reason: str) -> None:
        """End the response; the client comes back with its cursor."""
        self._write(encode_comment(f"{code} {reason}"))
        self.stream.close()
