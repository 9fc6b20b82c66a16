"""`docs/reference/openapi.yaml` says of HTTP what the server does: paths, methods, status and body of real answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import openapi_spec_validator
import pytest
import trio
import yaml

from actors.app import app
from actors.protocol.limits import Limits
from actors.routes import ROUTES
from actors.settings import Settings, SourceSettings, StreamSettings
from actors.signals import Draft
from actors.stream import STREAM
from actors.tickets import OUTSTANDING_OF_ONE
from runtime.testing import RunningServer, start_server
from tests.actors.events import EVENT_STREAM
from tests.actors.ingest.test_webhook import SECRET, signature
from tests.actors.test_tokens import ALL, LOCKED, STATIC, bearer, now_of, token

DOCUMENT: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "docs/reference/openapi.yaml").read_text())
DESCRIBED_ELSEWHERE = ("/_test", "/console", "/metrics")
SETTINGS: Settings = attrs.evolve(
    LOCKED,
    streams=("orders",),
    sources_enabled=True,
    sources=(
        SourceSettings(kind="webhook", name="shop", options={"secrets": [SECRET], "body_bytes": 500, "deliveries": 3}),
    ),
    stream=StreamSettings(retention_bytes=1_048_576),
    limits=Limits(connections_per_user=1, data_bytes=200, handshakes_per_s=1, handshakes_burst=4),
)
FORGOTTEN_S = 300.0  # nobody counts what connected before that
UPGRADE = {
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
SIGNAL = {"type": "price.tick", "entity": "e", "data": 1, "tags": {"v": "X"}}
METHODS = ("get", "head", "post", "put", "delete", "patch", "options", "trace")
# 503 is the answer while an actor fails; which answers that can be is in the code of `error_response`'s callers.
ONLY_WHILE_AN_ACTOR_FAILS = "503"


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (path, method): item[method] for path, item in DOCUMENT["paths"].items() for method in METHODS if method in item
    }


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        found: Any = DOCUMENT
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return dict(found)
    return node


class Answers:
    """Asks, and holds each answer against what the file says of its operation; `seen` has every status that came."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.seen: set[tuple[str, str, str]] = set()

    async def expect(self, status: int, method: str, path: str, query: str = "", **how: Any) -> Any:
        name = how.pop("name", "orders" if "/streams/" in path else "shop")
        async with self.server.stream(
            method.upper(),
            path.replace("{name}", name) + query,
            body=how.get("body", b""),
            headers={**bearer(STATIC), **how.get("headers", {})},
        ) as answer:
            response = resolved(operations()[path, method]["responses"][str(answer.status)])
            assert answer.status == status
            self.seen.add((path, method, str(status)))
            assert answer.stream is not None
            text = b"" if how.get("endless") else b"".join([part async for part in answer.stream])
            for header, says in response.get("headers", {}).items():
                if says.get("required"):
                    assert answer.headers[header.lower()] == says["schema"]["const"]
            if "content" not in response:
                assert text == b""
                return None
            kind = answer.headers.get("content-type", "text/plain").partition(";")[0]
            says = response["content"].get(kind) or response["content"]["*/*"]
            value = json.loads(text) if kind == "application/json" else text.decode()
            schema = {**says["schema"], "components": DOCUMENT["components"]}
            if "*/*" not in response["content"]:
                jsonschema.Draft202012Validator(schema).validate(value)
            return value


def test_the_file_is_valid_openapi() -> None:
    openapi_spec_validator.validate(DOCUMENT)


def test_every_route_is_in_the_file_and_every_path_of_the_file_is_a_route() -> None:
    assert set(DOCUMENT["paths"]) == {path for path in app.routes if not path.startswith(DESCRIBED_ELSEWHERE)}
    assert set(DOCUMENT["paths"]) < set(ROUTES)


async def test_each_path_takes_the_methods_of_the_file_and_no_others(autojump_clock: Any) -> None:
    async with start_server(app, settings=SETTINGS) as server:
        for path in DOCUMENT["paths"]:
            answer = await server.request("BREW", path.replace("{name}", "x"))
            assert answer.status == 405
            allowed = {method.lower() for method in answer.headers["allow"].split(", ")}
            assert allowed == {method for one, method in operations() if one == path}, path


async def test_every_status_of_the_file_comes_with_the_body_that_the_file_says(autojump_clock: Any) -> None:
    async with start_server(app, settings=SETTINGS) as server:
        answers = Answers(server)
        await about_files(answers)
        await about_publishing(answers)
        await about_history(answers)
        await about_webhooks(answers)
        await about_event_sources(answers)
        await about_sockets(answers)
        await about_the_rest(answers)
        listed = {(*operation, status) for operation, one in operations().items() for status in one["responses"]}
        assert {one for one in listed - answers.seen if one[2] != ONLY_WHILE_AN_ACTOR_FAILS} == set()


async def about_files(answers: Answers) -> None:
    for path, name in (("/", ""), ("/client.js", ""), ("/assets/{name}", "page.js")):
        tag = (await answers.server.request("GET", path.replace("{name}", name))).headers["etag"]
        for method in ("get", "head"):
            await answers.expect(200, method, path, name=name)
            await answers.expect(304, method, path, name=name, headers={"if-none-match": tag})
    for method in ("get", "head"):
        await answers.expect(404, method, "/assets/{name}", name="none.js")


