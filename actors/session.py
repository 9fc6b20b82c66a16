"""What a shard holds of a connection, a team and a group while it is in memory; all of it can be built again."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Final, Literal

import attrs
import trio

from actors.event_source import EventSource
from actors.flight_recorder import FlightRecorder
from actors.measures import ShardMeasures
from actors.pending import Everything, Frame, Newest, Pending
from actors.protocol.codes import CloseCode
from actors.protocol.encoding import ENCODINGS, EncodingName
from actors.protocol.limits import Limits
from actors.protocol.server import ServerMachine
from actors.protocol.server_sent_events import encode_events
from actors.signals import SignalTexts, offsets_in
from runtime import PreparedMessage, Recipients, WebSocket

PAGE_BACKLOG_BYTES = 65_536  # a catch-up page is only sent to a socket with less than this on its way
ACK_S = 4.5  # a client says how far it is every 5 s, and the way of one may be shorter than that of the one before
EVENTS: Final = "events"
Frames = EncodingName | Literal["events"]
"""What a group's frames are made for: the encodings of sockets, and server-sent events."""
CHUNK_SOCKETS = 64  # then the rest of the server gets a moment (settled by measurement: longest stall 101 → 15 ms)


@attrs.frozen
class Passed:
    """Signals that went to the live members of a group.

    Attributes:
        left_out: those that newer ones replaced. nbytes: of the others, as JSON.
    """

    signals: int = 0
    left_out: int = 0
    nbytes: int = 0

    def __add__(self, other: Passed) -> Passed:
        return Passed(self.signals + other.signals, self.left_out + other.left_out, self.nbytes + other.nbytes)

    def __sub__(self, other: Passed) -> Passed:
        return Passed(self.signals - other.signals, self.left_out - other.left_out, self.nbytes - other.nbytes)


