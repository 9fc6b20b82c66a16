"""Pages of the log for those who read it at their own pace: `hist` on a socket, and `GET /v1/history`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping

import attrs

from actors.filters import Filter, InvalidFilter
from actors.log import Entry, SignalLog, StreamState
from actors.principal import Capability
from actors.protocol import ijson
from actors.protocol.allowed import narrowed
from actors.protocol.codes import BAD_FILTER, BAD_FROM, CURSOR_EXPIRED, EPOCH_MISMATCH, FORBIDDEN, ErrorCode
from actors.protocol.cursor import Cursor, InvalidCursor, Since
from actors.protocol.fields import Refused
from actors.protocol.limits import HISTORY_LIMIT, HISTORY_LIMIT_MAX

PAGE_BYTES = 65_536  # of signals; the first one may be larger alone
SCAN_ENTRIES = 500  # log entries that one page reads: some 3 ms
SCAN_BYTES = 1_048_576
_TRUTHS = {"": True, "1": True, "true": True, "0": False, "false": False}


@attrs.frozen(kw_only=True)
class Wish:
    """What somebody wants to read.

    Attributes:
        filter: canonical text. since: where to begin. limit: the most signals.
        reverse: from there backwards, newest first; `since` itself is then the first that may come.
    """

    filter: str
    since: Since
    limit: int = HISTORY_LIMIT
    reverse: bool = False

    @classmethod
    def from_query(cls, query: Mapping[str, str], capability: Capability) -> Wish:
        """What the query of a URL asks for, as far as it is allowed; all of it is optional. Raises: Refused."""
        if not capability.hist:
            raise Refused("the token does not allow to read history", at="", error=FORBIDDEN)
        reverse = _TRUTHS.get(query.get("reverse", "0").lower())
        if reverse is None:
            raise Refused(f"reverse is {query['reverse'][:64]!r}; it is true or false", at="/reverse")
        return cls(
            filter=narrowed(_filter(query.get("filter", "")), capability).canonical,
            since=_after(query["after"]) if "after" in query else "now" if reverse else "earliest",
            limit=_limit(query.get("limit", str(HISTORY_LIMIT))),
            reverse=reverse,
        )


@attrs.frozen(kw_only=True)
class HistoryPage:
    """All and only the matching signals with `a < o ≤ b`.

    Attributes:
        signals: their JSON texts, joined by commas; ascending, or newest first when asked in reverse.
        more: the log goes on, after `b` or in reverse before `a`. A page may be empty and have more behind it.
        epoch, oldest, head: where the stream stands.
    """

    a: int
    b: int
    signals: bytes = attrs.field(repr=False)
    more: bool
    epoch: str
    oldest: int
    head: int

    @property
    def json(self) -> str:
        """The page as a JSON object."""
        return "{" + self.fields + "}"

    @property
    def fields(self) -> str:
        """What is in that object, without its braces."""
        more = "true" if self.more else "false"
        bounds = f'"more":{more},"epoch":"{self.epoch}","oldest":{self.oldest},"head":{self.head}'
        return f'"a":{self.a},"b":{self.b},"d":[{self.signals.decode()}],{bounds}'


@attrs.frozen
class Unreadable:
    """Where to begin is no place of this log (any more)."""

    error: ErrorCode
    message: str


def cut(log: SignalLog, state: StreamState, wish: Wish, place: int | None = None) -> HistoryPage | Unreadable:
    """Cut one page.

    Args:
        log: what to read. state: its bounds. wish: what is wanted.
        place: the offset that `Last` means.
    """
    begin = place if place is not None else _begin(state, wish.since)
    if isinstance(begin, Unreadable):
        return begin
    begin = max(begin, state.oldest - 1)
    entries = log.entries_back(begin, state.oldest - 1) if wish.reverse else log.entries(begin, state.head)
    texts, end = _taken(entries, wish, begin)
    return HistoryPage(
        a=end if wish.reverse else begin,
        b=begin if wish.reverse else end,
        signals=b",".join(texts),
        more=end >= state.oldest if wish.reverse else end < state.head,
        epoch=state.epoch,
        oldest=state.oldest,
        head=state.head,
    )


def _begin(state: StreamState, since: Since) -> int | Unreadable:
    match since:
        case "now":
            return state.head
        case Cursor(epoch, offset) if epoch != state.epoch or offset > state.head:
            message = f"the cursor {since} is none of this log, which is {state.epoch} up to {state.head}"
            return Unreadable(EPOCH_MISMATCH, message)
        case Cursor(_, offset) if offset < state.oldest - 1:
            message = f"the log begins at {state.oldest}; after {offset} something is missing"
            return Unreadable(CURSOR_EXPIRED, message)
        case Cursor(_, offset):
            return offset
        case _:
            return state.oldest - 1


def _taken(entries: Iterator[Entry], wish: Wish, begin: int) -> tuple[list[bytes], int]:
    """The texts of what matches, and the offset up to which (in reverse: down to which) that is all."""
    matches = Filter.from_canonical(wish.filter).matches
    texts: list[bytes] = []
    end, size, scanned_bytes = begin, 0, 0
    for scanned, entry in enumerate(entries):
        if scanned >= SCAN_ENTRIES or scanned_bytes >= SCAN_BYTES:
            break
        if matches(entry.value):
            if len(texts) >= wish.limit or (texts and size + len(entry.text) > PAGE_BYTES):
                break
            texts.append(entry.text)
            size += len(entry.text)
        scanned_bytes += len(entry.text)
        end = entry.offset - 1 if wish.reverse else entry.offset
    return texts, end


# --- the query of a URL -----------------------------------------------------------------------------------


def _filter(text: str) -> Filter:
    """A filter as JSON, or as the base64url of it, which needs no escapes."""
    try:
        return Filter.parse(filter_of_query(text))
    except InvalidFilter as error:
        raise Refused(str(error), at=f"/filter{error.at}", error=BAD_FILTER) from None


def filter_of_query(text: str) -> object:
    """The filter of a query, not checked yet: JSON, or the base64url of it; nothing lets everything pass.

    Raises: Refused.
    """
    try:
        if text and not text.startswith("{"):
            text = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
        return ijson.parse(text or "{}")
    except (ijson.InvalidJson, binascii.Error, UnicodeDecodeError) as error:
        raise Refused(f"filter is neither JSON nor the base64url of it: {error}", at="/filter") from None


def _after(text: str) -> Since:
    try:
        return Cursor.parse(text)
    except InvalidCursor as error:
        raise Refused(str(error), at="/after", error=BAD_FROM) from None


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= HISTORY_LIMIT_MAX:
        raise Refused(f"limit is {text[:64]!r}; it is an integer, 1 … {HISTORY_LIMIT_MAX}", at="/limit")
    return int(text)
