"""Facets: child actors inside an actor, each with an instance and storage of its own (`ctx.facets`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import attrs

from runtime.ids import ActorId

if TYPE_CHECKING:
    from runtime.actor.actor import Actor

A = TypeVar("A", bound="Actor[Any]")


@attrs.frozen
class FacetStartupOptions(Generic[A]):
    """What a facet is started as.

    Attributes:
        actor_class: its class; it need be no class of a namespace.
        id: its `ctx.id`: an id, or a text that the id is; without, the id and the name of its parent.
    """

    actor_class: type[A]
    id: ActorId | str | None = None


class Facets(Protocol):
    """The facets of one actor, by name.

    A facet is part of its parent: it runs where the parent runs, is evicted, reset and deleted with it, and nobody
    else can reach it. Its storage and its turn are its own. (Durable Objects: `DurableObjectFacets`.)
    """

    def get(
        self,
        name: str,
        start: Callable[[], type[A] | FacetStartupOptions[A] | Awaitable[type[A] | FacetStartupOptions[A]]],
    ) -> A:
        """A stub of a facet, which is started at the first call if it does not run.

        Typed as returning `A`; it has the methods of one, but neither id nor name, and cannot be passed on. One that
        was used fails for ever once the facet is aborted, deleted or reset; a new one starts the facet again.

        Args:
            name: 1 to 256 bytes of UTF-8.
            start: says what to start; runs as an event of this actor, and may be async. When it raises, calls fail
                with that until `abort` or `delete`.

        Raises:
            TypeError: the name is too long, or `start` is no function.
            ActorError: this is a facet of a facet of a facet.
        """
        ...

    def abort(self, name: str, reason: Exception) -> None:
        """Destroy a facet's instance; calls in flight fail with the reason. Its storage stays.

        Raises:
            TypeError: the name is too long, or the reason is no exception.
        """
        ...

    def delete(self, name: str) -> None:
        """Destroy a facet with its storage and its own facets, in the open batch; no rollback brings it back.

        Raises:
            TypeError: the name is too long.
        """
        ...

    async def clone(self, src: str, dst: str) -> None:
        """Give a facet a copy of what another one and its own facets have stored; keeps the turn.

        It joins the open batch, and no rollback undoes it. What `dst` had goes, its instance too, and nothing is
        copied when nobody started `src`. What runs in `src` goes on; what it has not sealed is not copied.
        (Durable Objects: `clone`, which returns at once.)

        Raises:
            TypeError: a name is too long.
            StorageFailed: the disk refuses; `dst` is as it was.
        """
        ...
