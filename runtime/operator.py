"""What an operator of a node sees of its actors, and may do to them: what a console is made of.

An app gets it as a field of its env that is annotated `Operator`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import attrs

from runtime.actor.actor import Actor
from runtime.codec import plain
from runtime.errors import ActorError, SqlError
from runtime.faults import Faults
from runtime.ids import ActorId, id_from_name, id_from_string
from runtime.meter import Meter
from runtime.namespace.container import Container
from runtime.namespace.failures import Failure, Reason
from runtime.namespace.inside import run_alarm, run_in
from runtime.namespace.router import Eviction, Router
from runtime.storage.sql import Row

FAILING_S = 60.0  # how long an actor counts as failing whose instance was destroyed
SQL_STEPS = 20_000_000  # of one statement: the server stands still meanwhile, a fifth of a second or so
ROWS = 200
ENTRIES = 200

State = Literal["active", "idle", "hibernated", "failing"]


@attrs.frozen(kw_only=True)
class ActorView:
    """An actor that is in memory, has sockets, or has an alarm.

    Attributes:
        in_memory: it has an instance; one that fails may have none.
        state: `failing` when its alarm is being tried again, or its instance was destroyed within the last minute.
        storage: where its state is: `kv` in the store that all share, `sql` in a database of its own.
        mailbox: events that wait for the turn. in_flight: events that have it, or have let it go and wait.
        last_event: the newest event that came. idle_s: for how long nothing has run.
        alarm_at: when it will run, wall clock. alarm_retries: of the run that failed.
        restarts: instances that were destroyed since the actor is known. last_error: what destroyed the last one.
        why_awake: what keeps the instance in memory.
    """

    id: ActorId
    actor_class: str
    state: State
    storage: Literal["kv", "sql"]
    in_memory: bool = False
    mailbox: int = 0
    in_flight: int = 0
    last_event: str | None = None
    idle_s: float | None = None
    alarm_at: float | None = None
    alarm_retries: int = 0
    restarts: int = 0
    last_error: str | None = None
    sockets: int = 0
    why_awake: tuple[str, ...] = ()


@attrs.frozen
class Rows:
    """What a statement gave; `more`: there were more than it shows."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    more: bool


