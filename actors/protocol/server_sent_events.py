"""Messages of a server as server-sent events, for clients that only listen (section 2.17).

An event's name is the message's `t`, its data the very text that a socket would get, and its id the cursor after it:
the text that a browser sends back as `Last-Event-ID`. (WHATWG HTML, section 9.2.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

from actors.protocol import ijson
from actors.protocol.cursor import Cursor

MEDIA_TYPE = "text/event-stream"
COMMENT = b":\n\n"
_SHOWN = frozenset({"sig", "snap", "gap"})
_KIND = re.compile(r'\{"t":"([a-z]+)"')
_UPTO = re.compile(r'"b":(\d+)')  # before any text of a client's, which would have its quotes escaped


def encode_events(epoch: str, texts: Iterable[str]) -> bytes:
    """The events of some messages.

    A frame without signals becomes an id alone, which moves the cursor of a browser and calls nobody; what is for
    sockets only becomes nothing.
    """
    return b"".join([_event(epoch, text) for text in texts])


def events_after(events: bytes, offset: int) -> bytes:
    """The same without what a client has already that has all up to `offset`: a browser ignores nothing by itself."""
    return b"".join([_rest(block, offset) for block in events.split(b"\n\n") if block])


def encode_event(name: str, text: str, after: Cursor) -> bytes:
    """One event, with the cursor that a client has after it."""
    return f"id: {after}\nevent: {name}\ndata: {text}\n\n".encode()


def encode_id(after: Cursor) -> bytes:
    """Only the cursor that a client has now."""
    return f"id: {after}\n\n".encode()


def encode_retry(ms: int) -> bytes:
    """When to come back after the end of the stream."""
    return f"retry: {ms}\n\n".encode()


def encode_comment(text: str) -> bytes:
    """What no application sees."""
    return f": {' '.join(text.split())}\n\n".encode()


def _event(epoch: str, text: str) -> bytes:
    kind, upto = _KIND.match(text), _UPTO.search(text)
    if kind is None or upto is None:
        return b""
    name, after = kind[1], Cursor(epoch, int(upto[1]))
    if name == "live" or (name == "sig" and text.endswith('"d":[]}')):
        return encode_id(after)
    if name not in _SHOWN:
        return b""
    if name == "snap" and text.endswith('"more":true}'):
        # Its cursor counts when all of it is there.
        return f"event: snap\ndata: {text}\n\n".encode()
    return encode_event(name, text, after)


def _rest(block: bytes, offset: int) -> bytes:
    fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
    after = Cursor.parse(fields[b"id"].decode())
    if after.offset <= offset:
        return b""
    if fields.get(b"event") != b"sig":
        return block + b"\n\n"
    frame = cast("dict[str, Any]", ijson.parse(fields[b"data"].decode()))
    signals = [one for one in frame["d"] if one["o"] > offset]
    text = ijson.dump({**frame, "a": max(frame["a"], offset), "d": signals})
    return encode_event("sig", text, after) if signals else encode_id(after)
