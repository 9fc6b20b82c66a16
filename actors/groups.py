"""Filter groups: subscribers with equal canonical filters share one evaluation, one cursor and one encoded frame."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import attrs

from actors.filters import Filter
from actors.log import SignalLog
from actors.protocol.messages import encode_sig
from actors.signals import Signal
from runtime import PreparedMessage, Storage

_PREFIX = "group/"
FRAME_SIGNALS = 500
FRAME_BYTES = 65_536
SCAN_ENTRIES = 500  # log entries that one page or one look back reads: some 3 ms
SCAN_BYTES = 1_048_576
PAGES_KEPT = 64  # at most 4 MiB


class TooManyGroups(Exception):
    """No room for one more distinct filter."""


@attrs.frozen
class GroupFrame:
    """One live frame of a group, the same bytes for every member; covers `after < offset <= upto`."""

    group: int
    after: int
    upto: int
    message: PreparedMessage


@attrs.frozen
class Page:
    """A piece of the log as one subscriber's filter sees it.

    Attributes:
        asked: the offset it was asked from. after: where it begins; more than `asked` when that is not stored any more.
        upto: where it ends. signals: their JSON texts, joined by commas.
        complete: it ends at the group's cursor, so the group's next live frame follows it without a hole.
    """

    asked: int
    after: int
    upto: int
    signals: bytes
    complete: bool


@attrs.frozen
class _Row:
    filter: str
    shards: tuple[str, ...]


@attrs.define(eq=False)
class Group:
    """Subscribers with one canonical filter.

    Attributes:
        number: the `g` of its frames. cursor: the `upto` of its last frame. shards: who gets its frames.
    """

    number: int
    filter: Filter
    cursor: int
    shards: dict[str, None] = attrs.Factory(dict)

    def matches(self, signal: Signal) -> bool:
        """Whether a signal is for this group; its JSON is only parsed when the filter looks into it."""
        if not self.filter.has_where:
            return self.filter.matches_names(signal.type, signal.entity)
        return self.filter.matches_names(signal.type, signal.entity) and self.filter.matches(signal.value)


class Groups:
    """All groups of a stream. Their numbers are stored, so that clients never notice a restart of the broadcaster.

    Args:
        cursor: what every group's cursor starts at: the head of the log.
        most: how many distinct filters there may be.
    """

    def __init__(self, storage: Storage, *, cursor: int, most: int) -> None:
        self._storage = storage
        self._most = most
        self._by_number: dict[int, Group] = {}
        self._by_filter: dict[str, Group] = {}
        self._pages: OrderedDict[tuple[int, int], Page] = OrderedDict()
        for key, row in storage.list(_Row, prefix=_PREFIX).items():
            number = int(key.removeprefix(_PREFIX), 16)
            self._keep(Group(number, Filter.from_canonical(row.filter), cursor, dict.fromkeys(row.shards)))
        self._newest = max(self._by_number, default=0)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._by_number.values())

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> Group | None:
        """The group of this number."""
        return self._by_number.get(number)

    def open(self, canonical: str, head: int) -> Group:
        """The group of a filter; a new one begins at `head`, and is kept once a shard listens.

        Raises: TooManyGroups.
        """
        group = self._by_filter.get(canonical)
        if group is None:
            if len(self) >= self._most:
                raise TooManyGroups(f"{self._most:,} distinct filters are in use; no room for more (stream.groups)")
            self._newest += 1
            group = Group(self._newest, Filter.from_canonical(canonical), head)
            self._keep(group)
        return group

    def listen(self, group: Group, shard: str) -> None:
        """A shard has a subscriber of the group: it gets the frames from now on."""
        if shard not in group.shards:
            group.shards[shard] = None
            self._store(group)

    def leave(self, number: int, shard: str) -> None:
        """A shard has no subscriber of the group any more; without listeners a group ends."""
        group = self._by_number.get(number)
        if group is None or shard not in group.shards:
            return
        del group.shards[shard]
        if group.shards:
            self._store(group)
            return
        del self._by_number[number], self._by_filter[group.filter.canonical]
        self._storage.delete(_key(number))

    def page(self, group: Group, log: SignalLog, asked: int, oldest: int) -> Page:
        """What the group's filter lets through after an offset: at most 500 signals, 64 KiB, 500 entries read."""
        key = (group.number, asked)
        page = self._pages.get(key)
        # A page that was cut by its bounds stays right for ever, one that reached the cursor until that moves on.
        if page is not None and page.after >= oldest - 1 and (not page.complete or page.upto == group.cursor):
            self._pages.move_to_end(key)
            return page
        page = self._pages[key] = self._cut(group, log, asked, oldest)
        if len(self._pages) > PAGES_KEPT:
            self._pages.popitem(last=False)
        return page

    def _cut(self, group: Group, log: SignalLog, asked: int, oldest: int) -> Page:
        after = max(asked, oldest - 1)
        upto, size, scanned_bytes = after, 0, 0
        texts: list[bytes] = []
        for entry in log.entries(after, group.cursor):
            if entry.offset - after > SCAN_ENTRIES or scanned_bytes >= SCAN_BYTES:
                break
            if group.filter.matches(entry.value):
                if len(texts) >= FRAME_SIGNALS or (texts and size + len(entry.text) > FRAME_BYTES):
                    break
                texts.append(entry.text)
                size += len(entry.text)
            scanned_bytes += len(entry.text)
            upto = entry.offset
        return Page(asked, after, upto, b",".join(texts), upto >= group.cursor)

    def _keep(self, group: Group) -> None:
        self._by_number[group.number] = self._by_filter[group.filter.canonical] = group

    def _store(self, group: Group) -> None:
        # Unconfirmed: what is lost in a crash belongs to sockets that are lost with it.
        row = _Row(group.filter.canonical, tuple(group.shards))
        self._storage.put(_key(group.number), row, allow_unconfirmed=True)


