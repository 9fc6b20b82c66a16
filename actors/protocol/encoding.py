"""The encodings of `signals.v1`: what messages are in a frame. One for each subprotocol; all else is the same in both.

Whoever speaks makes the JSON texts of messages, and whoever listens reads parsed values; only what is in between
differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, Protocol

import attrs

from actors.protocol import ijson, messagepack
from actors.protocol.fields import Refused
from actors.protocol.messages import PONG
from actors.protocol.requests import PING

EncodingName = Literal["json", "msgpack"]


class Encoding(Protocol):
    """How messages become frames, and frames messages again."""

    @property
    def name(self) -> EncodingName:
        """As applications call it."""
        ...

    @property
    def subprotocol(self) -> str:
        """As the handshake calls it."""
        ...

    def encode(self, texts: str) -> str | bytes:
        """One frame with some messages, whose JSON texts are separated by newlines."""
        ...

    def parse(self, frame: str | bytes) -> list[object]:
        """The values of a frame's messages, in order; in place of one that cannot be read, why (a `Refused`)."""
        ...


@attrs.frozen
class Json:
    """Text frames; messages are separated by newlines."""

    name: EncodingName = attrs.field(default="json", init=False)
    subprotocol: str = attrs.field(default="signals.v1.json", init=False)

    def encode(self, texts: str) -> str:
        """The texts as they are."""
        return texts

    def parse(self, frame: str | bytes) -> list[object]:
        """A line is a message; a bad one spoils only itself."""
        if isinstance(frame, bytes):
            return [Refused(f"a binary frame; {self.subprotocol} sends text frames", at="")]
        return [_text(line) for line in frame.split("\n") if line.strip()]


@attrs.frozen
class MessagePack:
    """Binary frames; messages are concatenated. A ping and its answer are exact texts here, too."""

    name: EncodingName = attrs.field(default="msgpack", init=False)
    subprotocol: str = attrs.field(default="signals.v1.msgpack", init=False)

    def encode(self, texts: str) -> str | bytes:
        """The texts' values as MessagePack."""
        if texts in (PING, PONG):
            return texts
        return b"".join([messagepack.dump(json.loads(text)) for text in texts.split("\n") if text])

    def parse(self, frame: str | bytes) -> list[object]:
        """An object is a message; a bad one spoils only itself, but nothing is read behind what is no MessagePack."""
        if isinstance(frame, str):
            if frame in (PING, PONG):
                return [json.loads(frame)]
            return [Refused(f"a text frame; {self.subprotocol} sends binary frames, and as a text only {PING}", at="")]
        values: list[object] = []
        try:
            for data in messagepack.split(frame):
                values.append(_packed(data))  # noqa: PERF401 -- those before a bad one stand
        except ijson.InvalidJson as error:
            values.append(Refused(str(error), at=""))
        return values


def _text(line: str) -> object:
    try:
        return ijson.parse(line)
    except ijson.InvalidJson as error:
        return Refused(str(error), at="")


def _packed(data: bytes) -> object:
    try:
        return messagepack.parse(data)
    except ijson.InvalidJson as error:
        return Refused(str(error), at="")


JSON: Encoding = Json()
MSGPACK: Encoding = MessagePack()
ENCODINGS: Mapping[EncodingName, Encoding] = MappingProxyType({"json": JSON, "msgpack": MSGPACK})
"""In the order in which a server likes them: JSON is what it has stored."""
