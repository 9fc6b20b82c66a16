"""The newest signal of each type and entity that a filter lets through: as of an offset, or after one."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Generator, Iterator

import attrs

from actors.filters import Filter
from actors.groups import FRAME_BYTES, FRAME_SIGNALS, SCAN_BYTES, SCAN_ENTRIES, Group, Page
from actors.log import SignalLog
from actors.pending import CONFLATED_BYTES
from actors.stream import SnapPart

PAIRS_MAX = 100_000  # of a type and an entity in one snapshot; beyond, the newest of them
CUT_KEPT = 32  # snapshots that clients may be reading: at most 26 MB, in practice far less
NEWEST_KEPT = 4  # filters whose next snapshot needs to look only at what has come since


@attrs.frozen
class _Newest:
    upto: int
    offsets: dict[tuple[str, str], int]  # ascending: the newest was put in last


@attrs.define(eq=False)
class Snapshots:
    """Finds snapshots, and cuts them and backfills into parts; what was found is kept for those who ask next."""

    log: SignalLog
    _cut: OrderedDict[tuple[int, int], array[int]] = attrs.field(factory=OrderedDict, init=False)
    _newest: OrderedDict[int, _Newest] = attrs.field(factory=OrderedDict, init=False)

    def find(self, group: int, filter_: Filter, oldest: int, upto: int) -> Iterator[int]:
        """Find the snapshot of a group as of an offset; yields now and then so that the caller can let others run."""
        key = (group, upto)
        if key in self._cut:
            self._cut.move_to_end(key)
            return
        base = self._newest.get(group)
        if base is None or base.upto > upto:
            base = _Newest(oldest - 1, {})
        offsets = dict(base.offsets)
        for entry in self.log.entries(max(base.upto, oldest - 1), upto):
            if filter_.matches(entry.value):
                pair = (entry.value["type"], entry.value["entity"])
                offsets.pop(pair, None)
                offsets[pair] = entry.offset
                if len(offsets) > PAIRS_MAX:
                    del offsets[next(iter(offsets))]
            if entry.offset % SCAN_ENTRIES == 0:
                yield entry.offset
        self._keep(group, _Newest(upto, offsets))

    def _keep(self, group: int, newest: _Newest) -> None:
        self._cut[group, newest.upto] = array("q", newest.offsets.values())
        if len(self._cut) > CUT_KEPT:
            self._cut.popitem(last=False)
        self._newest[group] = newest
        self._newest.move_to_end(group)
        if len(self._newest) > NEWEST_KEPT:
            self._newest.popitem(last=False)

    def part(self, group: int, upto: int, after: int) -> SnapPart | None:
        """What comes next of a snapshot; None when it is to be found (again)."""
        offsets = self._cut.get((group, upto))
        if offsets is None:
            return None
        texts: list[bytes] = []
        size, at = 0, after
        for offset in offsets:
            if offset <= after:
                continue
            text = self.log.text(offset)
            if text is not None:  # else retention removed it meanwhile
                if len(texts) >= FRAME_SIGNALS or (texts and size + len(text) > FRAME_BYTES):
                    return SnapPart(at, b",".join(texts), more=True)
                texts.append(text)
                size += len(text)
            at = offset
        return SnapPart(upto, b",".join(texts), more=False)

    def backfill(self, filter_: Filter, without: Filter, after: int, upto: int) -> SnapPart:
        """What comes next of a backfill: what one filter lets through and the other does not."""
        texts: list[bytes] = []
        size, scanned_bytes, at = 0, 0, after
        for scanned, entry in enumerate(self.log.entries(after, upto)):
            if scanned >= SCAN_ENTRIES or scanned_bytes >= SCAN_BYTES:
                return SnapPart(at, b",".join(texts), more=True)
            if filter_.matches(entry.value) and not without.matches(entry.value):
                if len(texts) >= FRAME_SIGNALS or (texts and size + len(entry.text) > FRAME_BYTES):
                    return SnapPart(at, b",".join(texts), more=True)
                texts.append(entry.text)
                size += len(entry.text)
            scanned_bytes += len(entry.text)
            at = entry.offset
        return SnapPart(upto, b",".join(texts), more=False)


def conflate(log: SignalLog, group: Group, asked: int, oldest: int) -> Generator[None, None, Page]:
    """One page with the newest signal of each type and entity; yields now and then so that others can run."""
    after, upto, size, left_out = max(asked, oldest - 1), group.cursor, 0, 0
    at = after
    texts: dict[tuple[str, str], bytes] = {}
    for entry in log.entries(after, upto):
        if group.filter.matches(entry.value):
            pair = (entry.value["type"], entry.value["entity"])
            older = texts.pop(pair, None)
            texts[pair] = entry.text
            size += len(entry.text) - len(older or b"")
            left_out += older is not None
        at = entry.offset
        if size >= CONFLATED_BYTES:
            break
        if at % SCAN_ENTRIES == 0:
            yield
    return Page(asked, after, at, b",".join(texts.values()), at >= group.cursor, (), left_out)