@attrs.define(eq=False)
class Connection:
    """One socket of a shard, or one event source.

    Attributes:
        ws: what is sent to. measures: of its shard.
        waiting: frames that came while an earlier one is carried out. busy: one is carried out now.
        catching_up: a task sends it pages. closed: nothing is sent to it any more.
        changing: the subscription that a `mod` is about to change. resets: how often its epoch was over.
        groups: of its live subscriptions, with how many each has.
        careful: it is not closed for reading slowly; its subscriptions then wait. slow_bytes: what was on its way then.
        acked: how far its client said that subscriptions are. acked_at: when that was.
        queued_at: since when there has always been something on its way, as seen at each flush.
        passed: live signals that it was sent, and those that newer ones replaced, in groups that it has left.
        begins: how many had passed in each of its groups when it joined.
        missed: by subscription, how many had passed when one that skips what it is too slow for got no more.
        dropped: how many it did not get for that. number: among all connections that its shard has had.
        leaving: it is sent elsewhere by itself. recorder: an operator looks at it.
        recovering: since when subscriptions that continued from a cursor catch up.
        since: trio's clock when this instance met it: a wall clock that is set must not run out a client's time to
            say hello, after which it would not come back.
    """

    ws: WebSocket | EventSource
    machine: ServerMachine
    measures: ShardMeasures
    waiting: deque[str | bytes] = attrs.Factory(deque)
    busy: bool = False
    catching_up: bool = False
    closed: bool = False
    changing: str | None = None
    groups: dict[int, int] = attrs.Factory(dict)
    resets: int = 0
    careful: bool = False
    slow_bytes: int = 0
    queued_at: float | None = None
    acked: Mapping[str, int] = attrs.Factory(dict)
    acked_at: float = -math.inf
    passed: Passed = Passed()
    begins: dict[int, Passed] = attrs.Factory(dict)
    missed: dict[str, Passed] = attrs.Factory(dict)
    dropped: int = 0
    number: int = 0
    leaving: bool = False
    recorder: FlightRecorder | None = None
    recovering: dict[str, float] = attrs.Factory(dict)
    since: float = attrs.Factory(trio.current_time)

    @property
    def frames(self) -> Frames:
        """What its frames are."""
        if isinstance(self.ws, EventSource):
            return EVENTS
        return self.machine.state.encoding

    @property
    def compresses(self) -> bool:
        """Its messages are compressed."""
        return isinstance(self.ws, WebSocket) and self.ws.compressed

    @property
    def socket(self) -> WebSocket | None:
        """Its socket; None for an event source."""
        return None if isinstance(self.ws, EventSource) else self.ws

    @property
    def open_s(self) -> float:
        """For how long this instance knows it."""
        return trio.current_time() - self.since

    def joined(self, number: int, passed: Passed) -> None:
        """It gets the frames of a group from here on."""
        self.begins[number] = passed

    def left(self, number: int, passed: Passed) -> None:
        """And no longer."""
        self.passed += passed - self.begins.pop(number)

    def remember(self) -> None:
        """Keep what the machine knows with the socket; an event source does not outlive the instance."""
        if isinstance(self.ws, WebSocket):
            self.ws.serialize_attachment(self.machine.state)

    def send(self, texts: str) -> None:
        """Send the JSON texts of messages, separated by newlines, in a frame; nothing is sent after close."""
        if self.closed:
            return
        if self.recorder is not None:
            self.recorder.said(texts)
        if isinstance(self.ws, EventSource):
            self.measures.told(texts)
            self.ws.send(texts)
        else:
            message = ENCODINGS[self.machine.state.encoding].encode(texts)
            self.measures.told(message)
            self.ws.send(message)

    def push(self, message: PreparedMessage) -> None:
        """Send what was encoded for all that have such frames; nothing is sent after close."""
        if self.closed:
            return
        if isinstance(self.ws, EventSource):
            self.ws.push(message.frame)
        else:
            self.ws.send(message)

    def overlaps(self, cursor: int) -> None:
        """It has what is pending up to here; a client of a socket ignores that by itself."""
        if isinstance(self.ws, EventSource):
            self.ws.has = cursor

    def reset(self, epoch: str, head: int) -> None:
        """The stream is of another epoch now; an event source ends, and its client comes back with a new cursor."""
        self.resets += 1
        text = self.machine.reset(epoch, head)
        if isinstance(self.ws, EventSource):
            self.ws.reset(text, epoch, head)
            self.close(CloseCode.INSUFFICIENT_STATE, "the stream was restored")
        else:
            self.send(text)
            self.remember()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame after everything sent so far."""
        self.closed = True
        self.waiting.clear()
        if self.recorder is not None:
            self.recorder.note("close", f"{code} {reason}".rstrip())
        self.ws.close(code, reason)

    def skipped(self, s: str, passed: Passed) -> None:
        """What a subscription that is too slow has not got up to here it will not get."""
        if s in self.missed:
            self.dropped += (passed - self.missed[s]).signals
            self.missed[s] = passed

    def acknowledge(self, offsets: Mapping[str, int]) -> bool:
        """Keep how far its client is; False: it has said so less than five seconds ago, and this is ignored."""
        now = trio.current_time()
        if now < self.acked_at + ACK_S:
            return False
        self.acked_at, self.acked = now, offsets
        return True

    def takes(self, size: int, limits: Limits) -> bool:
        """Whether a careful one may be sent so much now: the half of its limit is for what is sent besides."""
        waiting = self.ws.backlog_bytes
        now = trio.current_time()
        if not waiting or self.queued_at is None:
            self.queued_at = now if waiting else None
        queued_s = 0.0 if self.queued_at is None else now - self.queued_at
        return waiting + size <= limits.backlog_bytes // 2 and queued_s < limits.backlog_ms / 1000

    def has_room(self, s: str, limits: Limits) -> bool:
        """Whether a piece of the log may be sent for a subscription that is not live."""
        waiting = self.ws.backlog_bytes
        if not self.machine.state.subs[s].slow:
            return waiting < PAGE_BACKLOG_BYTES
        return not waiting or waiting < min(limits.backlog_bytes // 4, self.slow_bytes)

    @property
    def behind(self) -> list[str]:
        """Subscriptions that are not live yet, without one that is about to change."""
        return [s for s, sub in self.machine.state.subs.items() if not sub.live and s != self.changing]


@attrs.define(eq=False)
class Team:
    """Connections of one shard with live subscriptions of the same groups: each flush writes them the same bytes.

    Attributes:
        groups: the groups' numbers, ascending; most teams have one. frames: what each member's frames are.
        members: the connections.
        careful: each of them is looked at before it is written to.
    """

    groups: tuple[int, ...]
    frames: Frames
    careful: bool = False
    members: dict[Connection, None] = attrs.Factory(dict)
    _chunks: tuple[Recipients, ...] | None = None

    def add(self, connection: Connection) -> None:
        """One more."""
        self.members[connection] = None
        self._chunks = None

    def remove(self, connection: Connection) -> None:
        """One less."""
        del self.members[connection]
        self._chunks = None

    @property
    def chunks(self) -> tuple[Recipients, ...]:
        """Their sockets, at most 64 together."""
        if self._chunks is None:
            sockets = [member.socket for member in self.members if member.socket is not None]
            self._chunks = tuple(
                Recipients(sockets[at : at + CHUNK_SOCKETS]) for at in range(0, len(sockets), CHUNK_SOCKETS)
            )
        return self._chunks


@attrs.define(eq=False)
class LocalGroup:
    """A filter group as one shard sees it.

    Attributes:
        cursor: the `upto` of the last frame taken from the broadcaster. flushed: of the last one given to the sockets.
        stored: what storage has of that. subscribers: subscriptions of this shard, live or not.
        healing: frames were missed and are being read from the log. began: where the last one began.
        teams: who gets its frames. fresh: signals of the frame that was flushed last. passed: of all of them.
        before: of all of them without that one. begun: where it was when this instance met it; since: when that was.
        waits: a conflated frame leaves when its time has come.
    """

    number: int
    cursor: int
    flushed: int
    stored: int | None = None
    subscribers: int = 0
    healing: bool = False
    waits: bool = False
    began: int = 0
    fresh: int = 0
    passed: Passed = Passed()
    before: Passed = Passed()
    begun: int = 0
    since: float = attrs.Factory(trio.current_time)
    teams: dict[Team, None] = attrs.Factory(dict)
    _min_s: float = 0.0
    _left_at: float = -math.inf
    _pending: Pending = attrs.Factory(Everything)

    @classmethod
    def at(cls, number: int, cursor: int) -> LocalGroup:
        """A group without members that stands at this place."""
        return cls(number, cursor, cursor, begun=cursor)

    @property
    def members(self) -> list[Connection]:
        """Connections with a live subscription."""
        return [member for team in self.teams for member in team.members]

    def conflate(self, min_ms: int) -> None:
        """From now on it is one of `mode` `latest`, whose frames leave every so many ms; 0: it is not."""
        if min_ms / 1000 != self._min_s:
            self._min_s = min_ms / 1000
            self._pending = Newest() if min_ms else Everything()

    @property
    def conflates(self) -> bool:
        """It is one of `mode` `latest`."""
        return self._min_s > 0

    @property
    def due_s(self) -> float:
        """In how many seconds the next frame may leave."""
        return 0.0 if self._pending.is_full else self._left_at + self._min_s - trio.current_time()

    def extend(self, after: int, upto: int, signals: tuple[SignalTexts, ...], left_out: int = 0) -> None:
        """Add what becomes the next frame; its bytes are made when it is flushed."""
        self.cursor = upto
        self._pending.extend(after, upto, signals, left_out)

    @property
    def offsets(self) -> set[int]:
        """Of the signals that are pending."""
        texts = b",".join(signal.json for frame in self._pending.frames(self.flushed) for signal in frame.signals)
        return offsets_in(texts)

    def rest(self, s: str) -> list[str]:
        """What is pending, for one subscription that does not wait for the flush."""
        return [frame.text(s=s) for frame in self._pending.frames(self.flushed)]

    def take(self, epoch: str) -> dict[Frames, PreparedMessage]:
        """Everything pending, once for each kind of frames of a member, and the same for all members that have it."""
        frames = self._pending.frames(self.flushed)
        self.began, self.flushed = self.flushed, self.cursor
        if not frames:
            return {}
        self.fresh = sum(len(frame.signals) for frame in frames)
        self.before = self.passed
        nbytes = sum(len(signal.json) for frame in frames for signal in frame.signals)
        self.passed += Passed(self.fresh, sum(frame.left_out for frame in frames), nbytes)
        self._pending.clear()
        self._left_at = trio.current_time() if self._min_s else self._left_at
        wanted: set[Frames] = {team.frames for team in self.teams}
        return {kind: self._prepared(frames, kind, epoch) for kind in wanted}

    def _prepared(self, frames: list[Frame], kind: Frames, epoch: str) -> PreparedMessage:
        if kind == EVENTS:
            return PreparedMessage(encode_events(epoch, [frame.text(g=self.number) for frame in frames]))
        made = [frame.text(g=self.number) if kind == "json" else frame.packed(self.number) for frame in frames]
        return PreparedMessage.join([PreparedMessage.of(one) for one in made])
