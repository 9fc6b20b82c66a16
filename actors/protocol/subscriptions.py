"""What the messages of a connection mean for the subscriptions of an application (sections 2.4 and 2.5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from actors.protocol import messages as wire
from actors.protocol import requests
from actors.protocol.codes import NORMAL, CloseCode
from actors.protocol.connection import Connection
from actors.protocol.coverage import Loss
from actors.protocol.events import Event, Gap, GapDetected, ModifyRefused, SubState
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

    def enter(self, socket: Connection, request: int, names: Iterable[str]) -> tuple[requests.Sub, ...]:
        """Those of these names, for the `hello` with this id."""
        subs = [self._subs[name] for name in names]
        # On a successor it goes on as it is on the socket before; that one's change comes when it is alone.
        changes = [None if socket.is_successor else sub.change_by_sub for sub in subs]
        pairs = list(zip(subs, changes, strict=True))
        socket.places = {sub.name: Place(sub.wanted(), request, change) for sub, change in pairs}
        return tuple(sub.message(None, change) for sub, change in pairs)

    def welcomed(self, socket: Connection, welcome: wire.Welcome, now: float) -> Iterable[Event]:
        """The answers to `hello`, one by one."""
        for name, answer in {answer.s: answer for answer in welcome.subs if answer.s is not None}.items():
            if name not in socket.awaiting(welcome.id):
                if isinstance(answer, wire.SubOk):  # the application took it back while hello was on its way
                    socket.send(requests.Unsub(id=socket.next_request(), s=name))
            elif socket.is_successor and not self._goes_on(socket, answer):
                socket.fail(NORMAL, f"{name} does not go on there")
                return
            elif isinstance(answer, wire.Err):
                yield from self.refused(socket, name, answer, now)
            else:
                yield from self._accepted(socket, answer)

    def subok(self, socket: Connection, answer: wire.SubOk, now: float) -> Iterable[Event]:
        """Rule 1; an answer that nobody waits for means nothing."""
        if answer.s not in socket.awaiting(answer.id):
            return
        sub, place = self._subs[answer.s], socket.places[answer.s]
        if not place.modifies:
            yield from self._accepted(socket, answer)
        elif sub.modified(place, answer):
            yield SubState(s=answer.s, state="catchup", since=answer.since)
            yield from self._settled(socket, answer.s)
        else:
            yield self._lost(socket, answer.s, Loss(answer.since.offset), now)

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

    def snap(self, socket: Connection, snap: wire.Snap) -> Iterable[Event]:
        """Rule 6: signals from before, and what may follow once they are all here."""
        if socket.state_of(snap.s) == "catchup" and socket.places[snap.s].snapping:
            yield self._subs[snap.s].snap(socket.places[snap.s], snap)
            yield from self._settled(socket, snap.s)

    def _settled(self, socket: Connection, name: str) -> Iterable[Event]:
        """A change may be in force now, or another one be asked for."""
        modified = self._subs[name].settle(socket.places[name])
        if modified is not None:
            yield modified
        if not socket.is_successor:
            socket.modify(self._subs[name])

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
            if not sub.resting:
                socket.request(sub)

    def refused(self, socket: Connection, name: str, error: wire.Err, now: float) -> Iterable[Event]:
        """An `err` in place of `subok`: to be asked for again later, or failed."""
        place = socket.places[name]
        if not error.retry and not place.modifies:
            return self.ended(socket, name, error.code, f"{error.slug}: {error.msg}")
        if place.modifies:
            place.modifies, place.change = False, None
        place.request = None
        if not error.retry:
            self._subs[name].change = None
            return (ModifyRefused(s=name, code=error.code, slug=error.slug, msg=error.msg),)
        place.retry_at = now + (SUB_RETRY_MS if error.retry_after_ms is None else error.retry_after_ms)
        return ()

    def ended(self, socket: Connection, name: str, code: int, reason: str) -> Iterable[Event]:
        """The server will have no more of a subscription."""
        if self.forget(name):
            socket.places.pop(name, None)
            yield SubState(s=name, state="failed", code=code, reason=reason)

    def _accepted(self, socket: Connection, answer: wire.SubOk) -> Iterable[Event]:
        place = socket.places[answer.s]
        gap = self._subs[answer.s].accepted(place, answer)
        if socket.is_successor:
            return
        yield SubState(s=answer.s, state="catchup", since=None if place.snapping else answer.since)
        if gap is not None:
            yield gap
        yield from self._settled(socket, answer.s)

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
            socket.request_again(self._subs[name])
        return detected
