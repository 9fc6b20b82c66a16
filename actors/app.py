"""The signal service: what `heliograph serve` serves."""

from __future__ import annotations

from actors.env import Env
from actors.routes import ROUTES
from actors.settings import Settings
from runtime import App


async def start(env: Env) -> None:
    """The server is up: every configured source gets its first alarm."""
    for source in env.settings.active_sources():
        await env.ingests.get_by_name(source.name).begin()


app = App(env=Env, settings=Settings, routes=ROUTES, start=start)
