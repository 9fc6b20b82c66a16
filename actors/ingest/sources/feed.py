"""Source `feed`: an RSS or Atom feed; each new entry becomes a signal."""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from typing import Any

import attrs
import feedparser
import httpx

from actors.ingest.http_get import Fetched, Getter
from actors.ingest.mapping import Item, content_key
from actors.ingest.options import Options
from actors.ingest.polled import Place
from actors.ingest.source import Batch, Rejected, Source, SourceFailed, World
from actors.signals import Draft, InvalidSignal, is_name

ACCEPT = "application/atom+xml, application/rss+xml, application/xml;q=0.9, text/xml;q=0.9, */*;q=0.1"
SUMMARY_CHARACTERS = 10_000
TEXT_CHARACTERS = 2_000
TAGS_MAX = 50


@attrs.frozen(kw_only=True)
class Feed:
    """An entry is published once: it is known by its guid or id, else by its link, else by its content."""

    world: World
    getter: Getter
    type: str
    entity: str

    async def fetch(self, cursor: str | None) -> Batch:
        """Ask once. Raises: SourceFailed, InvalidCursor."""
        place = Place.parse(cursor)
        fetched = await self.getter.get(place.validators, ACCEPT)
        if fetched.body is None:
            return place.unchanged(cursor, fetched.pause_s)
        batch: Batch = await self.world.run_blocking(self._publish, place, fetched)
        return batch

    def _publish(self, place: Place, fetched: Fetched) -> Batch:
        parsed: Any = feedparser.parse(fetched.body, response_headers={"content-type": fetched.content_type})
        if not parsed.get("version"):
            raise SourceFailed(f"the answer is no feed: {parsed.get('bozo_exception', 'nothing of RSS or Atom in it')}")
        # Feeds have the newest entry first. By time where all entries have one; sorting keeps the order of equals.
        entries: list[Any] = parsed.entries[::-1]
        times = [_time(entry) for entry in entries]
        if None not in times:
            entries.sort(key=_sort_time)
        return place.publish([self._item(number, entry) for number, entry in enumerate(entries)], fetched)

    def _item(self, number: int, entry: Any) -> tuple[str, Item | Rejected]:
        data = _data(entry)
        key = str(entry.get("id") or entry.get("link") or content_key(data))
        try:
            draft = Draft.of(self.type, self.entity, data, id=self.world.id(key))
        except InvalidSignal as error:
            return key, Rejected(f"entry {number} ({key[:100]})", str(error))
        return key, Item(key=key, own=True, time=_time(entry), draft=draft)


def feed(world: World, options: Mapping[str, Any], transport: httpx.AsyncBaseTransport | None = None) -> Source:
    """A source that asks for a feed. Raises: InvalidOptions."""
    read = Options("feed", options)
    source = Feed(
        world=world,
        getter=Getter.of(read, world, transport),
        type=_name(read, "type", "feed.entry"),
        entity=_name(read, "entity", world.name),
    )
    read.done()
    return source


def _name(options: Options, key: str, default: str) -> str:
    text = options.text(key, default)
    if not is_name(text):
        raise options.wrong(key, "must be a name: 1–8 tokens of A-Z a-z 0-9 _ - : @ joined by dots")
    return text


def _sort_time(entry: Any) -> float:
    return _time(entry) or 0


def _time(entry: Any) -> int | None:
    parsed = _raw(entry, "published_parsed") or _raw(entry, "updated_parsed")
    return None if parsed is None else calendar.timegm(parsed)


def _raw(entry: Any, name: str) -> Any:
    """What the feed itself says; by itself feedparser gives `published` for a missing `updated`, with a warning."""
    return dict.get(entry, name)


def _data(entry: Any) -> dict[str, Any]:
    texts = {name: _text(_raw(entry, name)) for name in ("title", "link", "author", "published", "updated")}
    data: dict[str, Any] = {name: text[:TEXT_CHARACTERS] for name, text in texts.items() if text}
    if summary := _text(entry.get("summary")):
        data["summary"] = summary[:SUMMARY_CHARACTERS]
    if tags := [_text(tag.get("term"))[:TEXT_CHARACTERS] for tag in entry.get("tags", ())][:TAGS_MAX]:
        data["tags"] = tags
    return data


def _text(value: object) -> str:
    """What JSON can say of it; a feed may have anything in it."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()
