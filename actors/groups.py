"""Filter groups: subscribers with equal canonical filter and mode share one evaluation, cursor and encoded frame."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import attrs

from actors.filters import Filter
from actors.filters.index import FilterIndex
from actors.log import SignalLog
from actors.signals import Signal
from runtime import Storage

_PREFIX = "group/"
_NAMED = 4_096  # pairs of a type and an entity that are remembered
_NAMED_GROUPS = 250_000  # for all of them together: 2 MiB
_LOADED_AT_ONCE = 32  # rows: 1 to 2 ms
FRAME_SIGNALS = 500
FRAME_BYTES = 65_536
SCAN_ENTRIES = 500  # log entries that one page or one look back reads: some 3 ms
SCAN_BYTES = 1_048_576
PAGES_KEPT = 64  # at most 4 MiB


class TooManyGroups(Exception):
    """No room for one more distinct filter."""


@attrs.frozen
class Page:
    """A piece of the log as one subscriber's filter sees it.

    Attributes:
        asked: the offset it was asked from. after: where it begins; more than `asked` when that is not stored any more.
        upto: where it ends. signals: their JSON texts, joined by commas.
        complete: it ends at the group's cursor, so the group's next live frame follows it without a hole.
        parts: for `latest` the texts one by one, without the `left_out` that are older than one of the same names.
    """

    asked: int
    after: int
    upto: int
    signals: bytes
    complete: bool
    parts: tuple[bytes, ...] = ()
    left_out: int = 0


@attrs.frozen
class _Row:
    filter: str
    shards: tuple[str, ...]
    min_ms: int = 0


@attrs.define(eq=False)
class Group:
    """Subscribers with one canonical filter and mode.

    Attributes:
        number: the `g` of its frames. cursor: the `upto` of its last frame. shards: who gets its frames.
        min_ms: 0 for `mode` `all`; for `latest` the shards send one frame every so many ms.
    """

    number: int
    filter: Filter
    cursor: int
    shards: dict[str, None] = attrs.Factory(dict)
    min_ms: int = 0


@attrs.define(eq=False)
class _Named:
    """Groups whose `types` and `entities` let a signal of some names pass.

    Attributes:
        certain: those without a `where`. asked: those whose `where` decides.
    """

    certain: list[Group] = attrs.Factory(list)
    asked: list[Group] = attrs.Factory(list)

    def __len__(self) -> int:
        return len(self.certain) + len(self.asked)


class Groups:
    """All groups of a stream. Their numbers are stored, so that clients never notice a restart of the broadcaster.

    To be loaded before anything else.

    Args:
        most: how many distinct filters there may be.
    """

    def __init__(self, storage: Storage, *, most: int) -> None:
        self._storage = storage
        self._most = most
        self._newest = 0
        self._visited = 0
        self._by_number: dict[int, Group] = {}
        self._by_filter: dict[tuple[str, int], Group] = {}
        self._pages: OrderedDict[tuple[int, int], Page] = OrderedDict()
        self._index: FilterIndex[Group] = FilterIndex()
        self._named: dict[tuple[str, str], _Named] = {}
        self._named_groups = 0

    def load(self, cursor: int) -> Iterator[int]:
        """Read the stored groups, in pieces so that the caller can let others run; all get this cursor."""
        after: str | None = None
        while True:
            rows = self._storage.list(_Row, prefix=_PREFIX, start_after=after, limit=_LOADED_AT_ONCE)
            for key, row in rows.items():
                self._newest = int(key.removeprefix(_PREFIX), 16)
                filter_ = Filter.from_canonical(row.filter)
                self._keep(Group(self._newest, filter_, cursor, dict.fromkeys(row.shards), row.min_ms))
                after = key
            if len(rows) < _LOADED_AT_ONCE:
                return
            yield len(self)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._by_number.values())

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> Group | None:
        """The group of this number."""
        return self._by_number.get(number)

    def matching(self, signal: Signal) -> Iterator[Group | None]:
        """Every group that the signal is for; None for each that had to be asked and is not."""
        named = self._named.get((signal.type, signal.entity))
        if named is None:
            named = _Named()
            for group in self._index.by_names(signal.type, signal.entity):
                if not group.filter.matches_names(signal.type, signal.entity):
                    yield None
                elif group.filter.has_where:
                    named.asked.append(group)
                else:
                    named.certain.append(group)
            self._remember(signal, named)
        yield from named.certain
        for group in named.asked:
            yield group if group.filter.matches_where(signal.value) else None
        if self._index.has_values:
            for group in self._index.by_values(signal.value):
                yield group if group.filter.matches(signal.value) else None

    def _remember(self, signal: Signal, named: _Named) -> None:
        """Names repeat, and while the groups stay the same so does what the names decide."""
        self._named_groups += len(named)
        if self._named_groups > _NAMED_GROUPS or len(self._named) >= _NAMED:
            self._forget_named()
            self._named_groups = len(named)
        self._named[signal.type, signal.entity] = named

    def _forget_named(self) -> None:
        self._named.clear()
        self._named_groups = 0

    def visit(self, most: int) -> list[Group]:
        """The next groups in turn, at most so many; every one is visited before the first is again."""
        later = [group for group in self if group.number > self._visited]
        turn = (later or list(self))[:most]
        if turn:
            self._visited = turn[-1].number
        return turn

    def open(self, canonical: str, head: int, min_ms: int = 0) -> Group:
        """The group of a filter and a mode; a new one begins at `head`, and is kept once a shard listens.

        Raises: TooManyGroups.
        """
        group = self._by_filter.get((canonical, min_ms))
        if group is None:
            if len(self) >= self._most:
                raise TooManyGroups(f"{self._most:,} distinct filters are in use; no room for more (stream.groups)")
            self._newest += 1
            group = Group(self._newest, Filter.from_canonical(canonical), head, min_ms=min_ms)
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
        del self._by_number[number], self._by_filter[group.filter.canonical, group.min_ms]
        self._index.remove(group)
        self._forget_named()
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
        upto, size, scanned_bytes, left_out = after, 0, 0, 0
        texts: dict[object, bytes] = {}  # by offset, or for `latest` by names; ascending
        for entry in log.entries(after, group.cursor):
            if entry.offset - after > SCAN_ENTRIES or scanned_bytes >= SCAN_BYTES:
                break
            if group.filter.matches(entry.value):
                if len(texts) >= FRAME_SIGNALS or (texts and size + len(entry.text) > FRAME_BYTES):
                    break
                key = (entry.value["type"], entry.value["entity"]) if group.min_ms else entry.offset
                left_out += texts.pop(key, None) is not None
                texts[key] = entry.text
                size += len(entry.text)
            scanned_bytes += len(entry.text)
            upto = entry.offset
        parts = tuple(texts.values())
        return Page(asked, after, upto, b",".join(parts), upto >= group.cursor, parts if group.min_ms else (), left_out)

    def _keep(self, group: Group) -> None:
        self._by_number[group.number] = self._by_filter[group.filter.canonical, group.min_ms] = group
        self._index.add(group, group.filter.canonical)
        self._forget_named()

    def _store(self, group: Group) -> None:
        # The answer waits for it: an instance that ends with a failed commit takes no sockets with it, and the next one
        # would neither tell their shard anything nor know that the number is taken.
        self._storage.put(_key(group.number), _Row(group.filter.canonical, tuple(group.shards), group.min_ms))


def _key(number: int) -> str:
    return f"{_PREFIX}{number:08x}"
