"""Sockets that get the same messages, with what a write to each needs side by side.

A thousand sockets do not fit a processor's cache, so the objects that a write has to look at cost more than the code
that looks at them: here it is one for each socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.actor.sockets import Outbound, WebSocket


class Recipients:
    """An unchanging list of an actor's sockets, for `ctx.send_all`.

    Make it once and send to it often; sockets of it that are closing are passed over.
    """

    __slots__ = ("_changes", "_direct", "_others", "_sockets", "_targets", "_write")

    def __init__(self, sockets: Iterable[WebSocket]) -> None:
        self._sockets = tuple(sockets)
        self._changes: int | None = None
        self._write: Callable[[Any, bytes], int] = _unused
        self._targets: list[object] = []  # what `_write` writes to
        self._direct: list[Outbound] = []  # whose targets they are
        self._others: list[Outbound] = []

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
            self._sort()
            self._changes = changes
        size, write, direct = len(frame), self._write, self._direct
        for at, target in enumerate(self._targets):
            try:
                taken = write(target, frame)
            except OSError:  # nothing was taken: this is to find out what that means
                direct[at].push(frame)
            else:
                if taken != size:
                    direct[at].push_rest(frame, taken)
        for outbound in self._others:
            outbound.push(frame)

    def _sort(self) -> None:
        direct = [(ws._outbound, ws._outbound.direct) for ws in self._sockets]
        self._write = next((writer.write for _, writer in direct if writer is not None), _unused)
        self._targets, self._direct, self._others = [], [], []
        for outbound, writer in direct:
            if writer is not None and writer.write is self._write:
                self._targets.append(writer.target)
                self._direct.append(outbound)
            else:
                self._others.append(outbound)


def _unused(_target: object, _data: bytes, /) -> int:
    raise AssertionError("there is no target")
