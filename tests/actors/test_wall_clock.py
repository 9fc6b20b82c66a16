"""A wall clock that is set, forward or back, ends no connection that lives and keeps none open that is dead."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from actors.app import app
from actors.settings import ConnectionSettings, Settings
from runtime.testing import start_server

QUIET = Settings(sources_enabled=False)


async def ping(p: Any) -> None:
    while True:
        await trio.sleep(25)
        await p.ws.send_message('{"t":"ping"}')


@pytest.mark.parametrize("skew_s", [-300, 300])
async def test_who_pings_stays(autojump_clock: Any, peer: Any, skew_s: int) -> None:
    async with start_server(app, settings=QUIET, faults=True) as server, peer(server) as p:
        assert (await p.ask("hello"))["t"] == "welcome"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping, p)
            await trio.sleep(20)
            assert server.live_actors == 0
            assert server.faults is not None
            server.faults.skew_clock(skew_s, 400)  # and back into its place while they look
            with trio.move_on_after(1_000):
                while True:
                    assert (await p.receive())["t"] == "pong"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("skew_s", [-300, 300])
@pytest.mark.parametrize(("says_hello", "code", "after_s"), [(True, 4105, 60), (False, 4008, 5)])
async def test_who_says_nothing_is_closed_in_time(
    autojump_clock: Any, peer: Any, skew_s: int, says_hello: bool, code: int, after_s: int
) -> None:
    async with start_server(app, settings=QUIET, faults=True) as server, peer(server) as p:
        if says_hello:
            await p.ask("hello")
        begun = trio.current_time()
        await trio.sleep(2)
        assert server.faults is not None
        server.faults.skew_clock(skew_s, 1_000)
        assert (await p.closed())[0] == code
        assert after_s <= trio.current_time() - begun <= after_s + 1.5


@pytest.mark.parametrize("skew_s", [-300, 300])
async def test_who_is_sent_away_is_served_as_long_as_it_was_told(autojump_clock: Any, peer: Any, skew_s: int) -> None:
    settings = attrs.evolve(QUIET, connections=ConnectionSettings(handover_s=10.0))
    async with (
        start_server(app, settings=settings, faults=True) as server,
        peer(server, {"features": ["goaway"]}) as p,
        trio.open_nursery() as nursery,
    ):
        begun = trio.current_time()
        nursery.start_soon(server.stop)
        assert (await p.receive())["deadline_ms"] == 10_000
        assert server.faults is not None
        server.faults.skew_clock(skew_s, 1_000)
        assert (await p.closed())[0] == 4200
        assert 10 <= trio.current_time() - begun <= 11
