"""Signed tokens: who gets in, what a token allows, its end and its renewal, and every way around it that is known."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import attrs
import jwt
import pytest
import structlog
import trio
import trio_websocket
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from actors.app import app
from actors.protocol.requests import Auth, Hello
from actors.settings import AuthSettings, JwtSettings, KeySettings, Settings
from actors.signals import Draft
from actors.stream import STREAM, shard_name
from actors.token_command import token as token_command
from actors.token_keys import InvalidKey, TokenKey, parse_jwks
from actors.web_token import TOKEN_BYTES_MAX, InvalidToken, verify
from runtime import Secret
from runtime.testing import RunningServer, start_server

STATIC = "a-static-token-of-many-characters"
SECRET = "0123456789abcdef0123456789abcdef-a"
NEXT_SECRET = "fedcba9876543210fedcba9876543210-b"
ALL = {"sub": [">"], "pub": [">"], "hist": True, "admin": True}
PRICES = {"sub": ["price.>"], "pub": ["price.>"]}
NOW = 1_790_000_000.0

RSA, EC = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def public(key: Any) -> str:
    form, kind = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = key.public_key().public_bytes(form, kind)
    return pem.decode()


KEYS = {
    "a": KeySettings(algorithm="HS256", key=Secret(SECRET)),
    "b": KeySettings(algorithm="HS256", key=Secret(NEXT_SECRET)),
    "rsa": KeySettings(algorithm="RS256", key=Secret(public(RSA))),
    "ec": KeySettings(algorithm="ES256", key=Secret(public(EC))),
    "ed": KeySettings(algorithm="EdDSA", key=Secret(public(ED))),
}
JWT = JwtSettings(audience="heliograph", issuer="https://id.example", keys=KEYS)
LOCKED = Settings(sources_enabled=False, shards=1, auth=AuthSettings(tokens=(Secret(STATIC),), jwt=JWT))


def claims(now: float = NOW, *, ttl: float = 300, cap: Any = ALL, **more: Any) -> dict[str, Any]:
    standard = {"sub": "ann", "aud": "heliograph", "iss": "https://id.example", "exp": now + ttl, "cap": cap}
    return {name: value for name, value in (standard | more).items() if value is not None}


def token(now: float = NOW, *, kid: str | None = "a", key: Any = SECRET, algorithm: str = "HS256", **more: Any) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(now, **more), key, algorithm=algorithm, headers=headers)


def part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def forged(header: Any, payload: Any, secret: bytes = SECRET.encode()) -> str:
    """A token of any header and payload, signed as HS256 does."""
    signed = f"{part(header)}.{part(payload)}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), 'sha256'))}"


def checked(text: str, settings: JwtSettings = JWT, now: float = NOW) -> Any:
    return verify(text, settings.parsed(), settings, now)


# --- what a token says ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kid", "key", "algorithm"),
    [
        ("a", SECRET, "HS256"),
        ("b", NEXT_SECRET, "HS256"),
        ("rsa", RSA, "RS256"),
        ("ec", EC, "ES256"),
        ("ed", ED, "EdDSA"),
    ],
)
def test_a_token_of_any_known_key_lets_its_user_in(kid: str, key: Any, algorithm: str) -> None:
    found = checked(token(kid=kid, key=key, algorithm=algorithm, cap=PRICES))
    assert (found.user, found.expires) == ("ann", NOW + 300)
    assert (found.capability.sub, found.capability.pub) == ('{"types":["price.>"]}', ("price.>",))
    assert not found.capability.hist


def test_a_capability_is_a_filter_and_what_it_does_not_say_is_not_allowed() -> None:
    tenant = {"types": ["price.>"], "entities": ["acme.>"]}
    assert json.loads(checked(token(cap={"sub": tenant})).capability.sub) == tenant
    nothing = checked(token(cap={})).capability
    assert (nothing.sub, nothing.pub, nothing.hist, nothing.admin) == (None, (), False, False)
    everything = checked(token(cap=ALL)).capability
    assert (everything.sub, everything.pub) == ("{}", (">",))


def test_a_token_without_a_kid_is_checked_with_the_only_key() -> None:
    one = attrs.evolve(JWT, keys={"a": KEYS["a"]})
    assert checked(token(kid=None), one).user == "ann"
    with pytest.raises(InvalidToken, match="no key None"):
        checked(token(kid=None))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"exp": NOW}, "expired 0 s ago"),
        ({"exp": NOW - 1}, "expired"),
        ({"exp": NOW + 906}, "at most 900"),
        ({"exp": 1e300}, "no time"),
        ({"exp": float("nan")}, "no number"),
        ({"exp": float("inf")}, "no number"),
        ({"exp": True}, "no number"),
        ({"exp": str(NOW + 9)}, "no number"),
        ({"exp": None}, '"exp"'),
        ({"nbf": NOW + 6}, "nbf is 6 s ahead"),
        ({"iat": NOW + 6}, "iat is 6 s ahead"),
        ({"nbf": "soon"}, "nbf is no number"),
        ({"aud": "another"}, "[Aa]udience"),
        ({"aud": None}, '"aud"'),
        ({"iss": "https://evil.example"}, "[Ii]ssuer"),
        ({"iss": None}, '"iss"'),
        ({"sub": None}, '"sub"'),
        ({"sub": ""}, "sub is no text"),
        ({"sub": "x" * 129}, "sub is no text"),
        ({"sub": "ann\nbob"}, "sub is no text"),
        ({"cap": None}, "cap is missing"),
        ({"cap": [">"]}, "cap is missing"),
        ({"cap": {"sub": "price.>"}}, "cap/sub"),
        ({"cap": {"sub": None}}, "cap/sub"),
        ({"cap": {"sub": ["pri ce"]}}, "cap/sub/types/0"),
        ({"cap": {"pub": ">"}}, "cap/pub"),
        ({"cap": {"hist": 1}}, "cap/hist"),
        ({"cap": {"admin": "true"}}, "cap/admin"),
    ],
)
def test_a_token_that_says_too_little_or_too_much_is_refused(more: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidToken, match=why):
        checked(forged({"alg": "HS256", "kid": "a"}, claims(**more)))


def test_the_clocks_of_issuers_may_differ_a_little() -> None:
    assert checked(token(nbf=NOW + 4, iat=NOW + 4)).user == "ann"


# --- attacks on signatures --------------------------------------------------------------------------------


def attacks() -> Iterator[tuple[str, str]]:
    good = {"alg": "HS256", "kid": "a"}
    head, body, mac = token().split(".")
    yield "alg none", f"{part({'alg': 'none', 'kid': 'a'})}.{body}."
    yield "alg None with the old signature", f"{part({'alg': 'None', 'kid': 'a'})}.{body}.{mac}"
    yield "alg none without a kid", f"{part({'alg': 'none'})}.{body}."
    yield "no signature", f"{head}.{body}."
    yield "another secret", token(key=NEXT_SECRET)
    yield "other claims under the signature", f"{head}.{part(claims(cap=ALL, sub='bob'))}.{mac}"
    for kid, pem in (("rsa", public(RSA)), ("ec", public(EC)), ("ed", public(ED))):
        yield f"the public key of {kid} as a secret", forged({"alg": "HS256", "kid": kid}, claims(), pem.encode())
        yield f"the same under a secret's kid, {kid}", forged(good, claims(), pem.encode())
    yield "a secret's token under an RSA kid", forged({"alg": "HS256", "kid": "rsa"}, claims())
    yield "RSA of another kind", token(kid="rsa", key=RSA, algorithm="PS256")
    yield "RS512 where RS256 is pinned", token(kid="rsa", key=RSA, algorithm="RS512")
    yield "HS512 where HS256 is pinned", token(key=SECRET * 2, algorithm="HS512")
    yield "an EC key where RSA is pinned", token(kid="rsa", key=EC, algorithm="ES256")
    yield "unknown kid", token(kid="zz")
    yield "a kid that is a path", token(kid="../../../dev/null", key="0" * 32)
    yield "a kid that is no text", forged({"alg": "HS256", "kid": ["a"]}, claims())
    own = jwt.algorithms.HMACAlgorithm.to_jwk("x" * 32, as_dict=True)
    yield "a key of its own", forged({"alg": "HS256", "jwk": own}, claims(), b"x" * 32)
    yield "a key from elsewhere", forged({"alg": "HS256", "jku": "https://evil.example/jwks"}, claims(), b"x" * 32)
    yield "an extension", forged({**good, "crit": ["b64"], "b64": False}, claims())
    yield "detached", forged({**good, "b64": False}, claims()).replace(part(claims()), "")
    yield "huge", forged(good, claims(x="y" * TOKEN_BYTES_MAX))
    yield "deep in the payload", forged(good, b'{"x":' + b"[" * 2_500 + b"]" * 400 + b"}")
    yield "deep in the header", f"{part(b'[' * 2_500)}.{body}.{mac}"
    yield "no object", forged(good, b"[]")
    yield "no JSON", forged(good, b"\xff\xfe")
    yield "zero signature of ES256", f"{part({'alg': 'ES256', 'kid': 'ec'})}.{body}.{part(bytes(64))}"


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in attacks()])
def test_forged_tokens_let_nobody_in_and_errors_have_nothing_of_them(text: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        checked(text)
    said = f"{caught.value} {caught.value.told}"
    assert caught.value.__cause__ is None
    assert len(said) < 400
    for secret in (SECRET, NEXT_SECRET, *[piece for piece in text.split(".") if len(piece) > 12]):
        assert secret not in said


@given(st.text(max_size=200) | st.lists(st.binary(max_size=60).map(part), max_size=4).map(".".join))
def test_what_is_no_token_is_refused_and_nothing_else_happens(text: str) -> None:
    with pytest.raises(InvalidToken):
        checked(text)


# --- keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "text", "why"),
    [
        ("HS256", "short", "at least 32"),
        ("HS256", public(RSA), "in PEM"),
        ("RS256", SECRET, "in PEM"),
        ("RS256", public(EC), "RSAPublicKey"),
        ("ES256", public(ED), "EllipticCurve"),
        ("EdDSA", public(RSA), "Ed25519"),
        ("ES256", public(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        ("RS256", public(rsa.generate_private_key(65537, 1024)), "1,024 bits"),
    ],
)
def test_keys_that_do_not_fit_stop_the_start_without_being_shown(algorithm: Any, text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        JwtSettings(audience="x", keys={"k": KeySettings(algorithm=algorithm, key=Secret(text))})
    assert "keys.k" in str(caught.value)
    assert text.strip().split("\n")[-1] not in str(caught.value)


def test_a_jwks_has_the_keys_that_sign_and_their_one_algorithm() -> None:
    one = jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True)
    other = jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key(), as_dict=True)
    document = {
        "keys": [
            {**one, "kid": "r"},
            {**other, "kid": "e", "use": "sig", "alg": "ES256"},
            {**one, "kid": "encrypts", "use": "enc"},
            {**one, "kid": "other", "alg": "PS512"},
        ]
    }
    found = parse_jwks(json.dumps(document).encode())
    assert {kid: key.algorithm for kid, key in found.items()} == {"r": "RS256", "e": "ES256"}
    assert verify(token(kid="r", key=RSA, algorithm="RS256"), found, JWT, NOW).user == "ann"
    for wrong in (
        b"",
        b"[]",
        b'{"keys":1}',
        b'{"keys":[1]}',
        b'{"keys":[{"kty":"RSA","kid":"x"}]}',
        b'{"keys":[{"kty":"oct","k":"eA","kid":"x"}]}',
        json.dumps({"keys": [one]}).encode(),
        json.dumps({"keys": [{**one, "kid": "x"}] * 2}).encode(),
        b"[" * 100_000,
        b" " * 300_000,
    ):
        with pytest.raises(InvalidKey):
            parse_jwks(wrong)


def test_no_repr_shows_a_token_or_a_key() -> None:
    key = TokenKey.parse("HS256", SECRET)
    shown = repr([LOCKED, key, Hello(id=1, token=token()), Auth(id=1, token=token())])
    for secret in (SECRET, STATIC, NEXT_SECRET, token()):
        assert secret not in shown


# --- the service ------------------------------------------------------------------------------------------


def now_of(server: RunningServer) -> float:
    now: float = server.platform.now()
    return now


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


async def refusal(server: RunningServer, target: str, headers: dict[str, str]) -> int:
    """The status that a handshake is refused with."""
    with pytest.RaisesGroup(trio_websocket.ConnectionRejected, flatten_subgroups=True) as group:
        async with server.connect(target, headers=headers):
            pass
    error: BaseException = group.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, trio_websocket.ConnectionRejected)
    return int(error.status_code)


def signal(type_: str = "price.tick", **more: Any) -> dict[str, Any]:
    return {"type": type_, "entity": "btc-usd", "data": 1} | more


async def test_tokens_let_in_by_hello_and_by_header_and_static_ones_still_do(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        good = token(now_of(server))
        for shown in (good, STATIC):
            assert (await server.request("GET", "/v1/history", headers=bearer(shown))).status == 200
            async with peer(server, {"token": shown}), peer(server, {}, headers=bearer(shown)):
                pass
        for headers in ({}, bearer("a.b.c"), bearer(token(now_of(server), aud="x")), bearer(good[:-2])):
            refused = await server.request("GET", "/v1/history", headers=headers)
            assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        async with peer(server) as p:
            error = await p.ask("hello", token=token(now_of(server), ttl=-1))
            assert (error["code"], error["slug"], error["msg"]) == (401, "unauthenticated", "the token has expired")
            assert (await p.closed())[0] == 4004
        assert await refusal(server, "/v1/stream", bearer(good + "x")) == 401


async def test_tokens_in_a_url_are_refused_even_good_ones(autojump_clock: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        good = token(now_of(server))
        for name in ("token", "access_token", "Token"):
            for path in ("/v1/history", "/v1/sources"):
                answer = await server.request("GET", f"{path}?{name}={good}", headers=bearer(good))
                assert answer.status == 400
                assert good.encode() not in answer.body
            assert await refusal(server, f"/v1/stream?{name}={good}", {}) == 400


async def test_by_no_route_does_a_client_get_more_than_its_token_allows(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        for type_ in ("price.a", "secret.b", "price.c"):
            posted = await server.request("POST", "/v1/signals", json_body=signal(type_), headers=bearer(STATIC))
            assert posted.status == 201
        shown = token(now_of(server), cap=PRICES | {"hist": True})
        page = json.loads((await server.request("GET", "/v1/history", headers=bearer(shown))).body)
        assert [one["type"] for one in page["d"]] == ["price.a", "price.c"]
        for body in (signal("secret.x"), [signal(), signal("secret.x")]):
            assert (await server.request("POST", "/v1/signals", json_body=body, headers=bearer(shown))).status == 403
        only = token(now_of(server), cap=PRICES)
        assert (await server.request("GET", "/v1/history", headers=bearer(only))).status == 403
        assert (await server.request("GET", "/v1/sources", headers=bearer(only))).status == 403
        subs = [
            {"s": "old", "filter": {}, "from": "earliest"},
            {"s": "snap", "filter": {}, "from": "snapshot"},
            {"s": "last", "filter": {"types": ["*.*"]}, "from": {"last": 3}},
            {"s": "ago", "filter": {"types": ["!x"]}, "from": {"ago_ms": 60_000}},
            {"s": "secret", "filter": {"types": ["secret.>"]}, "from": "earliest"},
        ]
        async with peer(server, {"token": shown, "subs": subs}) as p:
            seen: dict[str, list[str]] = {}
            await p.send(t="mod", id=50, s="old", filter={"entities": ["*"]}, backfill={"last": 9})
            await p.send(t="hist", id=51, filter={}, **{"from": "earliest"})
            await p.send(t="pub", id=52, signal=signal("secret.d"))
            posted = await server.request("POST", "/v1/signals", json_body=signal("secret.e"), headers=bearer(STATIC))
            assert posted.status == 201
            await p.send(t="pub", id=53, signal=signal("price.f"))
            with trio.move_on_after(40):
                while True:
                    message = await p.receive()
                    for one in message.get("d", ()):
                        seen.setdefault(message.get("s", message["t"]), []).append(one["type"])
                    if message.get("id") == 52:
                        assert message["code"] == 403
            assert set(seen) >= {"old", "snap", "last", "ago", "page", "sig"}
            assert not [type_ for types in seen.values() for type_ in types if not type_.startswith("price.")]


async def test_filters_that_come_to_the_same_share_a_group_and_clients_see_what_counts(
    autojump_clock: Any, peer: Any
) -> None:
    async with start_server(app, settings=LOCKED) as server:

        def shown(user: str, cap: Any) -> dict[str, str]:
            return {"token": token(now_of(server), cap=cap, sub=user)}

        async with (
            peer(server, shown("ann", PRICES)) as ann,
            peer(server, shown("bob", PRICES)) as bob,
            peer(server, shown("cat", ALL)) as cat,
        ):
            answers = [
                await ann.ask("sub", s="x", filter={}),
                await bob.ask("sub", s="x", filter={"types": ["price.>", "secret.>"]}),
                await cat.ask("sub", s="x", filter={"types": ["price.>"]}),
            ]
            assert [answer["filter"] for answer in answers] == [{"types": ["price.>"]}] * 3
            assert len({answer["g"] for answer in answers}) == 1


async def test_a_resume_token_is_of_no_use_to_another_user(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        async with peer(server) as p:
            ann = await p.ask("hello", token=token(now_of(server)))
        async with peer(server) as p:
            bob = await p.ask("hello", token=token(now_of(server), sub="bob"), resume=ann["resume"])
            assert (bob["resumed"], bob["session"] == ann["session"]) == (False, False)
        async with peer(server) as p:
            again = await p.ask("hello", token=token(now_of(server)), resume=ann["resume"])
            assert (again["resumed"], again["session"]) == (True, ann["session"])


async def test_a_token_that_ends_is_announced_and_then_closes_the_connection(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        begun = now_of(server)
        async with peer(server, {"token": token(begun, ttl=300)}) as p:
            await p.ask("sub", s="x", filter={})
            shard = server.env.shards.get_by_name(shard_name(0))
            await p.receive()  # live
            with trio.fail_after(600):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(keep_alive, p)
                    await server.evict(shard)
                    assert not server.why_awake(shard)
                    notice = await anything_but_pongs(p)
                    assert (notice["t"], notice["code"], notice["slug"]) == ("err", 401, "token_expiring")
                    assert "id" not in notice
                    assert 239 <= now_of(server) - begun <= 242
                    await server.evict(shard)  # and it is not said again
                    code, _ = await p.closed()
                    nursery.cancel_scope.cancel()
            assert code == 4101
            assert 300 <= now_of(server) - begun <= 302


async def keep_alive(p: Any) -> None:
    while True:
        await trio.sleep(20)
        await p.ws.send_message('{"t":"ping"}')


async def anything_but_pongs(p: Any) -> dict[str, Any]:
    while (message := await p.receive())["t"] == "pong" or message["t"] == "sig":
        pass
    found: dict[str, Any] = message
    return found


async def test_a_silent_client_is_closed_long_before_the_end_of_its_token(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        async with peer(server, {"token": token(now_of(server), ttl=900)}) as p:
            before = trio.current_time()
            assert (await p.closed())[0] == 4105
            assert 60 <= trio.current_time() - before <= 61


@pytest.mark.parametrize("latest", [False, True])
async def test_who_is_closed_for_its_token_knows_how_far_it_is(autojump_clock: Any, peer: Any, latest: bool) -> None:
    async with start_server(app, settings=LOCKED) as server:
        mode = {"mode": "latest", "min_ms": 60_000} if latest else {}
        types = ["a.b"] if latest else ["never"]
        subs = [{"s": "x", "filter": {"types": types}, **mode}]
        async with peer(server, {"token": token(now_of(server), ttl=20), "subs": subs}) as p:
            assert (await p.receive())["t"] == "live"
            seen = []
            for _ in range(3):
                await trio.sleep(6)
                drafts = (Draft.of("a.b", "e", 1), Draft.of("a.b", "e", 2))
                await server.env.broadcasters.get_by_name(STREAM).publish(drafts)
            with trio.fail_after(5):
                try:
                    while True:
                        seen.append(await p.receive())
                except trio_websocket.ConnectionClosed as ended:
                    reason: Any = ended.reason
            assert reason.code == 4101
            frames = [one for one in seen if one["t"] == "sig"]
            assert frames[-1]["b"] == 6, "as far as the log"
            assert [signal["o"] for frame in frames for signal in frame["d"]] == ([2, 6] if latest else [])
            assert frames[-1].get("k", 0) == (3 if latest else 0)


async def test_a_newer_token_of_the_same_user_renews_in_place(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        begun = now_of(server)
        async with peer(server, {"token": token(begun, ttl=100, cap=PRICES)}) as p:
            await p.ask("sub", s="x", filter={})
            await p.receive()
            for wrong, code in (
                (token(now_of(server), aud="x", cap=PRICES), 401),
                (token(now_of(server), cap=ALL), 403),
                (token(now_of(server), cap={"sub": ["price.a"]}), 403),
            ):
                error = await p.ask("auth", token=wrong)
                assert (error["code"], error["at"]) == (code, "/token")
            answer = await p.ask("auth", token=token(now_of(server), ttl=600, cap=PRICES))
            assert (answer["t"], answer["exp_ms"]) == ("ok", round((now_of(server) + 600) * 1000))
            await server.evict(server.env.shards.get_by_name(shard_name(0)))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_alive, p)
                notice = await anything_but_pongs(p)
                nursery.cancel_scope.cancel()
            assert notice["slug"] == "token_expiring"
            assert 539 <= now_of(server) - begun <= 542
            posted = await server.request("POST", "/v1/signals", json_body=signal(), headers=bearer(STATIC))
            assert posted.status == 201
            assert (await anything_but_pongs_of_sub(p))["d"]
            answer = await p.ask("auth", token=token(now_of(server), sub="bob", cap=PRICES))
            assert (answer["code"], answer["slug"]) == (401, "unauthenticated")
            assert (await p.closed())[0] == 4004


async def anything_but_pongs_of_sub(p: Any) -> dict[str, Any]:
    while (message := await p.receive())["t"] != "sig" or not message["d"]:
        pass
    found: dict[str, Any] = message
    return found


async def test_the_keys_of_a_file_are_read_again_when_it_changes(autojump_clock: Any, tmp_path: Any) -> None:
    file = tmp_path / "jwks.json"

    def write(**keys: str) -> None:
        fields = {kid: jwt.algorithms.HMACAlgorithm.to_jwk(secret, as_dict=True) for kid, secret in keys.items()}
        file.write_text(json.dumps({"keys": [{**one, "kid": kid} for kid, one in fields.items()]}))

    write(old=SECRET)
    from_file = JwtSettings(audience="heliograph", jwks=str(file))
    settings = Settings(sources_enabled=False, auth=AuthSettings(jwt=from_file))

    async def status(kid: str, secret: str) -> int:
        shown = token(now_of(server), kid=kid, key=secret)
        return (await server.request("GET", "/v1/history", headers=bearer(shown))).status

    async with start_server(app, settings=settings) as server:
        assert await status("old", SECRET) == 200
        write(old=SECRET, new=NEXT_SECRET)
        await trio.sleep(2.1)
        assert (await status("old", SECRET), await status("new", NEXT_SECRET)) == (200, 200)
        write(new=NEXT_SECRET)
        await trio.sleep(2.1)
        assert (await status("old", SECRET), await status("new", NEXT_SECRET)) == (401, 200)
        file.write_text("half of a fi")
        await trio.sleep(2.1)
        assert await status("new", NEXT_SECRET) == 200  # the keys from before stay
        file.unlink()
        await trio.sleep(2.1)
        assert await status("new", NEXT_SECRET) == 200


async def test_tokens_and_secrets_are_neither_logged_nor_stored_nor_told(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=LOCKED) as server:
        shown = [token(now_of(server), ttl=ttl) for ttl in (300, 301, 302, 303, -9)]
        shown += [token(now_of(server), key=NEXT_SECRET), token(now_of(server), aud="x")]
        with structlog.testing.capture_logs() as logs:
            bodies = [(await server.request("GET", "/v1/history", headers=bearer(one))).body for one in shown]
            async with peer(server) as p:
                await p.ask("hello", token=shown[0])
                await p.ask("sub", s="x", filter={})
                await p.ask("auth", token=shown[1])
                await p.ask("auth", token=shown[-1])
                await server.evict(server.env.shards.get_by_name(shard_name(0)))
                sockets = await server.run_in(
                    server.env.shards.get_by_name(shard_name(0)),
                    lambda shard: [repr(ws.attachment()) for ws in shard.ctx.get_web_sockets()],
                )
            async with peer(server) as p:
                await p.ask("hello", token=shown[-2])
            async with peer(server, {"token": STATIC}):
                pass
            await server.stop()
        stored = repr(vars(server.store))
        assert "ann" in sockets[0]
        assert [log for log in logs if log["event"] == "a token is not accepted"]
        secrets = [SECRET, NEXT_SECRET, STATIC, *(piece for one in shown for piece in one.split(".")[1:])]
        secrets.append(hashlib.sha256(STATIC.encode()).hexdigest())
        for place in (repr(logs), repr(bodies), repr(sockets), stored):
            for secret in secrets:
                assert secret not in place


# --- the command ------------------------------------------------------------------------------------------


def command(folder: Any, *arguments: str) -> Any:
    private = RSA.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    path = folder / "heliograph.toml"
    path.write_text(
        f'[auth.jwt]\naudience = "heliograph"\n[auth.jwt.keys.ec]\nalgorithm = "ES256"\nkey = """{public(EC)}"""\n'
        f'[auth.jwt.keys.a]\nalgorithm = "HS256"\nkey = "{SECRET}"\n'
        f'[auth.jwt.keys.rsa]\nalgorithm = "RS256"\nkey = """{private}"""\n'
    )
    return CliRunner().invoke(token_command, ["--config", str(path), *arguments])


@pytest.mark.parametrize("kid", ["a", "rsa"])
def test_the_command_signs_what_the_server_accepts(tmp_path: Any, kid: str) -> None:
    ran = command(tmp_path, "--user", "ann", "--sub", "price.>", "--pub", "x", "--hist", "--ttl", "90s", "--kid", kid)
    assert ran.exit_code == 0, ran.output
    settings = attrs.evolve(JWT, issuer="")
    now = time.time()  # noqa: TID251 - the command signs for this moment
    found = verify(ran.output.strip(), settings.parsed(), settings, now)
    assert found.user == "ann"
    assert found.expires is not None
    assert 80 < found.expires - now <= 90
    assert found.capability.sub == '{"types":["price.>"]}'
    assert (found.capability.pub, found.capability.hist, found.capability.admin) == (("x",), True, False)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--user", "ann", "--kid", "ec"], "cannot sign"),
        (["--user", "ann", "--kid", "zz"], "a, rsa"),
        (["--user", "ann", "--ttl", "2h"], "at most 900"),
        (["--user", "ann", "--ttl", "soon"], "such as 5m"),
        (["--user", "ann", "--sub", "pri ce"], "/sub/types/0"),
        ([], "--user"),
    ],
)
def test_the_command_says_what_is_wrong_and_shows_no_secret(tmp_path: Any, arguments: list[str], why: str) -> None:
    ran = command(tmp_path, *arguments)
    assert ran.exit_code == 2
    assert why in ran.output
    assert SECRET not in ran.output
    assert "PRIVATE" not in ran.output
