"""From an item that a source offers to a signal: which part is the type, the entity, the id, the time, the data."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, cast

import attrs

from actors.ingest.options import Options
from actors.ingest.pointer import InvalidPointer, NothingThere, Pointer
from actors.ingest.source import World
from actors.protocol import ijson
from actors.signals import NAME_BYTES, Draft, InvalidSignal, is_name

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_\-:@.]+")
TIME_TAG = "at"


class NoSignal(ValueError):
    """An item cannot be made a signal of; the text says why."""


@attrs.frozen(kw_only=True)
class Item:
    """One item, made a signal.

    Attributes:
        key: what tells it from others, the same whenever it is offered again: its own id, or a hash of its content.
        own: whether the key is an id of its own.
        time: its own time, as it is written there, or None.
    """

    key: str
    own: bool
    time: Any
    draft: Draft


def name_of(value: object) -> str:
    """A legal name for what a source calls a thing: `New York, NY` is `New-York-NY`."""
    text = value if isinstance(value, str) else json.dumps(value)
    tokens = [token.strip("-")[:64] for token in _NOT_IN_A_NAME.sub("-", text).split(".")]
    kept = [token for token in tokens if token][:8]
    while kept and len(".".join(kept)) > NAME_BYTES:
        kept.pop()
    return ".".join(kept) or "unknown"


def content_key(item: object) -> str:
    """A hash of the content: equal items have equal keys, in whatever order their members are written."""
    text = json.dumps(item, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@attrs.frozen(kw_only=True)
class ItemMapping:
    """Where the parts of a signal are in an item; without `type` the item is a signal as it is.

    A text that begins with "/" is a JSON Pointer into the item, any other a constant.
    """

    items: Pointer
    type: Pointer | str | None
    entity: Pointer | str
    id: Pointer | None
    ts: Pointer | None
    data: Pointer

    @classmethod
    def of(cls, options: Options, *, items: bool = True, entity: str = "") -> ItemMapping:
        """Read `items`, `type`, `entity`, `id`, `ts` and `data`.

        Args:
            items: whether the document has several items. entity: when it is left out.

        Raises: InvalidOptions.
        """
        mapped = options.has("type")
        return cls(
            items=options.pointer("items", "") if items else Pointer.parse(""),
            type=_name_or_pointer(options, "type", "") if mapped else None,
            entity=_name_or_pointer(options, "entity", entity) if mapped or options.has("entity") else "",
            id=options.pointer("id") if options.has("id") else None,
            ts=options.pointer("ts") if options.has("ts") else None,
            data=options.pointer("data", ""),
        )

    def split(self, document: object) -> list[object]:
        """The items of a document: the elements of the array at `items`, or the one object there.

        Raises: NoSignal.
        """
        try:
            found = self.items.read(document)
        except NothingThere as error:
            raise NoSignal(f"options.items: {error}") from None
        return cast("list[object]", found) if isinstance(found, list) else [found]

    def item(self, item: object, world: World) -> Item:
        """Make a signal of one item; its id is the source's name and its key.

        Raises: NoSignal.
        """
        try:
            return self._mapped(item, world) if self.type is not None else self._as_it_is(item, world)
        except (NothingThere, InvalidSignal, ijson.InvalidJson, RecursionError) as error:
            raise NoSignal(str(error) or type(error).__name__) from None

    def _mapped(self, item: object, world: World) -> Item:
        assert self.type is not None
        own = None if self.id is None else _key(self.id.read(item), self.id)
        time = None if self.ts is None else self.ts.read(item)
        key = own or content_key(item)
        draft = Draft.of(
            _name(self.type, item),
            _name(self.entity, item),
            self.data.read(item),
            id=world.id(key),
            tags=None if time is None else {TIME_TAG: _tag(time)},
        )
        return Item(key=key, own=own is not None, time=time, draft=draft)

    def _as_it_is(self, item: object, world: World) -> Item:
        draft = Draft.from_value(item)
        pointed = None if self.id is None else _key(self.id.read(item), self.id)
        own = pointed or draft.id
        key = own or content_key(item)
        time = None if self.ts is None else self.ts.read(item)
        return Item(key=key, own=own is not None, time=time, draft=attrs.evolve(draft, id=world.id(key)))


def _name_or_pointer(options: Options, key: str, default: str) -> Pointer | str:
    text = options.text(key, default or None)
    if text.startswith("/"):
        try:
            return Pointer.parse(text)
        except InvalidPointer as error:
            raise options.wrong(key, str(error)) from None
    if not is_name(text):
        raise options.wrong(
            key, "must be a JSON Pointer that begins with / or a name: 1–8 tokens of A-Z a-z 0-9 _ - : @ joined by dots"
        )
    return text


def _name(where: Pointer | str, item: object) -> str:
    return where if isinstance(where, str) else name_of(where.read(item))


def _key(value: object, where: Pointer) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise NothingThere(f"no id at {where.text}: a text or a number belongs there")


def _tag(time: object) -> str | int | float:
    return time if isinstance(time, str | int | float) and not isinstance(time, bool) else json.dumps(time)[:256]
