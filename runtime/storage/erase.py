"""Removes what is left of a facet and of the facets below it, once nothing of them runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from runtime.errors import InvalidBookmark
from runtime.ids import ActorId
from runtime.storage.backend import Backend
from runtime.storage.object_keys import REGISTERED
from runtime.storage.store import Done, ReadHandle, Store, WriteBatch


async def erase(actor: ActorId, store: Store, backends: Mapping[str, Backend]) -> None:
    """Delete everything that an actor without an instance has stored, and everything below it.

    A restore of the actor that it belonged to brings back what was in the shared store.

    Args:
        store: has the keys, or the entry in the index of objects with a file.
        backends: by `Actor.storage`.

    Raises:
        StorageFailed: the disk refuses.
    """
    # Behind everything that was sealed before: then the store knows all that there is.
    await committed(store.submit, WriteBatch(actor=actor, sequence=0, writes={}))
    for found in (actor, *store.list_below(actor)):
        if store.open(found).get(REGISTERED) is None:
            gone = WriteBatch(
                actor=found,
                sequence=0,
                delete_all=True,
                writes={},
                alarm=None,
                history=_keeps_history(store.open(found)),
            )
            await committed(store.submit, gone)
            continue
        backend = backends["sql"]
        keys = backend.attach(found, history=False)
        try:
            await keys.prepare()
            keys.begin()
            keys.clear(keep_alarm=False)
            batch = keys.seal()
            assert batch is not None
            await committed(backend.submit, batch)
        finally:
            keys.close()


def _keeps_history(handle: ReadHandle) -> bool:
    try:
        handle.point(handle.bookmark())
    except InvalidBookmark:
        return False
    return True


async def committed(submit: Callable[[WriteBatch, Done], None], batch: WriteBatch) -> None:
    """Submit a batch and wait until it is durable. Raises: StorageFailed."""
    ended = trio.Event()
    errors: list[Exception] = []

    def done(error: Exception | None) -> None:
        errors.extend([] if error is None else [error])
        ended.set()

    submit(batch, done)
    await ended.wait()
    if errors:
        raise errors[0]
