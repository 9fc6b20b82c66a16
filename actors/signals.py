"""The signal: one immutable event, and what a publisher may hand in to become one.

A signal is encoded to JSON once; that text is what the log stores and what every frame contains.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, cast

import attrs

from actors.protocol import ijson, messagepack

NAME_BYTES = 128
DATA_BYTES = 65_536
ID_CHARACTERS = 128
TAGS = 16
TAG_KEY_BYTES = 64  # ours: with the next one, a signal with all its tags fits a stored value
TAG_VALUE_BYTES = 256  # a filter's strings have the same bound, so every tag can be filtered for

_NAME = re.compile(r"[A-Za-z0-9_\-:@]{1,64}(?:\.[A-Za-z0-9_\-:@]{1,64}){0,7}")

_FIELDS = ("o", "id", "type", "entity", "ts", "data", "tags")


class InvalidSignal(ValueError):
    """What was handed in is no signal.

    Attributes:
        at: JSON Pointer to the offending part of the signal.
        too_large: the part is well-formed but over its size limit.
    """

    def __init__(self, message: str, *, at: str, too_large: bool = False) -> None:
        super().__init__(message)
        self.at = at
        self.too_large = too_large


def is_name(text: object) -> bool:
    """Whether it is 1–8 tokens of 1–64 `A-Z a-z 0-9 _ - : @` joined by dots, at most 128 bytes in all."""
    return isinstance(text, str) and len(text) <= NAME_BYTES and _NAME.fullmatch(text) is not None


@attrs.frozen
class Signal:
    """One event of the stream: its names, and its whole JSON text.

    Deeply immutable, so it passes between actors by reference; `data` and `tags` are read from the text.

    Attributes:
        o: offset in the stream, 1 … 2⁵³−1, assigned by the server.
        id: the publisher's idempotency id.
        type: what happened, such as `price.spike`.
        entity: about whom, such as `btc-usd`.
        ts: when the server took it in, ms since the Unix epoch.
        json: the signal as compact JSON (UTF-8, one line).
    """

    o: int
    id: str
    type: str
    entity: str
    ts: int
    json: bytes = attrs.field(repr=False)

    @classmethod
    def decode(cls, text: bytes | str) -> Signal:
        """Read a signal that `json` wrote, or that another server sent.

        Raises: InvalidSignal, ijson.InvalidJson.
        """
        return cls.from_value(ijson.parse(text))

    @classmethod
    def from_value(cls, value: object) -> Signal:
        """A signal from its parsed JSON; unknown fields are dropped.

        Sizes are the business of the server that took it in, so none is checked here.

        Raises: InvalidSignal.
        """
        fields = _object(value)
        for text in ("id", "type", "entity"):
            if not isinstance(fields.get(text), str):
                raise InvalidSignal(f"{text} is {_kind(fields.get(text))}; it is a string", at=f"/{text}")
        if "data" not in fields:
            raise InvalidSignal("data is missing", at="/data")
        o = _integer(fields, "o", least=1)
        ts = _integer(fields, "ts", least=-ijson.INTEGER_MAX)
        known = {name: fields[name] for name in _FIELDS if name in fields}
        return cls(
            o,
            cast("str", fields["id"]),
            cast("str", fields["type"]),
            cast("str", fields["entity"]),
            ts,
            ijson.dump(known).encode(),
        )

    @functools.cached_property
    def value(self) -> dict[str, Any]:
        """The parsed JSON, as filters see it. Shared: do not change it."""
        return cast("dict[str, Any]", json.loads(self.json))

    @property
    def data(self) -> Any:
        """The payload: any JSON value."""
        return self.value["data"]

    @property
    def tags(self) -> dict[str, str | int | float | bool]:
        """The filterable extras; empty when the publisher gave none."""
        return cast("dict[str, str | int | float | bool]", self.value.get("tags", {}))


@attrs.frozen
class Draft:
    """A checked signal that has no offset yet: what a publisher hands in.

    Deeply immutable: `data_json` and `tags_json` are JSON texts.
    """

    type: str
    entity: str
    data_json: bytes
    id: str | None = None
    tags_json: bytes | None = None

    @classmethod
    def of(
        cls,
        type: str,  # noqa: A002 - the protocol's word
        entity: str,
        data: object,
        *,
        id: str | None = None,  # noqa: A002 - the protocol's word
        tags: Mapping[str, object] | None = None,
        data_bytes_max: int = DATA_BYTES,
    ) -> Draft:
        """Check and encode a publication.

        Raises: InvalidSignal, naming what was seen and what is allowed.
        """
        data_json = _data(data, data_bytes_max)
        return cls(_name("type", type), _name("entity", entity), data_json, _id(id), _tags(tags))

    @classmethod
    def from_value(cls, value: object, *, data_bytes_max: int = DATA_BYTES) -> Draft:
        """A draft from parsed JSON, as in `pub` or `POST /v1/signals`; unknown fields are ignored.

        Raises: InvalidSignal.
        """
        fields = _object(value)
        for required in ("type", "entity", "data"):
            if required not in fields:
                raise InvalidSignal(f"{required} is missing", at=f"/{required}")
        return cls(
            _name("type", fields["type"]),
            _name("entity", fields["entity"]),
            _data(fields["data"], data_bytes_max),
            _id(fields.get("id")),
            _tags(fields.get("tags")),
        )

    def with_id(self, id: str) -> Draft:  # noqa: A002 - the protocol's word
        """The same under an id."""
        return Draft(self.type, self.entity, self.data_json, id, self.tags_json)

    @property
    def size_bytes(self) -> int:
        """What the signal's JSON text will take, rounded up."""
        return 256 + 6 * ID_CHARACTERS + len(self.data_json) + len(self.tags_json or b"")

    def signal(self, *, o: int, ts: int, id: str) -> Signal:  # noqa: A002 - the protocol's word
        """The signal this becomes at offset `o`; the one place where a signal's JSON is written."""
        quoted = json.dumps(id, ensure_ascii=False)
        head = f'{{"o":{o},"id":{quoted},"type":"{self.type}","entity":"{self.entity}","ts":{ts},"data":'
        text = head.encode() + self.data_json
        if self.tags_json is not None:
            text += b',"tags":' + self.tags_json
        return Signal(o, id, self.type, self.entity, ts, text + b"}")


