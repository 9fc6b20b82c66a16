"""Who guesses the console's password is slowed down, and that is nobody else's trouble."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel

from actors.app import app
from actors.console.console import FAILURES_WRITTEN_A_MINUTE
from actors.console.failed_tries import ADDRESSES, TRIES, FailedTries
from actors.console.routes import SIGN_IN_BYTES
from actors.settings import PASSWORD_CHARACTERS_MAX, ConsoleSettings, Settings
from runtime import Secret
from runtime.actor.http import Response
from runtime.testing import RunningServer, start_server
from runtime.testing.http import read_response, write_request
from runtime.transport.config import TransportConfig
from runtime.transport.forwarded import Proxies, parse_networks

PASSWORD = "correct horse battery"
LOCKED = Settings(sources_enabled=False, console=ConsoleSettings(passwords=(Secret(PASSWORD),)))
MEANT = {"x-heliograph-console": "1"}
OPERATOR = "203.0.113.1"


async def sign_in(server: RunningServer, peer: str, password: str = "wrong", **headers: str) -> Response:
    async with await server.network.connect("127.0.0.1", 8787, peer=peer) as stream:
        body = json.dumps({"password": password}).encode()
        await write_request(stream, "POST", "/console/api/login", "127.0.0.1:8787", body, {**MEANT, **headers})
        return await read_response(stream, "POST")


async def guess(server: RunningServer, peer: str, **headers: str) -> int:
    """Guess until it is made to wait, and return how often its guess was looked at."""
    for tries in range(20):
        if (await sign_in(server, peer, **headers)).status == 429:
            return tries
    raise AssertionError("never made to wait")


async def audited(server: RunningServer) -> list[dict[str, Any]]:
    answer = await sign_in(server, OPERATOR, PASSWORD)
    cookie = answer.headers["set-cookie"].partition(";")[0]
    answer = await server.request("GET", "/console/api/audit?limit=200", headers={"cookie": cookie})
    entries: list[dict[str, Any]] = json.loads(answer.body)["entries"]
    return entries


# --- who waits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guesser", "same", "other"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::1", "2001:db8:1:3::1"),
        ("::ffff:192.0.2.7", "192.0.2.7", "::ffff:192.0.2.8"),
    ],
)
async def test_who_guesses_waits_also_with_the_right_password_and_the_neighbour_does_not(
    autojump_clock: Any, guesser: str, same: str, other: str
) -> None:
    async with start_server(app, settings=LOCKED) as server:
        assert await guess(server, guesser) == TRIES
        refused = await sign_in(server, same, PASSWORD)
        assert refused.status == 429
        assert (await sign_in(server, other, PASSWORD)).status == 204
        await trio.sleep(float(refused.headers["retry-after"]))
        assert (await sign_in(server, same, PASSWORD)).status == 204


async def test_the_console_does_not_forget_who_guessed_while_nobody_uses_it(autojump_clock: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        assert await guess(server, "192.0.2.7") == TRIES
        await trio.sleep(11.5)  # an idle actor leaves memory after ten seconds
        assert (await sign_in(server, "192.0.2.7")).status == 429
        await trio.sleep(24.5)
        assert await guess(server, "192.0.2.7") == 3  # one in twelve seconds
        await trio.sleep(140)
        assert server.live_actors == 0  # and then there is nobody to remember any more


async def test_who_knows_the_password_may_mistype_it_again(autojump_clock: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        for _ in range(3):
            for _ in range(TRIES - 1):
                assert (await sign_in(server, OPERATOR)).status == 401
            assert (await sign_in(server, OPERATOR, PASSWORD)).status == 204


async def test_behind_a_trusted_proxy_each_client_waits_for_itself(autojump_clock: Any) -> None:
    config = TransportConfig(proxies=Proxies(trusted=parse_networks(["10.0.0.1"])))
    async with start_server(app, settings=LOCKED, config=config) as server:
        guesser = {"x-forwarded-for": "192.0.2.7"}
        assert await guess(server, "10.0.0.1", **guesser) == TRIES
        made_up = {"x-forwarded-for": f"{OPERATOR}, 192.0.2.7"}
        assert (await sign_in(server, "10.0.0.1", PASSWORD, **made_up)).status == 429
        assert (await sign_in(server, "10.0.0.1", PASSWORD, **{"x-forwarded-for": OPERATOR})).status == 204


# --- what it costs ----------------------------------------------------------------------------------------


async def test_guesses_of_many_do_not_take_the_place_of_what_operators_did(autojump_clock: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        for number in range(100):
            assert (await sign_in(server, f"198.51.100.{number}")).status == 401
        entries = await audited(server)
        assert sum(one["result"] == "wrong password" for one in entries) == FAILURES_WRITTEN_A_MINUTE
        await trio.sleep(61)
        rest = 100 - FAILURES_WRITTEN_A_MINUTE
        results = [one["result"] for one in await audited(server)]
        assert results[1] == f"{rest} wrong passwords more than are written down one by one"


async def test_what_was_not_written_down_yet_is_when_the_server_stops(autojump_clock: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        for number in range(70):
            await sign_in(server, f"198.51.100.{number}")
        await server.restart()
        assert (await audited(server))[1]["result"].startswith("10 wrong passwords more")


async def test_a_long_request_is_refused_before_it_is_read(autojump_clock: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        body = b"[" * (SIGN_IN_BYTES + 1)
        answer = await server.request("POST", "/console/api/login", body=body, headers=MEANT)
        assert answer.status == 413
        assert json.loads(answer.body)["slug"] == "too_large"


async def test_the_longest_password_lets_in_whatever_it_is_made_of(autojump_clock: Any) -> None:
    longest = "\N{FACE WITH TEARS OF JOY}" * PASSWORD_CHARACTERS_MAX
    settings = attrs.evolve(LOCKED, console=ConsoleSettings(passwords=(Secret(longest),)))
    async with start_server(app, settings=settings) as server:
        assert (await sign_in(server, OPERATOR, longest)).status == 204
    with pytest.raises(ValueError, match=r"has 1,025 characters; must be at most 1,024"):
        ConsoleSettings(passwords=(Secret("x" * 1_025),))


def test_an_address_is_forgotten_for_nothing_less_than_as_many_others() -> None:
    def address(number: int) -> str:
        return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"

    failed = FailedTries()
    for _ in range(TRIES):
        failed.wrong("192.0.2.7", 0.0)
    for number in range(ADDRESSES - 1):
        failed.wrong(address(number), 1.0)
        failed.right(OPERATOR)  # who knows the password, and who has to wait, takes nobody's place
        failed.wait_s(address(number + 1), 1.0)
    assert failed.wait_s("192.0.2.7", 1.0) == 11.0
    assert len(failed) == ADDRESSES
    failed.wrong(address(ADDRESSES), 1.0)
    assert failed.wait_s("192.0.2.7", 1.0) == 0.0
    assert len(failed) == ADDRESSES
    failed.forget(12.9)
    assert len(failed) == ADDRESSES
    failed.forget(13.0)
    assert len(failed) == 0
