"""Source `http`: a JSON document that is asked for again and again; its new items become signals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import httpx

from actors.ingest.http_get import Fetched, Getter
from actors.ingest.mapping import Item, ItemMapping, NoSignal, content_key
from actors.ingest.options import Options
from actors.ingest.polled import Place
from actors.ingest.source import Batch, Rejected, Source, SourceFailed, World

ACCEPT = "application/json, */*;q=0.1"


@attrs.frozen(kw_only=True)
class Http:
    """An item is published once: it is known by its `id`, or by its content when it has none.

    Attributes:
        newest_first: the document has the newest item first; it is published last.
    """

    world: World
    getter: Getter
    mapping: ItemMapping
    newest_first: bool

    async def fetch(self, cursor: str | None) -> Batch:
        """Ask once. Raises: SourceFailed, InvalidCursor."""
        place = Place.parse(cursor)
        fetched = await self.getter.get(place.validators, ACCEPT)
        if fetched.body is None:
            return place.unchanged(cursor, fetched.pause_s)
        batch: Batch = await self.world.run_blocking(self._publish, place, fetched)
        return batch

    def _publish(self, place: Place, fetched: Fetched) -> Batch:
        assert fetched.body is not None
        try:
            values = self.mapping.split(json.loads(fetched.body))
        except NoSignal as error:
            raise SourceFailed(str(error)) from None
        except (ValueError, RecursionError) as error:
            raise SourceFailed(f"the answer is not JSON: {error}") from None
        return place.publish(self._items(values), fetched)

    def _items(self, values: Sequence[object]) -> list[tuple[str, Item | Rejected]]:
        found: list[tuple[str, Item | Rejected]] = []
        for index, value in enumerate(values):
            try:
                item = self.mapping.item(value, self.world)
                found.append((item.key, item))
            except NoSignal as error:
                # Known by its content, so that it is reported once and not with every answer.
                found.append((content_key(value), Rejected(f"item {index}", str(error))))
        return found[::-1] if self.newest_first else found


def http(world: World, options: Mapping[str, Any], transport: httpx.AsyncBaseTransport | None = None) -> Source:
    """A source that asks a URL for JSON. Raises: InvalidOptions."""
    read = Options("http", options)
    source = Http(
        world=world,
        getter=Getter.of(read, world, transport),
        mapping=ItemMapping.of(read, entity=world.name),
        newest_first=read.flag("newest_first", default=False),
    )
    read.done()
    return source
