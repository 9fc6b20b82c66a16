"""What the messages of a connection mean for the subscriptions of an application (sections 2.4 and 2.5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from actors.protocol import messages as wire
from actors.protocol.codes import NORMAL, CloseCode
from actors.protocol.connection import Connection
from actors.protocol.coverage import Loss
from actors.protocol.events import Event, Gap, GapDetected, SubState
from actors.protocol.subscription import Place, Subscription

LOSS_WINDOW_MS = 10_000
SUB_RETRY_MS = 1_000


@attrs.define(eq=False)
class Subscriptions:
    """The subscriptions that an application has declared, in order of declaration."""

    _subs: dict[str, Subscription] = attrs.field(factory=dict[str, Subscription], init=False)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self._subs.values())

    def __getitem__(self, name: str) -> Subscription:
        return self._subs[name]

    def __contains__(self, name: str) -> bool:
        return name in self._subs

    def declare(self, sub: Subscription) -> None:
        """One more; its name is new."""
        assert sub.name not in self._subs, f"{sub.name} is declared already"
        self._subs[sub.name] = sub

    def forget(self, name: str) -> bool:
        """One less; False when there was none of this name."""
        return self._subs.pop(name, None) is not None

    def enter(self, socket: Connection, request: int, names: Iterable[str]) -> tuple[wire.Sub, ...]:
        """Those of these names, for the `hello` with this id."""
        subs = [self._subs[name] for name in names]
        socket.places = {sub.name: Place(sub.wanted(), request) for sub in subs}
        return tuple(sub.message(None) for sub in subs)

    def welcomed(self, socket: Connection, welcome: wire.Welcome, now: float) -> Iterable[Event]:
        """The answers to `hello`, one by one."""
        for name, answer in {answer.s: answer for answer in welcome.subs if answer.s is not None}.items():
            if name not in socket.awaiting(welcome.id):
                if isinstance(answer, wire.SubOk):  # the application took it back while hello was on its way
                    socket.send(wire.Unsub(id=socket.next_request(), s=name))
            elif socket.is_successor and not self._goes_on(socket, answer):
                socket.fail(NORMAL, f"{name} does not go on there")
                return
            elif isinstance(answer, wire.Err):
                yield from self.refused(socket, name, answer, now)
            else:
                yield from self._accepted(socket, answer)

    def subok(self, socket: Connection, answer: wire.SubOk) -> Iterable[Event]:
        """Rule 1; an answer that nobody waits for means nothing."""
        return self._accepted(socket, answer) if answer.s in socket.awaiting(answer.id) else ()

    def sig(self, socket: Connection, frame: wire.Sig, now: float) -> Iterable[Event]:
        """Rule 4, for each subscription that the frame counts for."""
        for name in socket.addressed(frame):
            try:
                signals = self._subs[name].take(socket.places[name], frame)
            except Loss as loss:
                yield self._lost(socket, name, loss, now)
                if socket.failure is not None:
                    return
            else:
                if signals is not None:
                    yield signals

    def live(self, socket: Connection, live: wire.Live, now: float) -> Iterable[Event]:
        """Rule 3: the end of catch-up."""
        if socket.state_of(live.s) != "catchup":
            return
        try:
            socket.places[live.s].coverage.go_live(live)
        except Loss as loss:
            yield self._lost(socket, live.s, loss, now)
        else:
            if not socket.is_successor:
                yield SubState(s=live.s, state="live")

    def gap(self, socket: Connection, gap: wire.Gap) -> Iterable[Event]:
        """Rule 6."""
        if socket.state_of(gap.s) != "pending":
            missing = self._subs[gap.s].skip(socket.places[gap.s], gap)
            if missing is not None:
                yield missing

    def reset(self, socket: Connection) -> Iterable[Event]:
        """Rule 7: the epoch is over."""
        for sub in self:
            sub.forget()
            yield Gap(s=sub.name, a=None, b=None, reason="epoch", epoch=None, c=None)
            socket.request(sub)

    def refused(self, socket: Connection, name: str, error: wire.Err, now: float) -> Iterable[Event]:
        """An `err` in place of `subok`: to be asked for again later, or failed."""
        if not error.retry:
            return self.ended(socket, name, error.code, f"{error.slug}: {error.msg}")
        place = socket.places[name]
        place.request = None
        place.retry_at = now + (SUB_RETRY_MS if error.retry_after_ms is None else error.retry_after_ms)
        return ()

    def ended(self, socket: Connection, name: str, code: int, reason: str) -> Iterable[Event]:
        """The server will have no more of a subscription."""
        if self.forget(name):
            socket.places.pop(name, None)
            yield SubState(s=name, state="failed", code=code, reason=reason)

    def _accepted(self, socket: Connection, answer: wire.SubOk) -> Iterable[Event]:
        gap = self._subs[answer.s].accepted(socket.places[answer.s], answer)
        if socket.is_successor:
            return
        yield SubState(s=answer.s, state="catchup", since=answer.since)
        if gap is not None:
            yield gap

    @staticmethod
    def _goes_on(socket: Connection, answer: wire.SubOk | wire.Err) -> bool:
        return isinstance(answer, wire.SubOk) and answer.since == socket.places[answer.s].asked

    def _lost(self, socket: Connection, name: str, loss: Loss, now: float) -> Event:
        place = socket.places[name]
        detected = GapDetected(s=name, c=place.coverage.at.offset, a=loss.a)
        if socket.is_successor:
            socket.fail(CloseCode.GAP, f"a frame of {name} was lost")
        elif place.lost_at is not None and now - place.lost_at < LOSS_WINDOW_MS:
            socket.fail(CloseCode.GAP, f"frames of {name} were lost twice within {LOSS_WINDOW_MS:,} ms")
        else:
            place.lost_at = now
            socket.send(wire.Unsub(id=socket.next_request(), s=name))
            socket.request(self._subs[name])
        return detected
