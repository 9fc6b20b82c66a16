"""The delivery rules of one subscription on one connection (section 2.5): every matching signal once, in order.

pending ──subok──▶ catchup ──live──▶ live
▲ the request is sent (again)       │ loss: a frame begins beyond the cursor
└───────────────────────────────────┘
"""

from __future__ import annotations

import attrs

from actors.protocol.cursor import Cursor
from actors.protocol.events import SubStateName
from actors.protocol.messages import Gap, Live, Sig
from actors.signals import Signal


class Loss(Exception):
    """A frame begins at `a`, beyond the cursor: what lies between was lost on the way."""

    def __init__(self, a: int) -> None:
        super().__init__(f"frame begins at {a}")
        self.a = a


@attrs.define(eq=False)
class Coverage:
    """One subscription's state, group and cursor.

    After `restart` the cursor stays where the next `subok` will confirm it.
    """

    state: SubStateName = "pending"
    group: int | None = None
    cursor: Cursor | None = None

    def restart(self) -> None:
        """The subscription is requested (again): nothing counts before its `subok`."""
        self.state, self.group = "pending", None

    def accept(self, since: Cursor, group: int) -> None:
        """Rule 1: `subok`."""
        self.state, self.group, self.cursor = "catchup", group, since

    def counts(self, frame: Sig) -> bool:
        """Rules 2 and 3: whether a `sig` frame is for this subscription now (its own, or its group's when live)."""
        if frame.g is not None:
            return self.state == "live" and frame.g == self.group
        return self.state in ("catchup", "live")

    def take(self, frame: Sig) -> tuple[Signal, ...] | None:
        """Rule 4: the signals to deliver from a frame that counts; None for a duplicate.

        Raises: Loss.
        """
        at = self.at
        if frame.b <= at.offset:
            return None
        if frame.a > at.offset:
            raise Loss(frame.a)
        self.cursor = Cursor(at.epoch, frame.b)
        return tuple(signal for signal in frame.signals if signal.o > at.offset)

    def skip(self, gap: Gap) -> int | None:
        """Rule 6: an interval will not come, and the cursor moves to its end; None when it is behind the cursor.

        Returns where the gap begins for the application: at its cursor, wherever the server's began. What lies
        between was lost on the way, or was delivered already.
        """
        at = self.at
        if gap.b <= at.offset:
            return None
        self.cursor = Cursor(at.epoch, gap.b)
        return at.offset

    def go_live(self, live: Live) -> None:
        """Rule 3: catch-up has ended, exactly at the cursor.

        Raises: Loss.
        """
        if live.b != self.at.offset:
            raise Loss(live.b)
        self.state, self.group = "live", live.g

    @property
    def at(self) -> Cursor:
        """The cursor of a subscription beyond pending."""
        assert self.cursor is not None, "a subscription beyond pending has a cursor"
        return self.cursor
