"""Copies what a facet and the facets below it have stored to another place, as of one moment."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from runtime.ids import ActorId
from runtime.storage.backend import Backend, Copying
from runtime.storage.erase import committed
from runtime.storage.object_keys import REGISTERED
from runtime.storage.store import Store, WriteBatch


async def duplicate(
    source: ActorId, target: ActorId, running: Mapping[ActorId, str], store: Store, backends: Mapping[str, Backend]
) -> None:
    """Copy everything that an actor and those below it have sealed; durable at the end.

    Args:
        source, target: where the facet is stored, and where nothing is.
        running: those that have an instance, with their `Actor.storage`. The others must not begin one meanwhile.
        store: has the keys, or the entry in the index of objects with a file.
        backends: by `Actor.storage`.

    Raises:
        StorageFailed: the disk refuses; a part may be there.
    """

    def copying(actor: ActorId, storage: str) -> Copying:
        there = target if actor == source else attrs.evolve(actor, raw=target.raw + actor.raw[len(source.raw) :])
        return backends[storage].copying(actor, there)

    # All of these at once, so that they agree with each other.
    copies = [copying(actor, storage) for actor, storage in running.items()]
    try:
        # Behind everything that was sealed before: then the store knows all that there is.
        await committed(store.submit, WriteBatch(actor=source, sequence=0, writes={}))
        copies += [
            copying(actor, "shared" if store.open(actor).get(REGISTERED) is None else "sql")
            for actor in (source, *store.list_below(source))
            if actor not in running
        ]
        for copy in copies:
            await copy.finish()
    finally:
        for copy in copies:
            copy.give_up()
