"""Ways to get in without a token, or with one that is not meant for it, at every door of the service."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio

from actors.routes import ROUTES
from actors.settings import ConsoleSettings
from runtime import Secret
from tests.actors.test_tokens import LOCKED, STATIC, attacks, claims, forged, now_of, token
from tests.security.kit import STRANGER, connect, exchange, get, service, socket, status, upgrade

PASSWORD = "a-password-of-the-console"
GUARDED = ("/v1/history", "/v1/sources", "/v1/sse")
OPEN = {"/", "/assets/{name}", "/client.js", "/healthz", "/readyz", "/_test/echo", "/v1/webhooks/{name}"}
DOORS = [path for path in ROUTES if path not in OPEN]
NAMES = ("token", "access_token", "Access_Token", "authorization", "bearer", "jwt", "JWT")


def request(path: str, *lines: str) -> bytes:
    """What a client sends at this door."""
    path = path.replace("{name}", "main")
    bare = path.partition("?")[0]
    if bare.endswith("/stream") or bare.startswith("/v1/streams/main?") or bare == "/v1/streams/main":
        return upgrade(*lines, target=path)
    if bare.endswith(("/signals", "/tickets")):
        body = '{"type":"t.a","entity":"e","data":1}'
        return get(path, f"Content-Length: {len(body)}", "Connection: close", *lines, method="POST") + body.encode()
    return get(path, "Connection: close", *lines)


def moved(now: float, text: str) -> str:
    """The same attack at the server's time: what it is refused for is not its age."""
    try:
        header, _, signature = text.split(".")
    except ValueError:
        return text
    return text if len(header) > 500 else f"{header}.{token(now).split('.')[1]}.{signature}"


@pytest.mark.parametrize("path", DOORS)
async def test_without_a_token_no_door_opens(autojump_clock: Any, path: str) -> None:
    async with service(LOCKED) as server:
        if status(answer := await exchange(server, request(path))) == 101:
            async with socket(server) as ws:  # in who says nothing else is let
                await ws.say(t="hello", id=1)
                assert (await ws.messages())[0]["code"] == 401
                assert await ws.closed() == 4004
        else:
            assert status(answer) == 401, answer


@pytest.mark.parametrize("name", NAMES)
async def test_a_token_in_the_url_opens_no_door_even_beside_a_good_header(autojump_clock: Any, name: str) -> None:
    async with service(LOCKED) as server:
        for good in (STATIC, token(now_of(server))):
            for path in DOORS:
                for lines in ((), (f"Authorization: Bearer {good}",)):
                    answer = await exchange(server, request(f"{path}?{name}={good}", *lines))
                    assert status(answer) == 400, (path, answer)
                    assert good.encode() not in answer


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in attacks()])
async def test_a_forged_token_opens_no_door(autojump_clock: Any, text: str) -> None:
    async with service(LOCKED) as server:
        for shown in (text, moved(now_of(server), text)):
            for path in GUARDED:
                answer = await exchange(server, request(path, f"Authorization: Bearer {shown}"))
                assert status(answer) in {401, 431}, answer
            answer = await exchange(server, request("/v1/stream", f"Authorization: Bearer {shown}"))
            assert status(answer) in {401, 431}, answer
            async with socket(server) as ws:
                await ws.say(t="hello", id=1, token=shown)
                (answered,) = await ws.messages()
                assert (answered["t"], answered["code"]) == ("err", 401)
                assert await ws.closed() == 4004


@pytest.mark.parametrize(
    "how",
    [{"ttl": -1}, {"ttl": 0}, {"ttl": 1_000}, {"aud": "another"}, {"aud": ["x", "y"]}, {"nbf": 60}, {"iat": 60}],
    ids=str,
)
async def test_a_token_for_another_time_or_service_renews_nothing_and_lets_nobody_in(
    autojump_clock: Any, how: dict[str, Any]
) -> None:
    async with service(LOCKED) as server, socket(server) as ws:
        now = now_of(server)
        shown = token(now, **{name: now + value if name in ("nbf", "iat") else value for name, value in how.items()})
        await ws.say(t="hello", id=1, token=token(now, ttl=40))
        assert (await ws.messages())[0]["t"] == "welcome"
        await ws.say(t="auth", id=2, token=shown)
        assert (await ws.messages())[0]["code"] == 401
        for path in GUARDED:
            assert status(await exchange(server, request(path, f"Authorization: Bearer {shown}"))) == 401
        assert await ws.closed() == 4101, "the one it came with has ended"


