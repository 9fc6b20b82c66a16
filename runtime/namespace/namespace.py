"""A namespace: all actors of one class, addressed by name or by id. Making a stub constructs nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

from runtime import ids
from runtime.errors import InvalidId
from runtime.ids import ActorId
from runtime.namespace.stub import Containers, Stub
from runtime.storage.store import Store

A = TypeVar("A")


class Namespace(Generic[A]):
    """Actors of class `A`, stored under a key of its own (Durable Objects: `DurableObjectNamespace`).

    `get` and `get_by_name` are typed as returning `A`; at run time they return a stub with its public methods.
    """

    def __init__(self, key: str, router: Containers, store: Store, token_bytes: Callable[[int], bytes]) -> None:
        self.key = key
        self._router = router
        self._store = store
        self._token_bytes = token_bytes

    def id_from_name(self, name: str) -> ActorId:
        """The id of a name; the same for ever."""
        return ids.id_from_name(self.key, name)

    def id_from_string(self, text: str) -> ActorId:
        """The id that `str(id)` printed. Raises: InvalidId."""
        return ids.id_from_string(self.key, text)

    def new_unique_id(self) -> ActorId:
        """A random id that no name gives."""
        return ids.new_unique_id(self.key, self._token_bytes)

    def get(self, actor_id: ActorId) -> A:
        """A new stub of an actor. Raises: InvalidId for the text that is the id of a facet."""
        if len(actor_id.raw) != ids.ID_BYTES:
            raise InvalidId(f"{actor_id!r} is a facet's own id, and no Durable Object of a namespace has it")
        return cast("A", cast("Any", Stub(self._router, actor_id)))

    def get_by_name(self, name: str) -> A:
        """A new stub of the actor with this name."""
        return self.get(self.id_from_name(name))

    def list_ids(self) -> Sequence[ActorId]:
        """Every actor of this namespace that has stored something."""
        return self._store.list_ids(self.key)
