"""The place of a source that offers its newest items again and again: validators, and what was published."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Self

import attrs

from actors.ingest.http_get import Fetched, Validators
from actors.ingest.mapping import Item
from actors.ingest.seen import SEEN_ITEMS, Seen
from actors.ingest.source import Batch, Gathering, InvalidCursor, Rejected, SourceFailed


@attrs.frozen(kw_only=True)
class Place:
    """What is in the cursor.

    Attributes:
        validators: of the last answer that was published to its end. seen: what was published, or rejected.
    """

    validators: Validators = attrs.field(factory=Validators)
    seen: str = ""

    @classmethod
    def parse(cls, cursor: str | None) -> Self:
        """Read what `cursor` wrote. Raises: InvalidCursor."""
        if cursor is None:
            return cls()
        try:
            etag, modified, seen = json.loads(cursor)
            Seen.parse(seen)
        except (ValueError, TypeError) as error:
            raise InvalidCursor(
                f"the stored place is not one of this kind of source ({error}); give the source another name"
            ) from None
        return cls(validators=Validators(etag=etag, modified=modified), seen=seen)

    @property
    def cursor(self) -> str:
        """For the stream to keep."""
        return json.dumps([self.validators.etag, self.validators.modified, self.seen], separators=(",", ":"))

    def unchanged(self, cursor: str | None, pause_s: float = 0.0) -> Batch:
        """Nothing is new."""
        return Batch(self.cursor if cursor is None else cursor, pause_s=pause_s)

    def publish(self, offered: Sequence[tuple[str | None, Item | Rejected]], fetched: Fetched | None = None) -> Batch:
        """What is new among all that is offered now, in this order.

        Args:
            offered: the key of each item, None for one that is never offered again; and the item, or why it is none.
            fetched: what brought them.

        Raises: SourceFailed when more is offered than can be remembered.
        """
        if len(offered) > SEEN_ITEMS:
            raise SourceFailed(f"{len(offered):,} items are offered at once; at most {SEEN_ITEMS:,} can be told apart")
        seen = Seen.parse(self.seen)
        new = [(key, item) for key, item in offered if key is None or key not in seen]
        for key, _ in offered:
            if key is not None and key in seen:
                seen.add(key)  # renewed, so that what is forgotten is not what is still offered
        gathering, rejected, more = Gathering(), list[Rejected](), False
        for key, item in new:
            if key is not None and key in seen:
                continue  # offered twice in one answer
            if isinstance(item, Rejected):
                rejected.append(item)
            elif gathering.has_room(item.draft):
                gathering.add(item.draft)
            else:
                more = True
                break
            if key is not None:
                seen.add(key)
        pause_s = 0.0 if fetched is None else fetched.pause_s
        # With the new validators the server would not send again what did not fit.
        validators = self.validators if more or fetched is None else fetched.validators
        if not new and validators == self.validators:
            return Batch(self.cursor, pause_s=pause_s)
        place = Place(validators=validators, seen=seen.text)
        return Batch(place.cursor, tuple(gathering.signals), more, tuple(rejected), pause_s)