class Operator:
    """The actors of a node, from outside.

    Attributes:
        started: when the node was; wall clock, seconds.
        faults: what makes things fail on purpose; None in a server that was not started for that.
    """

    def __init__(self, router: Router, classes: Mapping[str, type[Actor[Any]]], faults: Faults | None = None) -> None:
        self._router = router
        self.faults = faults
        self._classes = dict(classes)
        self.started = router.services.platform.now()

    def now(self) -> float:
        """Wall clock, seconds."""
        return self._router.services.platform.now()

    @property
    def namespaces(self) -> Mapping[str, str]:
        """The classes' names by their namespaces' keys."""
        return {key: cls.__name__ for key, cls in self._classes.items()}

    def find(self, namespace: str, text: str) -> ActorId:
        """The actor of an id's 64 hex digits, or of a name.

        Raises:
            InvalidId: 64 hex digits that are no id of this namespace. KeyError: there is no such namespace.
        """
        if namespace not in self._classes:
            raise KeyError(namespace)
        if len(text) == 64 and all(digit in "0123456789abcdef" for digit in text):
            found = id_from_string(namespace, text)
            known = self._router.containers.get(found)
            return found if known is None else known.id
        return id_from_name(namespace, text)

    # What is seen: nothing of it wakes an actor.

    def actors(self) -> Iterator[ActorView]:
        """Those that are in memory, have sockets, or have an alarm; let others run now and then between them."""
        failed = self._failed()
        listed = dict.fromkeys(self._router.containers)
        listed |= dict.fromkeys(self._router.alarms)
        for actor_id in listed:
            yield self._view(actor_id, failed)

    def actor(self, actor_id: ActorId) -> ActorView:
        """One of them; of an actor of which nothing is known, that it is hibernated."""
        return self._view(actor_id, self._failed())

    def failures(self) -> Iterator[Failure]:
        """The newest destroyed instances, at most 256, the newest first."""
        return iter(self._router.failures)

    @property
    def destroyed(self) -> Mapping[tuple[str, str], int]:
        """Instances that were destroyed since the node was started, by the keys of their namespaces and the reason.

        `storage`: a commit failed; `reset`: aborted, or a critical section took too long; `error`: its code raised one.
        """
        totals = self._router.failures.totals
        return {(key, why): totals[key, why] for key in self._classes for why in get_args(Reason)}

    @property
    def evicted(self) -> Mapping[str, int]:
        """Instances that were forgotten since then: `idle`, for a newer one's `room`, or `asked` for."""
        return {why: self._router.evictions[why] for why in get_args(Eviction)}

    @property
    def measured(self) -> Meter | None:
        """How long turns and commits took, how many events waited, how late timers were; None: nothing is measured."""
        return self._router.services.platform.meter

    async def stored_bytes(self) -> dict[tuple[str, str], int]:
        """What actors have on the disk, by kind of storage and class; of those without SQL together, with the class "".

        Histories are in it. Of SQL classes it is as of a minute ago at most; those that the server does not know any
        more, and facets, are `other`.

        Raises:
            StorageFailed: the disk does not answer.
        """
        found: dict[tuple[str, str], int] = {}
        for storage, backend in self._router.services.backends.items():
            for key, size in (await backend.stored_bytes()).items():
                name = "" if not key else self._classes[key].__name__ if key in self._classes else "other"
                found[storage, name] = found.get((storage, name), 0) + size
        return found

    @property
    def live(self) -> int:
        """Instances in memory."""
        return self._router.live

    def failing(self) -> dict[ActorId, str]:
        """Those that fail now, and why."""
        found = {failure.actor: failure.error for failure in reversed(self._failed().values())}
        for actor_id, retries in self._router.alarms.retried():
            found[actor_id] = f"its alarm failed {retries} times in a row"
        return found

    def _failed(self) -> dict[ActorId, Failure]:
        since = self._router.services.platform.now() - FAILING_S
        found: dict[ActorId, Failure] = {}
        for failure in self._router.failures:
            if failure.at >= since:
                found.setdefault(failure.actor, failure)
        return found

    def _view(self, actor_id: ActorId, failed: Mapping[ActorId, Failure]) -> ActorView:
        container = self._router.containers.get(actor_id)
        alarms = self._router.alarms
        retries = alarms.retries(actor_id)
        failure = failed.get(actor_id)
        actor_class = self._classes[actor_id.namespace]
        seen = {} if container is None else _seen(container, self._router.idle_s(container))
        state: State = seen.pop("state", "hibernated")
        if failure is not None or retries:
            state = "failing"
        return ActorView(
            id=actor_id if container is None else container.id,
            actor_class=actor_class.__name__,
            state=state,
            storage="sql" if actor_class.storage == "sql" else "kv",
            alarm_at=alarms.due(actor_id),
            alarm_retries=retries,
            last_error=None if failure is None else failure.error,
            **seen,
        )

    # What an actor stores: its instance reads it, as an event with its turn, and is made for that if it is not there.

    async def entries(
        self, actor_id: ActorId, *, prefix: str = "", after: str | None = None, limit: int = ENTRIES
    ) -> dict[str, Any]:
        """Keys in their order, at most 200, and values as far as JSON has a form for them.

        Raises:
            ActorError: it could not be asked.
        """

        def read(actor: Actor[Any]) -> dict[str, Any]:
            found = actor.ctx.storage.list(prefix=prefix, start_after=after, limit=min(limit, ENTRIES))
            return {key: plain(value) for key, value in found.items()}

        found: dict[str, Any] = await run_in(self._router, actor_id, read)
        return found

    async def query(self, actor_id: ActorId, text: str, *, rows: int = ROWS) -> Rows:
        """What a statement that only reads gives, of an actor with a database of its own; at most 200 rows.

        Raises:
            SqlError: it would write, takes too long, or is refused. ActorError: the actor could not be asked.
        """

        def read(actor: Actor[Any]) -> Rows:
            columns, found, more = actor.ctx.storage.sql.read(text, rows=min(rows, ROWS), steps=SQL_STEPS)
            return Rows(columns, tuple(found), more)

        if self._classes[actor_id.namespace].storage != "sql":
            raise SqlError("this actor has no database of its own", code="SQLITE_ERROR")
        found: Rows = await run_in(self._router, actor_id, read)
        return found

    async def bookmark(self, actor_id: ActorId) -> str:
        """What leads back to how it is now.

        Raises:
            ActorError: its class keeps no history, or it could not be asked.
        """

        async def read(actor: Actor[Any]) -> str:
            return await actor.ctx.storage.get_current_bookmark()

        found: str = await run_in(self._router, actor_id, read)
        return found

    # What is done.

    async def evict(self, actor_id: ActorId) -> None:
        """Forget its instance once it is idle; its sockets stay.

        Raises:
            ActorError: it is not in memory, or still busy after 30 s.
        """
        await self._router.evict(actor_id)

    def abort(self, actor_id: ActorId, reason: str) -> None:
        """Destroy its instance now, with what it has not stored and its sockets.

        Raises:
            ActorError: it is not in memory.
        """
        container = self._router.containers.get(actor_id)
        if container is None or container.cell is None:
            raise ActorError(f"{actor_id!r} is not in memory; there is nothing to abort")
        self._router.abort(actor_id, reason)

    async def run_alarm(self, actor_id: ActorId) -> None:
        """Run its alarm now instead of when it is due.

        Raises:
            ActorError: it has none, or that runs already. Exception: what the handler raised; the alarm stays then.
        """
        if not await run_alarm(self._router, actor_id):
            raise ActorError(f"{actor_id!r} has no alarm that is pending")


def _seen(container: Container, idle_s: float | None) -> dict[str, Any]:
    cell = container.cell
    seen: dict[str, Any] = {
        "restarts": container.restarts,
        "sockets": container.socket_count,
        "last_event": container.last_event,
    }
    if cell is None:
        return seen
    return seen | {
        "in_memory": True,
        "state": "idle" if cell.idle else "active",
        "mailbox": len(cell.gate),
        "in_flight": len(cell.running),
        "idle_s": idle_s,
        "why_awake": tuple(cell.why_awake()),
    }
