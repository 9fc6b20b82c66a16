"""What is due on the connections of a shard at some time; all of it goes through the shard's one alarm."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from actors.parting import Words
from actors.protocol.codes import CloseCode
from actors.protocol.server import Close, Reply
from actors.session import Connection
from actors.settings import ConnectionSettings
from runtime import Context


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
    """Closes who is silent for too long, tells who is let in no longer soon, and finds whose time is over.

    Args:
        ctx: the shard's. heartbeat: how long somebody may be silent, and stay.
    """

    ctx: Context
    heartbeat: ConnectionSettings

    def check(self, connections: Iterable[Connection]) -> Due:
        """Do what is due, and have the alarm go off for what comes next, at least a second later."""
        now = self.ctx.now()
        following: float | None = None
        found = Due()
        for connection in connections:
            if connection.closed:
                continue
            # An event source never says anything.
            silent_s = 0.0 if connection.socket is None else now - connection.socket.last_received
            rest_s, step = connection.machine.patience(connection.open_s, silent_s, self.heartbeat.silent_s, now)
            # A busy one waits for us, perhaps for the answer to its hello.
            due = now + (1 if connection.busy else rest_s)
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
            following = due if following is None else min(following, due)
        if following is not None:
            self.wake_by(max(following, now + 1))
        return found

    def wake_by(self, due: float) -> None:
        """Have the alarm go off at this time, or before."""
        pending = self.ctx.storage.get_alarm()
        if pending is None or pending > due:
            self.ctx.storage.set_alarm(due)

    def wake_for(self, connection: Connection) -> None:
        """Its token will expire."""
        if (notice_at := connection.machine.state.notice_at) is not None:
            self.wake_by(notice_at)
