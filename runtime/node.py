"""One running app without a network: its store, its timers, its actors, its routes, in nurseries of the caller.

The server puts a network in front of it; tests and the simulator use it as it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio

from runtime import limits
from runtime.actor.http import Request, Response
from runtime.app import App, Routes
from runtime.faults import Faults
from runtime.limits import StorageLimits
from runtime.namespace.namespace import Namespace
from runtime.namespace.router import Router
from runtime.operator import Operator
from runtime.platform import Platform
from runtime.storage.backend import Backend, SharedBackend
from runtime.storage.bookmarks import Retention
from runtime.storage.objects import ObjectStore
from runtime.storage.store import Store
from runtime.timers import Timers

DRAIN_S = 10.0
PRODUCTION = StorageLimits()


@attrs.frozen(kw_only=True)
class Node:
    """A running app.

    Attributes:
        env: the app's env, its namespaces bound; stubs made from it may be called by any task.
        objects: the databases of SQL classes, if it has a folder for them.
    """

    app: App
    env: Any
    router: Router
    routes: Routes
    store: Store
    objects: ObjectStore | None
    timers: Timers
    platform: Platform
    log: structlog.stdlib.BoundLogger

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        return await self.routes.handle(request)

    async def drain(self) -> None:
        """Let the app prepare its clients for the end; an error of it is logged, and the end comes all the same."""
        if self.app.drain is not None:
            try:
                await self.app.drain(self.env)
            except Exception:
                self.log.exception("the app's drain failed")


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
    objects: Path | None = None,
    open_objects: int = limits.OPEN_OBJECTS,
    retention: Retention | None = None,
    faults: Faults | None = None,
) -> AsyncGenerator[Node, None]:
    """Run an app's actors while the block runs.

    At the end running events get 10 s to finish, every instance ends, and what was sealed is committed. When the block
    is cancelled from outside they get no time, and all else is the same.

    Args:
        store: keys and alarms of all actors but those of SQL classes.
        live_actors, idle_s: how many instances may be in memory, and how long without events.
        storage_limits: of keys, values and rows.
        objects: the folder of the databases of SQL classes; needed when the app has such classes, or facets of them.
        open_objects: how many of those may be in memory.
        retention: what is kept of what they held before, all together; as Durable Objects when None.
        faults: what an operator may let fail, if the platform is one of `with_faults`.

    Raises:
        ValueError: the app has SQL classes, and no folder is given.
    """
    classes = app.classes()
    backends: dict[str, Backend] = {"shared": SharedBackend(store, storage_limits)}
    folder: ObjectStore | None = None
    if objects is None and any(cls.storage == "sql" for cls in classes.values()):
        raise ValueError("the app has SQL classes; open_node needs a folder for their databases (objects=…)")
    if objects is not None:
        folder = ObjectStore(objects, index=store, platform=platform, limits=storage_limits, retention=retention)
        backends["sql"] = folder
    async with _own_nursery() as world:
        await world.start(store.run)
        timers = Timers(platform.meter)
        world.start_soon(timers.run)
        async with _running(folder), _own_nursery() as actors:
            router = Router(
                classes,
                platform=platform,
                store=store,
                backends=backends,
                timers=timers,
                start_soon=actors.start_soon,
                log=log,
                live_actors=live_actors,
                open_objects=open_objects,
                idle_s=idle_s,
            )
            router.env = app.make_env(
                lambda key: Namespace(key, router, store, platform.token_bytes),
                settings,
                Operator(router, classes, faults),
            )
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
                    objects=folder,
                    timers=timers,
                    platform=platform,
                    log=log,
                )
                with trio.move_on_after(DRAIN_S):
                    await router.drain()
            finally:
                router.stop()


@asynccontextmanager
async def _running(folder: ObjectStore | None) -> AsyncGenerator[None, None]:
    """Its end comes before the store's: what it submits there as it ends is still committed."""
    if folder is None:
        yield
        return
    async with _own_nursery() as nursery:
        await nursery.start(folder.run)
        yield


@asynccontextmanager
async def _own_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """A nursery that is cancelled when the block has ended, and that no cancellation from outside reaches before.

    A handler that waits for its turn does not stop waiting before its instance ends, and a store commits what others
    submit as they end: all of them have to end in order.
    """
    own = trio.CancelScope(shield=True)
    opened: list[trio.Nursery] = []
    is_open = trio.Event()

    async def keep_open() -> None:
        with own:
            async with trio.open_nursery() as nursery:
                opened.append(nursery)
                is_open.set()
                await trio.sleep_forever()

    async with trio.open_nursery() as outer:
        outer.start_soon(keep_open)  # not `start`, whose task stays where it was when the caller is cancelled meanwhile
        try:
            await is_open.wait()
            yield opened[0]
        finally:
            own.cancel()
