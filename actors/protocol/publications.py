"""A client's publications on their way: kept until they are answered, sent again after a reconnect."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from actors.protocol.codes import TOO_LARGE
from actors.protocol.encoding import JSON, Encoding
from actors.protocol.events import Published, PublishRefused
from actors.protocol.fields import Refused
from actors.protocol.messages import Err, Ok
from actors.protocol.requests import Pub
from actors.signals import Draft

MESSAGES = 1_000
BYTES = 1_048_576
IN_FLIGHT = 16  # bounds the burst after a reconnect
RETRY_MS = 1_000


class OutboxFull(Exception):
    """Too many publications are waiting for an answer; nothing of this one was accepted."""


@attrs.define(eq=False)
class _Publication:
    key: int
    id: str
    draft: Draft
    request: int | None = None  # its id on this connection, once it was sent there


@attrs.define(eq=False)
class Publications:
    """The outbox of one client, in order of publication.

    The same signal id is sent every time, so the server recognises what it has already.
    """

    _waiting: dict[int, _Publication] = attrs.Factory(dict[int, _Publication])
    _size: int = 0
    _keys: int = 0
    paused_until_ms: float | None = None

    def add(self, draft: Draft) -> int:
        """Take a publication in and return its key. Raises: OutboxFull."""
        assert draft.id is not None, "without an id a repetition could not be recognised"
        if len(self._waiting) >= MESSAGES or self._size + draft.size_bytes > BYTES:
            raise OutboxFull(
                f"{len(self._waiting):,} publications of {self._size:,} bytes wait for an answer; "
                f"at most {MESSAGES:,} of {BYTES:,}"
            )
        self._keys += 1
        self._waiting[self._keys] = _Publication(self._keys, draft.id, draft)
        self._size += draft.size_bytes
        return self._keys

    def forget(self, key: int) -> None:
        """Nobody waits for the answer any more: it is not sent again."""
        if (gone := self._waiting.pop(key, None)) is not None:
            self._size -= gone.draft.size_bytes

    def disconnected(self) -> None:
        """What was in flight may or may not have arrived: all of it waits to be sent again."""
        self.paused_until_ms = None
        for publication in self._waiting.values():
            publication.request = None

    def flush(
        self, next_id: Callable[[], int], size_max: int, encoding: Encoding = JSON
    ) -> Iterator[str | PublishRefused]:
        """The texts to send now; one that no socket message can carry is refused instead."""
        if self.paused_until_ms is not None:
            return
        flying = sum(publication.request is not None for publication in self._waiting.values())
        for publication in [one for one in self._waiting.values() if one.request is None]:
            if flying >= IN_FLIGHT:
                return
            request = next_id()
            text = Pub(id=request, draft=publication.draft).encode()
            frame = encoding.encode(text)
            if (size := len(frame if isinstance(frame, bytes) else frame.encode())) > size_max:
                self.forget(publication.key)
                yield PublishRefused(
                    key=publication.key,
                    id=publication.id,
                    code=TOO_LARGE.code,
                    slug=TOO_LARGE.slug,
                    msg=f"message of {size:,} bytes; the server takes {size_max:,} on a socket, "
                    "larger ones by POST /v1/signals",
                )
                continue
            publication.request = request
            flying += 1
            yield text

    def answered(self, answer: Ok | Err, now_ms: float) -> Published | PublishRefused | None:
        """The outcome that a reply means; None when it is not about a publication, or asks to try again.

        Raises: Refused, when the reply breaks the protocol.
        """
        found = next((one for one in self._waiting.values() if one.request == answer.id), None)
        if found is None:
            return None
        if isinstance(answer, Err):
            if answer.retry:
                found.request = None
                delay = RETRY_MS if answer.retry_after_ms is None else answer.retry_after_ms
                self.paused_until_ms = now_ms + delay
                return None
            self.forget(found.key)
            return PublishRefused(key=found.key, id=found.id, code=answer.code, slug=answer.slug, msg=answer.msg)
        if answer.o is None or answer.epoch is None:
            raise Refused("ok of a publication without o and epoch", at="")
        self.forget(found.key)
        return Published(key=found.key, id=found.id, o=answer.o, epoch=answer.epoch, dup=bool(answer.dup))
