"""A whole server is driven with secrets that can be recognised, and none of them is found where it does not belong."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import signal
import ssl
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
import websocket

from actors.app import app
from actors.settings import ConsoleSettings, Settings
from actors.stream import STREAM
from runtime import Secret
from runtime.testing import start_server
from tests.authority import Authority
from tests.browser.serving import Server

PATIENCE_S = 60
KEY = "leak-jwt-key-0123456789abcdef0123456789"
STATIC = "leak-static-token-5bd1e995"
PASSWORD = "leak-console-password-2fd4e1c6"
SCRAPE = "leak-metrics-token-7a2d28fc"
WEBHOOK = "leak-webhook-secret-ed849ee1"
SOURCE = "leak-source-header-bb76e739"
WRONG = "leak-wrong-secret-1b93eb12"
RESUME = "s_0.1.ffffffff.leak-wrong-resume-67c6"
COOKIE = "leak-wrong-cookie-2b9e"
TICKET = "leak-wrong-ticket-90fa"
CONFIG = f"""
[auth]
tokens = ["env:HELIOGRAPH_TEST_TOKEN"]
[auth.jwt]
audience = "heliograph"
[auth.jwt.keys.a]
algorithm = "HS256"
key = "{KEY}"
[console]
passwords = ["{PASSWORD}"]
[metrics]
tokens = ["{SCRAPE}"]
[[sources]]
kind = "webhook"
name = "shop"
[sources.options]
secrets = ["{WEBHOOK}"]
[[sources]]
kind = "http"
name = "poll"
schedule = "@every 1s"
[sources.options]
url = "http://127.0.0.1:9/?key={SOURCE}"
headers = {{ authorization = "Bearer {SOURCE}" }}
"""
EVERYTHING = {"sub": [">"], "pub": [">"], "hist": True, "admin": True}


def signed(key: str = KEY, ttl: float = 300, **more: Any) -> str:
    now = time.time()  # noqa: TID251 - the server's clock is this one
    claims = {"sub": "ann", "aud": "heliograph", "exp": now + ttl, "cap": EVERYTHING} | more
    return jwt.encode(claims, key, algorithm="HS256", headers={"kid": "a"})


class Everything:
    """Asks a server for all there is, and keeps what is said."""

    def __init__(self, server: Server, context: ssl.SSLContext) -> None:
        self.server = server
        self.context = context
        self.said: list[str] = []
        self.secrets = [KEY, STATIC, PASSWORD, SCRAPE, WEBHOOK, SOURCE, WRONG, "leak-wrong-resume-67c6", COOKIE, TICKET]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPResponse:
        """One request; what is answered is kept, without the two answers that are for the client alone."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.server.port, context=self.context, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, named)
        answer = connection.getresponse()
        self.body = answer.read().decode()
        cookies = answer.headers.get_all("set-cookie") or []
        if path != "/v1/tickets" and not cookies:
            self.said.append(f"{answer.headers}{self.body}")
        connection.close()
        return answer

    def token(self, **how: Any) -> str:
        """A signed token, whose payload and signature are secrets of its own."""
        made = signed(**how)
        self.secrets += made.split(".")[1:]
        return made

    def socket(self, *messages: dict[str, Any], path: str = "/v1/stream", **headers: str) -> list[dict[str, Any]]:
        """The answers to these messages until nothing more is said, or the end."""
        answers: list[dict[str, Any]] = []
        url = f"wss://127.0.0.1:{self.server.port}{path}"
        try:
            ws = websocket.create_connection(
                url, timeout=20, header=headers, sslopt={"context": self.context}, suppress_origin=True
            )
        except websocket.WebSocketBadStatusException as refused:
            self.said.append(f"{refused} {refused.resp_headers} {refused.resp_body!r}")
            return answers
        try:
            for message in messages:
                ws.send(json.dumps(message))
                answers += [json.loads(line) for line in str(ws.recv()).split("\n")]
        except (websocket.WebSocketException, ValueError) as ended:
            self.said.append(str(ended))
        ws.close()
        for answer in answers:
            if answer["t"] == "welcome":
                self.secrets.append(answer["resume"].rpartition(".")[2])
                answer = {**answer, "resume": ""}  # it is for the client
            self.said.append(json.dumps(answer))
        return answers


