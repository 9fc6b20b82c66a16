"""The signal service: what `heliograph serve` serves."""

from __future__ import annotations

import trio

from actors.console.answers import NAME as CONSOLE
from actors.console.injection import NAME as FAULTS
from actors.console.routes import CONSOLE_ROUTES
from actors.env import Env
from actors.handshakes import HANDSHAKES
from actors.metrics import metrics
from actors.moving import STEP_S
from actors.routes import ROUTES
from actors.settings import Settings
from actors.stream import CONSOLE_STREAM, shard_name
from actors.tickets import TICKETS
from actors.token_verifier import VERIFIER
from runtime import App


async def start(env: Env) -> None:
    """The server is up: the keys of tokens are read, and every configured source gets its first alarm."""
    if env.settings.auth.jwt.enabled:
        await env.verifiers.get_by_name(VERIFIER).begin()
    if env.operator.faults is not None:
        await env.injections.get_by_name(FAULTS).begin()
    for source in env.settings.active_sources():
        await env.ingests.get_by_name(source.name).begin()


async def drain(env: Env) -> None:
    """The server is about to go down: quiet subscriptions get their newest cursor, then clients are asked to leave."""
    names = env.settings.stream_names
    for settled in [env.broadcasters.get_by_name(name).settle() for name in names]:
        await settled
    shards = [env.shards.get_by_name(shard_name(n, name)) for name in names for n in range(env.settings.shards)]
    shards.append(env.shards.get_by_name(shard_name(0, CONSOLE_STREAM)))
    for told in [shard.settle() for shard in shards]:
        await told
    staying = list(shards)
    while staying:
        calls = [(shard, shard.depart()) for shard in staying]
        staying = [shard for shard, call in calls if await call]
        await trio.sleep(STEP_S)  # after the last one, too: clients answer to a close
    for told in [shard.settle() for shard in shards]:
        await told
    if env.settings.tracing.share:
        for traced in [env.tracers.get_by_name(name).settle() for name in names]:
            await traced
    await env.tickets.get_by_name(TICKETS).settle()
    await env.handshakes.get_by_name(HANDSHAKES).settle()
    await env.consoles.get_by_name(CONSOLE).settle()
    if env.operator.faults is not None:
        await env.injections.get_by_name(FAULTS).settle()


app = App(
    env=Env, settings=Settings, routes={**ROUTES, **CONSOLE_ROUTES, "/metrics": metrics}, start=start, drain=drain
)
