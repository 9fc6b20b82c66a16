"""Sockets that get the same messages, with what a write to each needs side by side.

A thousand sockets do not fit a processor's cache, so the objects that a write has to look at cost more than the code
that looks at them: here it is one for each socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from runtime.platform import WriteNow

if TYPE_CHECKING:
    from runtime.actor.sockets import Outbound, WebSocket


class Recipients:
    """An unchanging list of an actor's sockets, for `ctx.send_all`.

    Make it once and send to it often; sockets of it that are closing are passed over.
    """

    __slots__ = ("_changes", "_sockets", "_writes")

    def __init__(self, sockets: Iterable[WebSocket]) -> None:
        self._sockets = tuple(sockets)
        self._writes: list[WriteNow] = []
        self._changes: int | None = None

    def __iter__(self) -> Iterator[WebSocket]:
        return iter(self._sockets)

    def __len__(self) -> int:
        return len(self._sockets)

    def _push(self, frame: bytes, changes: int) -> None:
        """Send complete frames to all of them.

        Args:
            changes: another number than last time when any of them may have begun or ceased to queue.
        """
        if self._changes != changes:
            self._writes = [_write(ws._outbound) for ws in self._sockets]
            self._changes = changes
        size = len(frame)
        for at, write in enumerate(self._writes):
            try:
                taken = write(frame)
            except OSError:  # nothing was taken: this is to find out what that means
                self._sockets[at]._outbound.push(frame)
            else:
                if taken != size:
                    self._sockets[at]._outbound.push_rest(frame, taken)


def _write(outbound: Outbound) -> WriteNow:
    return outbound.direct or partial(_push_whole, outbound)


def _push_whole(outbound: Outbound, frame: bytes) -> int:
    outbound.push(frame)
    return len(frame)