def sign_in_and_out(everything: Everything) -> None:
    good, late = everything.token(), everything.token(ttl=-9)
    forged, other = everything.token(key=WRONG * 2), everything.token(aud="else")
    for shown in (STATIC, good, late, forged, other, WRONG, f"{good}x", "a.b.c"):
        for path in ("/v1/history", "/v1/sources"):
            everything.ask("GET", path, authorization=f"Bearer {shown}")
        everything.ask(
            "POST", "/v1/signals", {"type": "t.a", "entity": "e", "data": 1}, authorization=f"Bearer {shown}"
        )
        everything.socket({"t": "hello", "id": 1, "token": shown, "resume": RESUME})
        everything.socket({"t": "hello", "id": 1}, authorization=f"Bearer {shown}")
        for name in ("token", "access_token", "jwt", "ticket", "filter", "other"):
            for path in ("/v1/history", "/v1/sse", "/v1/sources", "/nothing", "/console/", "/metrics"):
                if (name, path) != ("other", "/v1/sse"):
                    everything.ask("GET", f"{path}?{name}={shown}")
            everything.socket({"t": "hello", "id": 1}, path=f"/v1/stream?{name}={shown}")
    everything.ask("GET", "/v1/history", authorization=f"Basic {base64.b64encode(f'u:{WRONG}'.encode()).decode()}")
    everything.ask("GET", "/v1/history", cookie=f"token={WRONG}")
    newer, less = everything.token(ttl=301), everything.token(cap={})
    answers = everything.socket(
        {"t": "hello", "id": 1, "token": good},
        {"t": "auth", "id": 2, "token": newer},
        {"t": "auth", "id": 3, "token": less},
        {"t": "auth", "id": 4, "token": forged},
        {"t": "auth", "id": 5, "token": [WRONG]},
        {"t": "authenticate", "id": 6, "token": WRONG},
        {"t": "sub", "id": 7, "s": "a", "filter": {"where": {"f": "/data", "token": WRONG}}},
    )
    assert [answer["t"] for answer in answers] == ["welcome", "ok", "err", "err", "err", "err", "err"]


def take_tickets(everything: Everything) -> None:
    assert everything.ask("POST", "/v1/tickets", authorization=f"Bearer {STATIC}").status == 201
    ticket = json.loads(everything.body)["ticket"]
    everything.secrets.append(ticket)
    everything.socket({"t": "hello", "id": 1}, authorization=f"Ticket {ticket}")
    for shown in (ticket, TICKET):
        assert everything.ask("GET", f"/v1/sse?ticket={shown}").status == 401
        everything.socket({"t": "hello", "id": 1}, authorization=f"Ticket {shown}")


def post_to_the_webhook(everything: Everything) -> None:
    body = json.dumps([{"type": "t.b", "entity": "e", "data": 2}]).encode()
    at = int(time.time())  # noqa: TID251 - the server's clock is this one
    for secret, expected in ((WEBHOOK, 202), (WRONG, 401)):
        mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        signature = f"t={at},v1={mac}"
        assert everything.ask("POST", "/v1/webhooks/shop", body, x_signature=signature).status == expected