async def about_publishing(answers: Answers) -> None:
    for path in ("/v1/signals", "/v1/streams/{name}/signals"):

        async def post(status: int, value: Any, path: str = path, **how: Any) -> None:
            await answers.expect(status, "post", path, body=json.dumps(value).encode(), **how)

        await post(201, SIGNAL)
        await post(201, [SIGNAL, SIGNAL])
        await post(400, [])
        await post(401, SIGNAL, headers=bearer("a.b.c"))
        await post(403, SIGNAL, headers=bearer(token(now_of(answers.server), cap={"sub": [">"]})))
        await post(413, SIGNAL | {"data": "x" * 300})
        await post(422, {"type": "a"})
    await answers.expect(404, "post", "/v1/streams/{name}/signals", name="none", body=b"{}")


async def about_history(answers: Answers) -> None:
    for path, stream in (("/v1/history", STREAM), ("/v1/streams/{name}/history", "orders")):
        page = await answers.expect(200, "get", path, "?limit=2")
        assert len(page["d"]) == 2
        await answers.expect(400, "get", path, "?limit=0")
        await answers.expect(401, "get", path, headers=bearer("a.b.c"))
        await answers.expect(403, "get", path, headers=bearer(token(now_of(answers.server), cap={"sub": [">"]})))
        await answers.expect(412, "get", path, "?after=other:3")
        await answers.expect(422, "get", path, "?filter=%7B%22types%22:[]%7D")
        broadcaster = answers.server.env.broadcasters.get_by_name(stream)
        await broadcaster.publish(tuple(Draft.of("a", "b", "x" * 30_000) for _ in range(60)))
        await answers.expect(410, "get", path, f"?after={page['epoch']}:0")
    await answers.expect(404, "get", "/v1/streams/{name}/history", name="none")


async def about_webhooks(answers: Answers) -> None:
    path, body = "/v1/webhooks/{name}", json.dumps(SIGNAL).encode()

    async def post(status: int, body: bytes, signed: str | None = None, **how: Any) -> None:
        headers = {"x-signature": signed or signature(answers.server, body), "x-delivery": how.pop("id", "d")}
        await answers.expect(status, "post", path, body=body, headers=headers, **how)

    signed = signature(answers.server, body)
    await post(202, body, signed)
    await post(409, body, signed, id="other")
    await post(400, b"{")
    await post(401, body, "t=1,v1=00")
    await post(404, body, name="none")
    await post(413, b" " * 501)
    await post(422, b"{}", id="bad")
    for n in range(2):
        await post(202, body, signature(answers.server, body, away_s=n + 1), id=f"d{n}")
    await post(429, body, signature(answers.server, body, away_s=9), id="d9")


async def about_event_sources(answers: Answers) -> None:
    for path in ("/v1/sse", "/v1/streams/{name}/sse"):
        ann = bearer(token(now_of(answers.server), cap=ALL))
        await answers.expect(400, "get", path, "?mode=none")
        await answers.expect(401, "get", path, headers=bearer("a.b.c"))
        await answers.expect(403, "get", path, headers=bearer(token(now_of(answers.server), cap={"pub": [">"]})))
        await answers.expect(422, "get", path, "?filter=%7B%22types%22:[]%7D")
        async with answers.server.stream("GET", path.replace("{name}", "orders"), headers=EVENT_STREAM | ann) as one:
            assert one.status == 200
            await answers.expect(429, "get", path, headers=ann)
        await answers.expect(200, "get", path, endless=True)
        await trio.sleep(FORGOTTEN_S)
    await answers.expect(404, "get", "/v1/streams/{name}/sse", name="none")


async def about_sockets(answers: Answers) -> None:
    for path in ("/v1/stream", "/v1/streams/{name}"):
        ann = bearer(token(now_of(answers.server), cap=ALL, sub="bob"))
        await answers.expect(426, "get", path)
        await answers.expect(400, "get", path, headers={**UPGRADE, "sec-websocket-protocol": "other"})
        await answers.expect(401, "get", path, headers={**UPGRADE, **bearer("a.b.c")})
        for _ in range(SETTINGS.limits.handshakes_burst):
            async with answers.server.connect(path.replace("{name}", "orders"), headers=ann):
                answers.seen.add((path, "get", "101"))
        await answers.expect(429, "get", path, headers={**UPGRADE, **ann})
        await trio.sleep(FORGOTTEN_S)
    await answers.expect(404, "get", "/v1/streams/{name}", name="none", headers=UPGRADE)


async def about_the_rest(answers: Answers) -> None:
    for path in ("/healthz", "/readyz"):
        for method in ("get", "head"):
            await answers.expect(200, method, path)
    for path, method in (("/v1/tickets", "post"), ("/v1/sources", "get")):
        await answers.expect(400, method, path, "?token=secret")
        await answers.expect(401, method, path, headers=bearer("a.b.c"))
    await answers.expect(200, "get", "/v1/sources")
    await answers.expect(403, "get", "/v1/sources", headers=bearer(token(now_of(answers.server), cap={})))
    for _ in range(OUTSTANDING_OF_ONE):
        await answers.expect(201, "post", "/v1/tickets")
    await answers.expect(429, "post", "/v1/tickets")


async def test_an_answer_that_the_file_does_not_know_is_noticed(autojump_clock: Any) -> None:
    async with start_server(app, settings=SETTINGS) as server:
        answers = Answers(server)
        schema = DOCUMENT["components"]["schemas"]["Page"]
        await answers.expect(200, "get", "/v1/history")
        head = schema["properties"].pop("head")
        try:
            with pytest.raises(jsonschema.ValidationError):
                await answers.expect(200, "get", "/v1/history")
        finally:
            schema["properties"]["head"] = head
