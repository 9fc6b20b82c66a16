"""Sockets that get the same messages, with what a write to each needs side by side.

A thousand sockets do not fit a processor's cache, so the objects that a write has to look at cost more than the code
that looks at them: here it is one for each socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import attrs

from runtime.frames import PreparedMessage

if TYPE_CHECKING:
    from runtime.actor.outbound import Outbound
    from runtime.actor.sockets import WebSocket


@attrs.define(eq=False)
class _Alike:
    """Recipients that get the same bytes.

    Attributes:
        bits: with what window their clients inflate; None: they do not.
        targets: what the shared write writes to. direct: whose they are. others: those that have to queue.
    """

    bits: int | None
    targets: list[object] = attrs.Factory(list)
    direct: list[Outbound] = attrs.Factory(list)
    others: list[Outbound] = attrs.Factory(list)


class Recipients:
    """An unchanging list of an actor's sockets, for `ctx.send_all`.

    Make it once and send to it often; sockets of it that are closing are passed over.
    """

    __slots__ = ("_alike", "_changes", "_sockets", "_write")

    def __init__(self, sockets: Iterable[WebSocket]) -> None:
        self._sockets = tuple(sockets)
        self._changes: int | None = None
        self._write: Callable[[Any, bytes], int] = _unused
        self._alike: list[_Alike] = []

    def __iter__(self) -> Iterator[WebSocket]:
        return iter(self._sockets)

    def __len__(self) -> int:
        return len(self._sockets)

    def _push(self, message: PreparedMessage, changes: int) -> None:
        """Send a message to all of them.

        Args:
            changes: another number than last time when any of them may have begun or ceased to queue.
        """
        if self._changes != changes:
            self._sort()
            self._changes = changes
        write = self._write
        for alike in self._alike:
            frame, direct = message.frame if alike.bits is None else message.deflated(alike.bits), alike.direct
            size = len(frame)
            for at, target in enumerate(alike.targets):
                try:
                    taken = write(target, frame)
                except OSError:  # nothing was taken: this is to find out what that means
                    direct[at].push(frame)
                else:
                    if taken != size:
                        direct[at].push_rest(frame, taken)
            for outbound in alike.others:
                outbound.push(frame)

    def _sort(self) -> None:
        direct = [(ws._outbound, ws._outbound.direct, ws._deflate_bits) for ws in self._sockets]
        self._write = next((writer.write for _, writer, _ in direct if writer is not None), _unused)
        alike: dict[int | None, _Alike] = {}
        for outbound, writer, bits in direct:
            same = alike.get(bits) or alike.setdefault(bits, _Alike(bits))
            if writer is not None and writer.write is self._write:
                same.targets.append(writer.target)
                same.direct.append(outbound)
            else:
                same.others.append(outbound)
        self._alike = list(alike.values())


def _unused(_target: object, _data: bytes, /) -> int:
    raise AssertionError("there is no target")
