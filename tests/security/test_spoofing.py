"""Addresses and names that a client makes up, with and without a proxy that is trusted."""

from __future__ import annotations

import pytest

from actors.protocol.limits import Limits
from actors.settings import Settings
from runtime.transport.config import TransportConfig
from runtime.transport.forwarded import Proxies, parse_networks
from tests.security.kit import STRANGER, connect, exchange, get, service, socket, status, upgrade

PROXY = "10.0.0.1"
BEHIND = TransportConfig(
    hosts=["signals.example.com"], proxies=Proxies(trusted=parse_networks(["10.0.0.0/8", "127.0.0.1"]))
)
FEW = Settings(sources_enabled=False, shards=1, limits=Limits(handshakes_burst=3, connections_per_user=2))


async def refused(server, peer, headers):
    """How many of eight handshakes are refused."""
    answers = []
    for number in range(8):
        stream = await connect(server, peer)
        await stream.send_all(upgrade(*(line.format(number) for line in headers)))
        answers.append(status(await stream.receive_some()))
    return answers.count(429)


async def test_a_stranger_cannot_get_around_a_limit_by_an_address_it_makes_up(autojump_clock):
    async with service(FEW, config=BEHIND) as server:
        assert await refused(server, STRANGER, ["X-Forwarded-For: 127.0.0.1"]) == 5
    async with service(FEW, config=BEHIND) as server:
        assert await refused(server, STRANGER, ["X-Forwarded-For: 198.51.100.{}", "Forwarded: for=127.0.0.1"]) == 5


async def test_behind_a_proxy_what_a_client_put_in_front_of_its_address_does_not_count(autojump_clock):
    async with service(FEW, config=BEHIND) as server:
        assert await refused(server, PROXY, [f"X-Forwarded-For: 198.51.100.{{}}, 127.0.0.1, {STRANGER}"]) == 5


async def test_behind_a_proxy_each_client_has_its_own_limits(autojump_clock):
    async with service(FEW, config=BEHIND) as server:
        assert await refused(server, PROXY, ["X-Forwarded-For: 198.51.100.{}"]) == 0
        assert await refused(server, PROXY, [f"X-Forwarded-For: {STRANGER}"]) == 5


async def test_behind_a_proxy_connections_are_counted_for_the_client(autojump_clock):
    forwarded = f"X-Forwarded-For: {STRANGER}"
    async with service(FEW, config=BEHIND) as server:
        async with (
            socket(server, forwarded, peer=PROXY, hello={}),
            socket(server, forwarded, peer=PROXY, hello={}),
            socket(server, forwarded, peer=PROXY) as third,
        ):
            await third.say(t="hello", id=1)
            assert await third.closed() == 4009


async def test_the_name_that_a_client_called_a_proxy_by_is_checked(autojump_clock):
    async with service(config=BEHIND) as server:
        called = (f"X-Forwarded-For: {STRANGER}", "X-Forwarded-Host: signals.example.com", "Connection: close")
        assert status(await exchange(server, get("/healthz", *called), peer=PROXY)) == 200
        for forged in ("evil.example", "signals.example.com.evil.example"):
            lines = (f"X-Forwarded-For: {STRANGER}", f"X-Forwarded-Host: {forged}")
            assert status(await exchange(server, get("/healthz", *lines), peer=PROXY)) == 421


@pytest.mark.parametrize("peer", ["127.0.0.1", STRANGER])
async def test_a_page_under_a_rebound_name_gains_nothing_by_a_forwarded_one(autojump_clock, peer):
    """A page may set every header but `Host`, and its browser may run where the proxy does."""
    lines = (f"X-Forwarded-For: {STRANGER}", "X-Forwarded-Host: localhost", "Origin: http://evil.example")
    async with service(config=BEHIND) as server:
        assert status(await exchange(server, upgrade(*lines, host="evil.example"), peer=peer)) == 421


async def test_behind_a_proxy_with_tls_the_own_origin_is_the_encrypted_one(autojump_clock):
    lines = (f"X-Forwarded-For: {STRANGER}", "X-Forwarded-Host: signals.example.com", "X-Forwarded-Proto: https")
    async with service(config=BEHIND) as server:
        for origin, expected in [("https://signals.example.com", 101), ("http://signals.example.com", 403)]:
            answer = await exchange(server, upgrade(*lines, f"Origin: {origin}"), peer=PROXY)
            assert status(answer) == expected
