"""What a running scenario shares outside its actors: the trace, the server, and where actors are found."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from runtime import Context, WebSocket
from runtime.testing.server import RunningServer

NAMESPACES = {"Scripted": "scripted", "ScriptedKv": "kv", "ScriptedNoAlarm": "no_alarm"}


class _Nowhere:
    """The sending half of a socket that nobody is connected to."""

    backlog_bytes = 0
    direct = None
    round_trip_s = None
    connection_number = None

    def push(self, data: bytes, /) -> None: ...

    def push_rest(self, data: bytes, taken: int, /) -> None: ...

    def close(self, code: int | None, reason: str = "", /) -> None: ...

    def cut(self) -> None: ...

    def configure(
        self, *, backlog_bytes: int, slow_code: int, stall_s: float, changed: Callable[[], None] | None = None
    ) -> None: ...


COMMIT_ROUNDS = 50  # of the loop: more than a commit takes in virtual time


@attrs.define(eq=False)
class World:
    """One scenario while it runs.

    Attributes:
        events: the trace so far: [who, label] or [who, label, value].
    """

    scenario: Mapping[str, Any] = attrs.field(factory=dict)
    events: list[list[Any]] = attrs.field(factory=list)
    server: RunningServer | None = None
    _draw: random.Random | None = None

    def commit_rounds(self) -> int:
        """For how many rounds of the loop what ends an instance lets its commits go on.

        With `lateMs` until all are done, with `abortSeed` until as many as that draws.
        """
        if "abortSeed" in self.scenario:
            self._draw = self._draw or random.Random(self.scenario["abortSeed"])
            return self._draw.choice((0, 1, 2, 3, 4, COMMIT_ROUNDS))
        return COMMIT_ROUNDS if "lateMs" in self.scenario else 0

    def wait_s(self, ms: float) -> float:
        """How long a wait of so many ms takes."""
        return (ms + self.scenario.get("lateMs", 0)) / 1000 if ms > 0 else 0.0

    @property
    def turn_s(self) -> float:
        """How long it takes to give the turn away once."""
        return float(self.scenario.get("lateTurnMs", 0)) / 1000

    def log(self, who: str, label: str, *value: Any) -> None:
        """Add an event."""
        self.events.append([who, label, *value])

    def program(self, who: str) -> Mapping[str, Any]:
        """The program of an actor."""
        actors = self.scenario.get("actors", {})
        found: Mapping[str, Any] = actors.get(who, actors.get("*", {}))
        return found

    def namespace(self, env: Any, actor: str) -> Any:
        """The namespace an actor of the scenario lives in."""
        return getattr(env, NAMESPACES[self.scenario.get("actors", {}).get(actor, {}).get("class", "Scripted")])

    def loose_socket(self, ctx: Context) -> WebSocket:
        """A socket that came with no request."""
        return WebSocket(_Nowhere(), ctx.now)

    # Test hooks.

    async def evict(self, stub: Any, options: Mapping[str, Any]) -> None:
        """Evict one actor."""
        assert self.server is not None
        await self.server.evict(stub, web_sockets=options.get("webSockets", "hibernate"))

    async def evict_all(self, options: Mapping[str, Any]) -> None:
        """Evict every actor of the scenario that is in memory."""
        for stub in self._live():
            await self.evict(stub, options)

    async def abort_all(self) -> None:
        """Destroy every instance of the scenario's actors."""
        assert self.server is not None
        for stub in self._live():
            self.server.abort(stub, "Application called abortAllDurableObjects().")

    def _live(self) -> list[Any]:
        assert self.server is not None
        env = self.server.env
        return [
            getattr(env, name).get(actor_id)
            for name in NAMESPACES.values()
            for actor_id in self.server.live_ids(getattr(env, name))
        ]
