"""The stream's log: one stored key per signal, its JSON text as the value, in offset order."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from actors.settings import StreamSettings
from actors.signals import Signal
from runtime import Storage

_PREFIX = "log/"
_CHUNK = 64  # entries read at once: at most some 4 MiB of the largest ones
_READ_BYTES = 524_288  # of signals that were read and stay parsed in memory
KEPT_MIN = 1_000  # ids that are known for longer than `dedup_s`
TRIM_ENTRIES_MAX = 2_048  # one publish or alarm removes at most this many


@attrs.frozen(kw_only=True)
class StreamState:
    """What a stream is besides its log.

    Attributes:
        epoch: names this log; never empty once the stream was opened.
        lineage: of the data directory that the epoch was made in; under another one the log is a restored copy.
        secret: signs resume tokens.
        head: the newest offset, 0 before the first. oldest: the oldest offset that is still stored.
        size_bytes: of all stored signals.
        last_ts: time of the newest signal, ms; times never go backwards.
        cut_ts: time of the newest signal that was removed to keep the byte cap, ms; 0 when there was none.
    """

    epoch: str = ""
    lineage: str = ""
    secret: bytes = b""
    head: int = 0
    oldest: int = 1
    size_bytes: int = 0
    last_ts: int = 0
    cut_ts: int = 0


@attrs.frozen
class Entry:
    """One stored signal: its text, and its parsed JSON."""

    offset: int
    text: bytes
    value: dict[str, Any]


class SignalLog:
    """Reads and writes of the log; its bounds are in the `StreamState` that each call takes and returns."""

    def __init__(self, storage: Storage, settings: StreamSettings) -> None:
        self._storage = storage
        self._settings = settings
        self._oldest: tuple[int, int] = (0, 0)  # offset and time of the oldest entry, read once
        self._read: dict[int, Entry] = {}  # many groups that catch up read the same entries, one group after another
        self._read_bytes = 0

    def append(self, state: StreamState, signals: Sequence[Signal]) -> StreamState:
        """Store signals numbered from `state.head + 1` on."""
        size = state.size_bytes
        for signal in signals:
            self._storage.put(_key(signal.o), signal.json)
            size += len(signal.json)
        last = signals[-1]
        return attrs.evolve(state, head=last.o, size_bytes=size, last_ts=last.ts)

    def entries(self, after: int, upto: int) -> Iterator[Entry]:
        """Stored signals with `after < offset <= upto`, ascending; what was read last is still at hand."""
        while after < upto:
            entry = self._read.get(after + 1)
            if entry is not None:
                after += 1
                yield entry
                continue
            chunk = self._chunk(after, upto)
            if not chunk:
                return
            self._keep(chunk)
            for entry in chunk:
                after = entry.offset
                yield entry

    def _chunk(self, after: int, upto: int) -> list[Entry]:
        limit = min(_CHUNK, upto - after)
        found = self._storage.list(bytes, start_after=_key(after), end=_key(upto + 1), limit=limit)
        return [Entry(_offset(key), text, json.loads(text)) for key, text in found.items()]

    def _keep(self, chunk: Sequence[Entry]) -> None:
        for entry in chunk:
            if entry.offset not in self._read:
                self._read[entry.offset] = entry
                self._read_bytes += len(entry.text)
        while self._read_bytes > _READ_BYTES:
            self._read_bytes -= len(self._read.pop(next(iter(self._read))).text)

    def entries_back(self, upto: int, after: int = 0) -> Iterator[Entry]:
        """Stored signals with `after < offset <= upto`, newest first."""
        while upto > after:
            found = self._storage.list(
                bytes, start_after=_key(max(after, upto - _CHUNK)), end=_key(upto + 1), reverse=True
            )
            if not found:
                return
            for key, text in found.items():
                upto = _offset(key) - 1
                yield Entry(upto + 1, text, json.loads(text))

    def text(self, offset: int) -> bytes | None:
        """One stored signal; None when it is not stored any more."""
        entry = self._read.get(offset)
        return self._storage.get(_key(offset), bytes) if entry is None else entry.text

    def before(self, state: StreamState, ts: int) -> int:
        """The newest offset whose signal is older than a time, ms; times never go backwards."""
        below, above = state.oldest - 1, state.head + 1
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (middle, above) if self._time(middle) < ts else (below, middle)
        return below

    def oldest_ts(self, state: StreamState) -> int:
        """Time of the oldest stored signal, ms; of the newest one when none is stored."""
        if state.oldest > state.head:
            return state.last_ts
        if self._oldest[0] != state.oldest:
            self._oldest = (state.oldest, self._time(state.oldest))
        return self._oldest[1]

    def trim(self, state: StreamState, now_ms: int) -> StreamState:
        """Remove what retention no longer keeps, a bounded piece at a time; the newest signal always stays."""
        removed: list[str] = []
        size, cut_ts = state.size_bytes, state.cut_ts
        if not self._expired(state.oldest, self.oldest_ts(state), size, state, now_ms):
            return state
        for entry in self._oldest_entries(state):
            ts = int(entry.value["ts"])
            why = self._expired(entry.offset, ts, size, state, now_ms)
            if not why:
                break
            removed.append(_key(entry.offset))
            size -= len(entry.text)
            if why == "bytes":
                cut_ts = ts
        for key in removed:
            self._storage.delete(key)
        return attrs.evolve(state, oldest=state.oldest + len(removed), size_bytes=size, cut_ts=cut_ts)

    def _oldest_entries(self, state: StreamState) -> Iterator[Entry]:
        after, upto = state.oldest - 1, min(state.head - 1, state.oldest + TRIM_ENTRIES_MAX - 1)
        while after < upto and (chunk := self._chunk(after, upto)):
            yield from chunk
            after = chunk[-1].offset

    def _expired(self, offset: int, ts: int, size: int, state: StreamState, now_ms: int) -> str:
        limits = self._settings
        age_s = (now_ms - ts) / 1000
        if offset >= state.head:
            return ""
        if size > limits.retention_bytes:
            return "bytes"
        if age_s > limits.retention_max_s:
            return "age"
        return "count" if state.head - offset >= limits.retention_signals and age_s > limits.retention_s else ""

    def _time(self, offset: int) -> int:
        text = self._storage.get(_key(offset), bytes)
        assert text is not None, f"the log has no {offset}"
        return int(json.loads(text)["ts"])


class RecentIds:
    """Ids of the newest signals, so that a repeated publication gets the offset of the first.

    The last `KEPT_MIN` are known however old they seem: a clock that was set, or a machine that slept, makes nobody
    forget what was said a moment ago.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._window_ms = round(settings.dedup_s * 1000)
        self._most = settings.dedup_signals
        self._kept = KEPT_MIN if self._window_ms else 0
        self._offsets: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self.loaded = False

    def find(self, id: str, now_ms: int) -> int | None:  # noqa: A002 - the protocol's word
        """The offset of the signal with this id, if it is recent."""
        found = self._offsets.get(id)
        if found is None:
            return None
        offset, ts = found
        return offset if ts >= now_ms - self._window_ms or self._among_the_last(offset) else None

    def _among_the_last(self, offset: int) -> bool:
        newest, _ = self._offsets[next(reversed(self._offsets))]
        return offset > newest - self._kept

    def add(self, id: str, offset: int, ts: int) -> None:  # noqa: A002 - the protocol's word
        """Remember the newest signal; forget what is too old or too much."""
        self._offsets[id] = (offset, ts)
        self._offsets.move_to_end(id)
        while self._offsets:
            oldest, (known, at) = next(iter(self._offsets.items()))
            recent = at >= ts - self._window_ms or self._among_the_last(known)
            if len(self._offsets) <= self._most and recent:
                return
            del self._offsets[oldest]

    def rebuild(self, log: SignalLog, state: StreamState, now_ms: int) -> Iterator[int]:
        """Read them back from the log's tail; yields now and then so that the caller can let others run."""
        found: list[tuple[str, int, int]] = []
        for entry in log.entries_back(state.head):
            ts = int(entry.value["ts"])
            if (ts < now_ms - self._window_ms and len(found) >= self._kept) or len(found) >= self._most:
                break
            found.append((entry.value["id"], entry.offset, ts))
            if len(found) % _CHUNK == 0:
                yield len(found)
        for id_, offset, ts in reversed(found):
            self.add(id_, offset, ts)
        self.loaded = True


def _key(offset: int) -> str:
    return f"{_PREFIX}{offset:016x}"


def _offset(key: str) -> int:
    return int(key.removeprefix(_PREFIX), 16)