def look_at_the_console(everything: Everything) -> None:
    meant = {"x_heliograph_console": "1"}
    assert everything.ask("POST", "/console/api/login", {"password": WRONG}, **meant).status == 401
    answer = everything.ask("POST", "/console/api/login", {"password": PASSWORD}, **meant)
    assert answer.status == 204
    cookie = answer.headers["set-cookie"].partition(";")[0]
    everything.secrets.append(cookie.partition("=")[2])
    everything.ask("GET", "/console/api/session", cookie=f"heliograph_console={COOKIE}")
    ws = websocket.create_connection(
        f"wss://127.0.0.1:{everything.server.port}/v1/stream", timeout=20, sslopt={"context": everything.context}
    )
    token = everything.token(ttl=302)
    ws.send(json.dumps({"t": "hello", "id": 1, "token": token, "resume": RESUME, "client": {"name": "watched"}}))
    welcome = json.loads(str(ws.recv()))
    everything.secrets.append(welcome["resume"].rpartition(".")[2])
    of_it = f"/console/api/connections/main/{welcome['session']}"
    assert everything.ask("GET", of_it, cookie=cookie).status == 200  # from now on it is recorded
    for n, shown in enumerate((everything.token(ttl=303), WRONG, [WRONG])):
        ws.send(json.dumps({"t": "auth", "id": n + 2, "token": shown}))
        ws.recv()
    for path in (
        of_it,
        "/console/api/session",
        "/console/api/overview/series",
        "/console/api/audit",
        "/console/api/ingest",
        "/console/api/connections",
        "/console/api/subscriptions",
        "/console/api/analytics",
        "/console/api/history",
        "/console/api/actors?limit=200",
    ):
        assert everything.ask("GET", path, cookie=cookie).status == 200, path
    for actor in json.loads(everything.body)["actors"]:
        of_actor = f"/console/api/actors/{actor['namespace']}/{actor['id']}"
        everything.ask("GET", of_actor, cookie=cookie)
        everything.ask("GET", f"{of_actor}/storage", cookie=cookie)
    ws.close()
    everything.ask("POST", "/console/api/logout", b"", cookie=cookie, **meant)


@pytest.mark.real
def test_no_secret_is_where_it_does_not_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIOGRAPH_TEST_TOKEN", STATIC)
    authority = Authority(tmp_path)
    config = tmp_path / "heliograph.toml"
    config.write_text(f'[tls]\ncertificate = "{authority.chain}"\nkey = "{authority.key}"\n{CONFIG}')
    server = Server(tmp_path / "data", "--config", str(config), scheme="https", sources=True)
    server.start()
    try:
        everything = Everything(server, authority.client())
        sign_in_and_out(everything)
        take_tickets(everything)
        post_to_the_webhook(everything)
        look_at_the_console(everything)
        for shown in (SCRAPE, WRONG, STATIC):
            everything.ask("GET", "/metrics", authorization=f"Bearer {shown}")
        key = authority.key.read_text()
        everything.secrets += key.splitlines()[1:-1]
        authority.key.write_text(key[:150])
        server.signal(signal.SIGHUP)
        for _ in range(PATIENCE_S * 10):
            if "certificate_refused" in server.log():
                break
            everything.ask("GET", "/healthz")
        assert "certificate_refused" in server.log()
    finally:
        server.stop()
    log = (tmp_path / "server.log").read_text()
    assert "a token is not accepted" in log, "what is looked through says something"
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert b"t.a" in stored
    said = "\n".join(everything.said)
    assert len(everything.said) > 400
    for secret in everything.secrets:
        hidden = secret.encode()
        assert secret not in log, secret
        assert secret not in said, secret
        assert hidden not in stored, secret
        assert base64.b64encode(hidden).rstrip(b"=")[:-2] not in stored, secret


async def test_the_console_shows_no_key_that_resume_tokens_are_signed_with(autojump_clock: Any) -> None:
    settings = Settings(sources_enabled=False, console=ConsoleSettings(passwords=(Secret(PASSWORD),)))
    async with start_server(app, settings=settings) as server:
        stub = server.env.broadcasters.get_by_name(STREAM)
        key: bytes = await server.run_in(stub, lambda actor: actor.stream.secret)
        shown = {"x-heliograph-console": "1", "content-type": "application/json"}
        body = json.dumps({"password": PASSWORD}).encode()
        cookie = (await server.request("POST", "/console/api/login", body=body, headers=shown)).headers["set-cookie"]
        actor_id = server.env.broadcasters.id_from_name(STREAM)
        path = f"/console/api/actors/{actor_id.namespace}/{actor_id}/storage"
        answer = await server.request("GET", path, headers={"cookie": cookie.partition(";")[0]})
        assert answer.status == 200
        assert b"epoch" in answer.body
        for form in (key.hex(), base64.b64encode(key).decode(), repr(key)[2:-1], json.dumps(repr(key))[3:-2]):
            assert form.encode() not in answer.body, answer.body
