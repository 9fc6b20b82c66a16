"""One running app without a network: its store, its timers, its actors, its routes, in nurseries of the caller.

The server puts a network in front of it; tests and the simulator use it as it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import structlog
import trio

from runtime import limits
from runtime.actor.http import Request, Response
from runtime.app import App, Routes
from runtime.limits import StorageLimits
from runtime.namespace.namespace import Namespace
from runtime.namespace.router import Router
from runtime.platform import Platform
from runtime.storage.store import Store
from runtime.timers import Timers

DRAIN_S = 10.0
PRODUCTION = StorageLimits()


@attrs.frozen(kw_only=True)
class Node:
    """A running app.

    Attributes:
        env: the app's env, its namespaces bound; stubs made from it may be called by any task.
    """

    app: App
    env: Any
    router: Router
    routes: Routes
    store: Store
    timers: Timers
    platform: Platform
    log: structlog.stdlib.BoundLogger

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        return await self.routes.handle(request)


@asynccontextmanager
async def open_node(
    app: App,
    *,
    settings: Any,
    store: Store,
    platform: Platform,
    log: structlog.stdlib.BoundLogger,
    live_actors: int = limits.LIVE_ACTORS,
    idle_s: float = limits.IDLE_S,
    storage_limits: StorageLimits = PRODUCTION,
) -> AsyncGenerator[Node, None]:
    """Run an app's actors while the block runs.

    At the end running events get 10 s to finish, every instance ends, and what was sealed is committed.
    """
    async with trio.open_nursery() as world:
        await world.start(store.run)
        timers = Timers()
        world.start_soon(timers.run)
        async with trio.open_nursery() as actors:
            router = Router(
                app.classes(),
                platform=platform,
                store=store,
                timers=timers,
                start_soon=actors.start_soon,
                log=log,
                live_actors=live_actors,
                idle_s=idle_s,
                storage_limits=storage_limits,
            )
            router.env = app.make_env(lambda key: Namespace(key, router, store, platform.token_bytes), settings)
            routes = Routes(app, router.env)
            router.alarms.load(store.alarms())
            if app.start is not None:
                await app.start(router.env)
            try:
                yield Node(
                    app=app,
                    env=router.env,
                    router=router,
                    routes=routes,
                    store=store,
                    timers=timers,
                    platform=platform,
                    log=log,
                )
                with trio.move_on_after(DRAIN_S):
                    await router.drain()
            finally:
                router.stop()
                actors.cancel_scope.cancel()
        world.cancel_scope.cancel()
