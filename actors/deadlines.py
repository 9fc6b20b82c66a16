"""What is due on the connections of a shard at some time; all of it goes through the shard's one alarm.

An alarm is due by the wall clock, as the ends of tokens are. Whoever says nothing is closed by the runtime, on a clock
that nobody sets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

from actors.parting import Words
from actors.protocol.codes import CloseCode
from actors.protocol.server import Close, Reply
from actors.session import Connection
from actors.settings import ConnectionSettings
from runtime import Context, WebSocket


@attrs.define(eq=False)
class Due:
    """What others have to do.

    Attributes:
        expired: connections to be closed, whose clients come back with a newer token. old: to be sent elsewhere.
    """

    expired: dict[Connection, Words] = attrs.Factory(dict[Connection, Words])
    old: list[Connection] = attrs.Factory(list[Connection])


@attrs.frozen(eq=False)
class Deadlines:
    """Closes who does not say hello, tells who is let in no longer soon, and finds whose time is over.

    Args:
        ctx: the shard's. heartbeat: how long somebody may be silent, and stay. hello_s: how long hello may take.
    """

    ctx: Context
    heartbeat: ConnectionSettings
    hello_s: float
    # Reasons, which many sockets share.
    _late: str = attrs.field(
        default=attrs.Factory(lambda self: f"no hello within {self.hello_s:g} s", takes_self=True), init=False
    )
    _silent: str = attrs.field(
        default=attrs.Factory(lambda self: f"nothing received for {self.heartbeat.silent_s:g} s", takes_self=True),
        init=False,
    )

    def opened(self, ws: WebSocket) -> None:
        """A client has to say hello in time, or anything at all if the wall clock is set back meanwhile."""
        ws.limit_silence(self.hello_s, CloseCode.HELLO_TIMEOUT, self._late)
        self.wake_by(self.ctx.now() + self.hello_s)  # not a moment before its time is over

    def greeted(self, connection: Connection) -> None:
        """It has said hello, and has to say something now and then."""
        if connection.socket is not None:  # an event source never says anything
            connection.socket.limit_silence(self.heartbeat.silent_s, CloseCode.NO_HEARTBEAT, self._silent)

    def check(self, connections: Iterable[Connection]) -> Due:
        """Do what is due, and have the alarm go off for what comes next, at least a second later."""
        now = self.ctx.now()
        following = math.inf
        found = Due()
        for connection in connections:
            if connection.closed:
                continue
            rest_s, step = connection.machine.patience(connection.open_s, now) or (math.inf, None)
            # A busy one waits for us, perhaps for the answer to its hello.
            due = now + (1 if connection.busy and step is not None else rest_s)
            if due <= now and isinstance(step, Close):
                if step.code == CloseCode.TOKEN_EXPIRED:
                    found.expired[connection] = Words(step.code, step.reason)
                else:
                    connection.close(step.code, step.reason)
                continue
            if due <= now and isinstance(step, Reply):
                connection.send(step.text)
                connection.machine.noticed()
                connection.remember()
            if self.heartbeat.age_max_s and not connection.leaving:
                ends = connection.machine.state.opened + self.heartbeat.age_max_s
                if ends <= now and connection.machine.is_welcomed:
                    connection.leaving = True
                    found.old.append(connection)
                due = min(due, ends)
            following = min(following, due)
        if following < math.inf:
            self.wake_by(max(following, now + 1))
        return found

    def wake_by(self, due: float) -> None:
        """Have the alarm go off at this time, or before."""
        pending = self.ctx.storage.get_alarm()
        if pending is None or pending > due:
            self.ctx.storage.set_alarm(due)

    def wake_for(self, connection: Connection) -> None:
        """Its token will expire, or it will be of a great age."""
        state = connection.machine.state
        if state.notice_at is not None:
            self.wake_by(state.notice_at)
        if self.heartbeat.age_max_s:
            self.wake_by(state.opened + self.heartbeat.age_max_s)
