"""The service as a client sees it: HTTP routes, and a socket from hello to live."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio_websocket

from actors.app import app
from actors.settings import AuthSettings, Settings
from actors.stream import STREAM
from runtime import Secret
from runtime.testing import RunningServer, start_server

QUIET = Settings(sources_enabled=False)
TOKEN = "0123456789abcdef0123456789abcdef"


def signal(n: int = 1, **more: Any) -> dict[str, Any]:
    return {"type": "price.tick", "entity": "btc-usd", "data": {"n": n}, **more}


async def refusal(server: RunningServer, **how: Any) -> int:
    """The status that an upgrade is refused with."""
    with pytest.RaisesGroup(trio_websocket.ConnectionRejected, flatten_subgroups=True) as group:
        async with server.connect("/v1/stream", **how):
            pass
    error: BaseException = group.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, trio_websocket.ConnectionRejected)
    return error.status_code


async def test_a_published_signal_reaches_a_subscriber(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        subs = [{"s": "px", "filter": {"types": ["price.>"]}}]
        async with server.connect("/v1/stream", subprotocols=["signals.v1.json"]) as ws:
            await ws.send_message(json.dumps({"t": "hello", "id": 1, "subs": subs}))
            welcome, live = map(json.loads, str(await ws.get_message()).split("\n"))
            assert welcome["subs"][0]["from"] == f"{welcome['epoch']}:0"
            assert live == {"t": "live", "s": "px", "g": welcome["subs"][0]["g"], "b": 0}
            answer = await server.request("POST", "/v1/signals", json_body=signal(id="x1"))
            assert answer.status == 201
            assert json.loads(answer.body) == {"epoch": welcome["epoch"], "offsets": [1], "dup": [False]}
            frame = json.loads(await ws.get_message())
            assert (frame["g"], frame["a"], frame["b"]) == (live["g"], 0, 1)
            (got,) = frame["d"]
            assert got | {"ts": 0} == {"o": 1, **signal(id="x1"), "ts": 0}


async def test_an_array_is_published_in_order_and_a_repeat_is_told(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        await server.request("POST", "/v1/signals", json_body=signal(id="a"))
        answer = await server.request(
            "POST", "/v1/signals", json_body=[signal(id="b"), signal(id="a"), signal(), signal(id="b")]
        )
        body = json.loads(answer.body)
        assert body["offsets"] == [2, 1, 3, 2]
        assert body["dup"] == [False, True, False, True]


@pytest.mark.parametrize(
    ("body", "status", "at"),
    [
        (b"{", 400, None),
        (b"[]", 400, ""),
        (b"7", 422, ""),
        (b'{"type":"a","entity":"b"}', 422, "/data"),
        (b'[{"type":"a","entity":"b","data":1},{"type":"a b","entity":"b","data":1}]', 422, "/1/type"),
        (json.dumps([signal()] * 101).encode(), 413, ""),
        (json.dumps(signal(data="x" * 70_000)).encode(), 413, "/data"),
        (json.dumps(signal(data="x" * 80_000)).encode(), 413, ""),
        (b'{"type":"a","entity":"b","data":1,"data":2}', 400, None),
    ],
)
async def test_a_bad_publication_is_refused(autojump_clock: Any, body: bytes, status: int, at: str | None) -> None:
    async with start_server(app, settings=QUIET) as server:
        answer = await server.request("POST", "/v1/signals", body=body)
        error = json.loads(answer.body)
        assert answer.status == error["code"] == status, error
        assert error.get("at") == at
        assert error["msg"]
        assert (await server.env.broadcasters.get_by_name(STREAM).bounds()).head == 0


async def test_unknown_routes_and_methods(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        assert (await server.request("GET", "/v2/stream")).status == 404
        assert (await server.request("GET", "/_test/echo")).status == 404
        for method, target, allowed in (
            ("GET", "/v1/signals", "POST"),
            ("POST", "/v1/stream", "GET"),
            ("PUT", "/healthz", "GET, HEAD"),
        ):
            answer = await server.request(method, target)
            assert (answer.status, answer.headers["allow"]) == (405, allowed)
        assert (await server.request("GET", "/v1/stream")).status == 426


async def test_health(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        assert (await server.request("GET", "/healthz")).status == 200
        ready = await server.request("GET", "/readyz")
        assert json.loads(ready.body)["head"] == 0


async def test_files_have_types_tags_and_a_strict_policy(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        answer = await server.request("GET", "/client.js")
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        again = await server.request("GET", "/client.js", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        for target in ("/assets/nothing.js", "/assets/..%2fapp.py", "/assets/.."):
            assert (await server.request("GET", target)).status == 404


async def test_subprotocols(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        async with peer(server, {}) as p:
            assert p.ws.subprotocol is None
        async with peer(server, {}, subprotocols=["signals.v9.json", "signals.v1.json"]) as p:
            assert p.ws.subprotocol == "signals.v1.json"
        assert await refusal(server, subprotocols=["signals.v9.json"]) == 400


async def test_with_tokens_nobody_comes_in_without_one(autojump_clock: Any, peer: Any) -> None:
    settings = Settings(sources_enabled=False, auth=AuthSettings(tokens=(Secret(TOKEN),)))
    async with start_server(app, settings=settings) as server:
        assert (await server.request("POST", "/v1/signals", json_body=signal())).status == 401
        assert (await server.request("GET", "/v1/sources")).status == 401
        assert (await server.request("GET", "/healthz")).status == 200
        good, bad = {"authorization": f"Bearer {TOKEN}"}, {"authorization": "Bearer wrong"}
        assert (await server.request("POST", "/v1/signals", json_body=signal(), headers=good)).status == 201
        assert await refusal(server, headers=bad) == 401
        async with peer(server, {"token": TOKEN}) as p, peer(server, {}, headers=good) as q:
            assert p.ws
            assert q.ws
        async with peer(server) as p:
            error = await p.ask("hello", token="wrong")
            assert (error["code"], error["slug"]) == (401, "unauthenticated")
            assert (await p.closed())[0] == 4004


async def test_the_echo_route_sends_16_mib_back(autojump_clock: Any) -> None:
    settings = Settings(sources_enabled=False, test_routes=True)
    async with start_server(app, settings=settings) as server:
        async with server.connect("/_test/echo") as ws:
            await ws.send_message("hello")
            assert await ws.get_message() == "hello"
            await ws.send_message(b"\x00\xff")
            assert await ws.get_message() == b"\x00\xff"


async def test_a_restart_keeps_epoch_and_offsets(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        first = json.loads((await server.request("POST", "/v1/signals", json_body=signal(id="a"))).body)
        await server.crash()
        await server.start()
        again = json.loads((await server.request("POST", "/v1/signals", json_body=signal(id="a"))).body)
        assert again == {"epoch": first["epoch"], "offsets": [1], "dup": [True]}


def test_settings_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="must be 1 to 64"):
        Settings(shards=0)
    with pytest.raises(ValueError, match="at least 16"):
        AuthSettings(tokens=(Secret("short"),))
    assert not Settings().authenticated()
    assert Settings(auth=AuthSettings(tokens=(Secret(TOKEN),))).authenticated()
    assert TOKEN not in repr(Settings(auth=AuthSettings(tokens=(Secret(TOKEN),))))