async def test_a_token_may_not_get_more_by_being_renewed(autojump_clock: Any) -> None:
    async with service(LOCKED) as server, socket(server) as ws:
        now = now_of(server)
        await ws.say(t="hello", id=1, token=token(now, cap={"sub": ["price.>"]}))
        assert (await ws.messages())[0]["t"] == "welcome"
        for number, more in enumerate(({"cap": {"sub": [">"]}}, {"cap": {"sub": ["price.>"], "pub": [">"]}})):
            await ws.say(t="auth", id=10 + number, token=token(now, **more))
            assert (await ws.messages())[0]["code"] == 403
        await ws.say(t="pub", id=20, signal={"type": "t.a", "entity": "e", "data": 1})
        assert (await ws.messages())[0]["code"] == 403
        await ws.say(t="auth", id=30, token=token(now, sub="bob", cap={"sub": ["price.>"]}))
        assert await ws.closed() == 4004


async def test_no_cookie_lets_in(autojump_clock: Any) -> None:
    settings = attrs.evolve(LOCKED, console=ConsoleSettings(passwords=(Secret(PASSWORD),)))
    async with service(settings) as server:
        body = json.dumps({"password": PASSWORD}).encode()
        answer = await server.request(
            "POST",
            "/console/api/login",
            body=body,
            headers={"x-heliograph-console": "1", "content-length": str(len(body))},
        )
        assert answer.status == 204
        cookie = (
            f"Cookie: {answer.headers['set-cookie'].partition(';')[0]}; token={STATIC}; Authorization=Bearer {STATIC}"
        )
        assert b"HttpOnly" in answer.headers["set-cookie"].encode()
        assert b"SameSite=Strict" in answer.headers["set-cookie"].encode()
        for path in GUARDED:
            assert status(await exchange(server, request(path, cookie))) == 401
        async with socket(server, cookie) as ws:
            await ws.say(t="hello", id=1)
            assert await ws.closed() == 4004


async def test_of_a_hundred_who_show_one_ticket_at_once_one_gets_in(autojump_clock: Any) -> None:
    async with service(LOCKED) as server:
        bearer = {"authorization": f"Bearer {STATIC}"}
        ticket = json.loads((await server.request("POST", "/v1/tickets", headers=bearer)).body)["ticket"]
        seen: list[int | None] = []

        async def show(number: int) -> None:
            target = f"/v1/sse?ticket={ticket}"
            async with await connect(server) as stream:
                asked = get(target) if number % 2 else upgrade(f"Authorization: Ticket {ticket}")
                await stream.send_all(asked)
                seen.append(status(await stream.receive_some()))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(show, number)
        assert len(seen) == 100
        assert len([one for one in seen if one in (101, 200)]) == 1
        assert set(seen) <= {101, 200, 401}
        for again in (get(f"/v1/sse?ticket={ticket}", "Connection: close"), upgrade(f"Authorization: Ticket {ticket}")):
            assert status(await exchange(server, again)) == 401


async def test_a_ticket_that_is_none_is_refused_whatever_it_is(autojump_clock: Any) -> None:
    async with service(LOCKED) as server:
        for shown in ("", "x", "x" * 5_000, "%00", "%ff%fe", STATIC, token(now_of(server)), "..%2f..", "a&ticket=b"):
            answer = await exchange(server, get(f"/v1/sse?ticket={shown}", "Connection: close"))
            assert status(answer) in {400, 401}, answer
            assert STATIC.encode() not in answer


async def test_a_flood_of_bad_tokens_is_stopped_before_they_are_checked(autojump_clock: Any) -> None:
    async with service(LOCKED) as server:
        shown = forged({"alg": "RS256", "kid": "rsa"}, claims(now_of(server)))
        seen = []
        for _ in range(60):
            async with await connect(server, STRANGER) as stream:
                await stream.send_all(upgrade(f"Authorization: Bearer {shown}"))
                seen.append(status(await stream.receive_some()))
        assert seen == [401] * 20 + [429] * 40
