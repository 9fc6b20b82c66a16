"""What a client and its shard say to each other, kept while an operator looks, without what lets anybody in."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Literal

import attrs

from actors.protocol.messages import Err
from actors.protocol.requests import Auth, ClientMessage, Hello

EVENTS_KEPT = 200
TEXT_CHARACTERS = 512
_HIDDEN = "…"
_KIND = re.compile(r'\{"t":"([a-z]+)"')
_RESUME = re.compile(r'("resume":")[^"]*')
_TOKEN = re.compile(r"eyJ[\w\-]{4,}[\w\-.]*")  # a JSON Web Token, or its beginning, wherever a client has put it


@attrs.frozen
class Event:
    """One message, or something that happened.

    Attributes:
        at: seconds since the Unix epoch. kind: the `t` of the message. size: of the message in bytes: of live frames as
            they are sent, of any other as JSON; 0 of a note. text: at most 512 characters of it.
    """

    at: float
    direction: Literal["in", "out", "note"]
    kind: str
    size: int
    text: str


@attrs.define(eq=False)
class FlightRecorder:
    """The last 200 events of one connection, the oldest first.

    Args:
        now: seconds since the Unix epoch.
    """

    now: Callable[[], float]
    _events: deque[Event] = attrs.field(factory=lambda: deque(maxlen=EVENTS_KEPT), init=False)

    @property
    def events(self) -> tuple[Event, ...]:
        """What there is so far."""
        return tuple(self._events)

    def heard(self, message: ClientMessage | Err) -> None:
        """A message of the client; of one that is none only why."""
        match message:
            case Err(msg=why):
                self._add("in", "unreadable", 0, why)
                return
            case Hello():
                token, resume = (None if one is None else _HIDDEN for one in (message.token, message.resume))
                message = attrs.evolve(message, token=token, resume=resume)
            case Auth():
                message = attrs.evolve(message, token=_HIDDEN)
            case _:
                pass
        text = message.encode()
        self._add("in", type(message).__name__.lower(), len(text.encode()), text)

    def said(self, texts: str) -> None:
        """Messages for this client, whose texts are separated by newlines."""
        for text in texts.split("\n"):
            found = _KIND.match(text)
            kind = "" if found is None else found[1]
            shown = _RESUME.sub(rf"\1{_HIDDEN}", text) if kind == "welcome" else text
            self._add("out", kind, len(text.encode()), shown)

    def passed(self, size: int, text: str) -> None:
        """Live frames, which all members of its groups get."""
        self._add("out", "sig", size, text)

    def note(self, kind: str, text: str) -> None:
        """Something that is no message."""
        self._add("note", kind, 0, text)

    def _add(self, direction: Literal["in", "out", "note"], kind: str, size: int, text: str) -> None:
        shown = _TOKEN.sub(_HIDDEN, text)
        cut = shown if len(shown) <= TEXT_CHARACTERS else shown[: TEXT_CHARACTERS - 1] + "…"
        self._events.append(Event(self.now(), direction, kind, size, cut))
