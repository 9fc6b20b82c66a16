"""Pages of other sites reach nothing: neither by a WebSocket nor by a name that leads to this machine."""

from __future__ import annotations

import pytest

from tests.security.kit import HOST, exchange, get, service, status, upgrade

EVIL = "https://evil.example"
ROUTES = ["/", "/v1/stream", "/v1/history", "/v1/sources", "/v1/signals", "/v1/webhooks/x", "/readyz", "/nothing"]


@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1.evil.example:8787", "http://localhost:3000", ""])
async def test_a_web_socket_of_another_site_is_refused_before_the_upgrade(autojump_clock, origin):
    async with service() as server:
        answer = await exchange(server, upgrade(f"Origin: {origin}"))
        assert status(answer) == 403
        assert server.live_ids(server.env.shards) == []


async def test_a_web_socket_of_the_own_page_and_of_a_program_is_accepted(autojump_clock):
    async with service() as server:
        assert status(await exchange(server, upgrade(f"Origin: http://{HOST}"))) == 101
        assert status(await exchange(server, upgrade())) == 101


@pytest.mark.parametrize("target", ROUTES)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
async def test_no_route_answers_a_page_of_another_site(autojump_clock, target, method):
    async with service() as server:
        assert status(await exchange(server, get(target, f"Origin: {EVIL}", method=method))) == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8787",
        "127.0.0.1.evil.example:8787",
        "localhost.evil.example",
        "",
        "127.0.0.1@evil",
    ],
)
@pytest.mark.parametrize("target", ROUTES)
async def test_a_name_that_somebody_rebound_to_this_machine_is_not_served(autojump_clock, host, target):
    async with service() as server:
        assert status(await exchange(server, get(target, host=host))) in {400, 421}
        assert status(await exchange(server, upgrade(f"Origin: http://{host}", host=host))) in {400, 421}
        assert server.live_ids(server.env.shards) == []


async def test_two_host_headers_and_an_absolute_target_fool_nobody(autojump_clock):
    async with service() as server:
        assert status(await exchange(server, get("/healthz", "Host: evil.example"))) == 400
        assert status(await exchange(server, get("http://evil.example/healthz"))) == 421
