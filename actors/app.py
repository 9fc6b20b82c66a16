"""The signal service: what `heliograph serve` serves."""

from __future__ import annotations

import trio

from actors.env import Env
from actors.moving import STEP_S
from actors.routes import ROUTES
from actors.settings import Settings
from actors.stream import STREAM, shard_name
from runtime import App


async def start(env: Env) -> None:
    """The server is up: every configured source gets its first alarm."""
    for source in env.settings.active_sources():
        await env.ingests.get_by_name(source.name).begin()


async def drain(env: Env) -> None:
    """The server is about to go down: quiet subscriptions get their newest cursor, then clients are asked to leave."""
    await env.broadcasters.get_by_name(STREAM).settle()
    shards = [env.shards.get_by_name(shard_name(number)) for number in range(env.settings.shards)]
    while shards:
        calls = [(shard, shard.depart()) for shard in shards]
        shards = [shard for shard, call in calls if await call]
        await trio.sleep(STEP_S if shards else 0)


app = App(env=Env, settings=Settings, routes=ROUTES, start=start, drain=drain)