class Fanout:
    """The frames of one publish: groups that match the same signals share their text."""

    def __init__(self, signals: Sequence[Signal], head: int) -> None:
        self._signals = signals
        self._head = head
        self._texts: dict[tuple[int, ...], list[tuple[int, bytes]]] = {}

    def frames(self, group: Group) -> list[GroupFrame]:
        """The group's frames for what was published, its cursor moved; none when nothing matches."""
        matching = [signal for signal in self._signals if group.matches(signal)]
        if not matching:
            return []
        key = tuple(signal.o for signal in matching)
        pieces = self._texts.get(key)
        if pieces is None:
            pieces = self._texts[key] = list(self._pieces(matching))
        frames: list[GroupFrame] = []
        for upto, text in pieces:
            frames.append(_frame(group, upto, text))
            group.cursor = upto
        return frames

    def _pieces(self, matching: Sequence[Signal]) -> Iterator[tuple[int, bytes]]:
        texts: list[bytes] = []
        size = 0
        for signal in matching:
            if texts and (len(texts) >= FRAME_SIGNALS or size + len(signal.json) > FRAME_BYTES):
                yield signal.o - 1, b",".join(texts)
                texts, size = [], 0
            texts.append(signal.json)
            size += len(signal.json)
        yield self._head, b",".join(texts)


def position(group: Group, head: int) -> GroupFrame:
    """The frame without signals that moves a quiet group's cursor to the head."""
    frame = _frame(group, head, b"")
    group.cursor = head
    return frame


def _frame(group: Group, upto: int, signals: bytes) -> GroupFrame:
    text = encode_sig(g=group.number, a=group.cursor, b=upto, signals=(signals,))
    return GroupFrame(group.number, group.cursor, upto, PreparedMessage.of(text))


def _key(number: int) -> str:
    return f"{_PREFIX}{number:08x}"