@attrs.frozen
class SignalTexts:
    """Signals as JSON texts, on their way to many: one, or several separated by commas.

    Deeply immutable, so it passes between actors by reference, and what one of them made of it serves all.
    """

    json: bytes

    @functools.cached_property
    def packed(self) -> tuple[int, bytes]:
        """How many there are, and each as MessagePack, concatenated. Made when somebody first asks, and once."""
        values = json.loads(b"[" + self.json + b"]")
        return len(values), b"".join(map(messagepack.dump, values))


_OFFSETS = re.compile(rb'\{"o":([0-9]+),"id":"')
_WRITTEN = re.compile(rb'\{"o":([0-9]+),"id":"(?:[^"\\]|\\.)*","type":"([^"]*)","entity":"([^"]*)"')


def offset_of(text: bytes) -> int:
    """The offset of a signal from its text, as `Draft.signal` wrote it."""
    return int(text[5 : text.index(b",")])


def offsets_in(texts: bytes) -> set[int]:
    """The offsets of signals from their texts, joined by commas; of an object in their data that looks so, too."""
    return set(map(int, _OFFSETS.findall(texts)))


def pair_of(text: bytes) -> tuple[bytes, bytes]:
    """Type and entity of a signal from its text, as `Draft.signal` wrote it; costs less than parsing all of it."""
    found = _WRITTEN.match(text)
    assert found is not None, f"no signal of this server: {text[:80]!r}"
    return found[2], found[3]


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidSignal(f"a signal is a JSON object, not {_kind(value)}", at="")
    return cast("dict[str, object]", value)


def _name(field: str, value: object) -> str:
    if not isinstance(value, str) or not is_name(value):
        seen = repr(value[:NAME_BYTES]) if isinstance(value, str) else _kind(value)
        raise InvalidSignal(
            f"{field} is {seen}; a name is 1–8 tokens joined by '.', each 1–64 of A-Z a-z 0-9 _ - : @, "
            f"at most {NAME_BYTES} bytes",
            at=f"/{field}",
        )
    return value


def _data(value: object, size_max: int) -> bytes:
    try:
        text = ijson.dump(value).encode()
    except ijson.InvalidJson as error:
        raise InvalidSignal(f"data cannot be sent as JSON: {error}", at="/data") from None
    if len(text) > size_max:
        raise InvalidSignal(f"data is {len(text):,} bytes of JSON; at most {size_max:,}", at="/data", too_large=True)
    return text


def _id(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= ID_CHARACTERS:
        seen = f"{len(value):,} characters" if isinstance(value, str) else _kind(value)
        raise InvalidSignal(f"id is {seen}; it is a string of 1–{ID_CHARACTERS} characters", at="/id")
    try:
        ijson.check(value)
    except ijson.InvalidJson as error:
        raise InvalidSignal(f"id cannot be sent as JSON: {error}", at="/id") from None
    return value


def _tags(value: object) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidSignal(f"tags is {_kind(value)}; it is an object", at="/tags")
    tags = dict(cast("Mapping[object, object]", value))
    if len(tags) > TAGS:
        raise InvalidSignal(f"tags has {len(tags)} keys; at most {TAGS}", at="/tags", too_large=True)
    try:
        text = ijson.dump(tags).encode()
    except ijson.InvalidJson as error:
        raise InvalidSignal(f"tags cannot be sent as JSON: {error}", at="/tags") from None
    for key, item in tags.items():
        at = f"/tags/{str(key).replace('~', '~0').replace('/', '~1')}"
        if not 1 <= len(str(key).encode()) <= TAG_KEY_BYTES:
            raise InvalidSignal(f"a tag's key is {len(str(key).encode())} bytes; 1–{TAG_KEY_BYTES} are allowed", at=at)
        if not isinstance(item, str | int | float):
            raise InvalidSignal(f"tag {key!r} is {_kind(item)}; a tag is a string, a number or a boolean", at=at)
        if isinstance(item, str) and len(item.encode()) > TAG_VALUE_BYTES:
            raise InvalidSignal(
                f"tag {key!r} is {len(item.encode()):,} bytes; at most {TAG_VALUE_BYTES}",
                at=at,
                too_large=True,
            )
    return text if tags else None


def _integer(fields: Mapping[str, object], field: str, *, least: int) -> int:
    value = fields.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= ijson.INTEGER_MAX:
        raise InvalidSignal(f"{field} is {value!r}; it is an integer, {least} … {ijson.INTEGER_MAX}", at=f"/{field}")
    return value


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "an array"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"
