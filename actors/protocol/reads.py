"""A client's requests for pages of what is stored: asked again on the next socket until they are answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from actors.filters import Filter
from actors.protocol.cursor import Since
from actors.protocol.events import PageRead, ReadRefused
from actors.protocol.messages import Err, Page
from actors.protocol.requests import Hist

READS = 64  # at once; each waits for one page


class TooManyReads(Exception):
    """Too many pages are waited for; this one was not asked for."""


@attrs.define(eq=False)
class _Read:
    filter: Filter
    since: Since
    limit: int
    reverse: bool
    request: int | None = None  # its id on this connection, once it was asked for there


@attrs.define(eq=False)
class Reads:
    """The pages that one client waits for."""

    _waiting: dict[int, _Read] = attrs.Factory(dict[int, _Read])
    _keys: int = 0

    def add(self, filter: Filter, since: Since, limit: int, reverse: bool) -> int:  # noqa: A002
        """One more; returns its key. Raises: TooManyReads."""
        if len(self._waiting) >= READS:
            raise TooManyReads(f"{READS} pages are waited for already; ask for fewer at once")
        self._keys += 1
        self._waiting[self._keys] = _Read(filter, since, limit, reverse)
        return self._keys

    def forget(self, key: int) -> None:
        """Nobody waits for it any more."""
        self._waiting.pop(key, None)

    def disconnected(self) -> None:
        """What was asked for on that socket will not be answered."""
        for read in self._waiting.values():
            read.request = None

    def flush(self, next_id: Callable[[], int]) -> Iterator[str]:
        """The texts to send now."""
        for read in self._waiting.values():
            if read.request is None:
                read.request = next_id()
                yield Hist(
                    id=read.request, filter=read.filter, since=read.since, limit=read.limit, reverse=read.reverse
                ).encode()

    def answered(self, answer: Page | Err) -> PageRead | ReadRefused | None:
        """The outcome that a reply means; None when it is about something else."""
        asked = (key for key, read in self._waiting.items() if read.request is not None and read.request == answer.id)
        key = next(asked, None)
        if key is None:
            return None
        self.forget(key)
        if isinstance(answer, Err):
            wait = answer.retry_after_ms if answer.retry else None
            return ReadRefused(
                key=key, code=answer.code, slug=answer.slug, msg=answer.msg, retry=answer.retry, retry_after_ms=wait
            )
        return PageRead(
            key=key,
            signals=answer.signals,
            epoch=answer.epoch,
            after=answer.a,
            upto=answer.b,
            more=answer.more,
        )
