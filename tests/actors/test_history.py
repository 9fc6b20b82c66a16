"""Reading what is stored at one's own pace: `GET /v1/history`, and `hist` on a socket."""

from __future__ import annotations

import base64
import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from actors.app import app
from actors.filters import Filter
from actors.settings import AuthSettings, Settings, StreamSettings
from actors.signals import Draft
from actors.stream import STREAM
from runtime.tables import Secret
from runtime.testing import RunningServer, start_server
from tests.crash.load import Server, free_port

QUIET = Settings(sources_enabled=False)
EVEN = {"where": {"f": "/data", "op": "in", "v": list(range(0, 400, 2))}}


def stream(server: RunningServer) -> Any:
    return server.env.broadcasters.get_by_name(STREAM)


async def publish(server: RunningServer, count: int, *, data: Any = None) -> str:
    drafts = tuple(Draft.of("a.b" if n % 3 else "c.d", "e", n if data is None else data) for n in range(1, count + 1))
    for at in range(0, count, 500):
        await stream(server).publish(drafts[at : at + 500])
    return str((await stream(server).bounds()).epoch)


async def get(server: RunningServer, **query: Any) -> Any:
    response = await server.request("GET", f"/v1/history?{urlencode(query)}")
    assert response.status == 200, response.body
    assert response.headers["content-type"] == "application/json"
    return json.loads(response.body)


async def refused(server: RunningServer, **query: Any) -> tuple[int, str, str | None]:
    response = await server.request("GET", f"/v1/history?{urlencode(query)}")
    error = json.loads(response.body)
    assert response.status == error["code"]
    return error["code"], error["slug"], error.get("at")


def offsets(page: Any) -> list[int]:
    return [signal["o"] for signal in page["d"]]


async def test_history_begins_with_the_oldest_signal_and_says_where_the_stream_stands(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        epoch = await publish(server, 3)
        page = await get(server)
        assert page | {"d": []} == {"a": 0, "b": 3, "d": [], "more": False, "epoch": epoch, "oldest": 1, "head": 3}
        assert [(one["o"], one["type"], one["data"]) for one in page["d"]] == [
            (1, "a.b", 1),
            (2, "a.b", 2),
            (3, "c.d", 3),
        ]
        assert offsets(await get(server, after=f"{epoch}:2")) == [3]
        page = await get(server, after=f"{epoch}:3")
        assert (page["a"], page["b"], page["d"], page["more"]) == (3, 3, [], False)


@pytest.mark.parametrize("reverse", [False, True])
async def test_pages_one_after_another_are_the_whole_log_once_and_in_order(autojump_clock: Any, reverse: bool) -> None:
    rng = random.Random(reverse)
    async with start_server(app, settings=QUIET) as server:
        epoch = await publish(server, 1_700)
        for filter_ in ({}, EVEN, {"types": ["c.>"]}, {"types": ["never"]}):
            seen: list[int] = []
            at, place = ({} if rng.random() < 0.5 else {"after": f"{epoch}:{1_700 if reverse else 0}"}), None
            for _ in range(2_000):
                limit = rng.randrange(1, 501)
                page = await get(server, filter=json.dumps(filter_), limit=limit, reverse=reverse, **at)
                begin, end = (page["b"], page["a"]) if reverse else (page["a"], page["b"])
                assert place in (None, begin)
                assert len(page["d"]) <= limit
                assert all(page["a"] < o <= page["b"] for o in offsets(page))
                seen += offsets(page)
                place, at = end, {"after": f"{epoch}:{end}"}
                if not page["more"]:
                    break
            test = Filter.parse(filter_).matches
            wanted = [n for n in range(1, 1_701) if test({"type": "a.b" if n % 3 else "c.d", "entity": "e", "data": n})]
            assert seen == (wanted[::-1] if reverse else wanted)


async def test_a_page_is_bounded_by_its_bytes_and_one_large_signal_fits(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        epoch = await publish(server, 5, data="x" * 30_000)
        assert offsets(await get(server)) == [1, 2]
        await publish(server, 1, data="x" * 65_000)
        assert offsets(await get(server, after=f"{epoch}:5")) == [6]


async def test_a_filter_may_be_base64url(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        await publish(server, 6)
        text = base64.urlsafe_b64encode(b'{"types":["c.>"]}').decode().rstrip("=")
        assert offsets(await get(server, filter=text)) == [3, 6]


async def test_a_place_that_the_log_does_not_have_is_told(autojump_clock: Any) -> None:
    settings = Settings(sources_enabled=False, stream=StreamSettings(retention_bytes=1_048_576))
    async with start_server(app, settings=settings) as server:
        epoch = await publish(server, 60, data="x" * 30_000)
        oldest = (await stream(server).bounds()).oldest
        assert oldest > 2
        assert (await get(server))["a"] == oldest - 1
        assert offsets(await get(server, after=f"{epoch}:{oldest - 1}"))[0] == oldest
        assert await refused(server, after=f"{epoch}:{oldest - 2}") == (410, "cursor_expired", "/after")
        assert await refused(server, after="other:3") == (412, "epoch_mismatch", "/after")
        assert await refused(server, after=f"{epoch}:61") == (412, "epoch_mismatch", "/after")


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ({"after": "k3F9"}, (422, "bad_from", "/after")),
        ({"limit": "0"}, (400, "bad_message", "/limit")),
        ({"limit": "501"}, (400, "bad_message", "/limit")),
        ({"limit": "1e2"}, (400, "bad_message", "/limit")),
        ({"limit": "9" * 5_000}, (400, "bad_message", "/limit")),
        ({"reverse": "maybe"}, (400, "bad_message", "/reverse")),
        ({"filter": "{"}, (400, "bad_message", "/filter")),
        ({"filter": "%%%"}, (400, "bad_message", "/filter")),
        ({"filter": "____"}, (400, "bad_message", "/filter")),
        ({"filter": '{"types":[]}'}, (422, "bad_filter", "/filter/types")),
        ({"filter": '{"other":1}'}, (422, "bad_filter", "/filter")),
    ],
)
async def test_a_query_that_means_nothing_is_refused(autojump_clock: Any, query: Any, answer: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        assert await refused(server, **query) == answer


async def test_history_needs_the_token_that_everything_needs(autojump_clock: Any) -> None:
    settings = Settings(sources_enabled=False, auth=AuthSettings(tokens=(Secret("s3cret-token-s3cret"),)))
    async with start_server(app, settings=settings) as server:
        assert (await refused(server))[:2] == (401, "unauthenticated")
        response = await server.request("GET", "/v1/history", headers={"authorization": "Bearer s3cret-token-s3cret"})
        assert response.status == 200


async def test_a_socket_reads_history_beside_its_subscriptions(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        epoch = await publish(server, 9)
        async with peer(server, {"subs": [{"s": "x", "filter": {}}]}) as p:
            assert (await p.receive())["t"] == "live"

            async def hist(**how: Any) -> Any:
                await p.send(t="hist", id=7, filter={"types": ["c.>"]}, **how)
                answer = await p.receive()
                assert answer["id"] == 7
                return answer

            page = await hist(**{"from": "earliest"})
            assert (page["t"], page["a"], page["b"], offsets(page)) == ("page", 0, 9, [3, 6, 9])
            assert (page["more"], page["epoch"], page["oldest"], page["head"]) == (False, epoch, 1, 9)
            page = await hist(**{"from": {"last": 2}}, limit=1)
            assert (page["a"], page["b"], offsets(page), page["more"]) == (5, 8, [6], True)
            page = await hist(**{"from": {"cursor": f"{epoch}:8"}}, limit=1, reverse=True)
            assert (page["a"], page["b"], offsets(page), page["more"]) == (3, 8, [6], True)
            assert offsets(await hist(**{"from": "now"}, reverse=True)) == [9, 6, 3]
            assert (await hist(**{"from": "now"}))["d"] == []


async def test_a_socket_is_told_what_is_wrong_with_its_question(autojump_clock: Any, peer: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        epoch = await publish(server, 9)
        async with peer(server, {}) as p:

            async def error(**how: Any) -> tuple[int, str, str]:
                await p.send(t="hist", id=3, **how)
                answer = await p.receive()
                assert (answer["t"], answer["id"]) == ("err", 3)
                return answer["code"], answer["slug"], answer.get("at")

            assert await error(filter={}) == (400, "bad_message", "/from")
            assert await error(**{"from": "now"}) == (400, "bad_message", "/filter")
            assert await error(filter={"types": []}, **{"from": "now"}) == (422, "bad_filter", "/types")
            assert await error(filter={}, **{"from": {"last": 2}}, reverse=True) == (422, "bad_from", "/from")
            assert await error(filter={}, **{"from": "now"}, limit=501) == (400, "bad_message", "/limit")
            assert await error(filter={}, **{"from": {"cursor": "x:1"}}) == (412, "epoch_mismatch", "/from")
            assert await error(filter={}, **{"from": {"cursor": f"{epoch}:10"}}) == (412, "epoch_mismatch", "/from")


@pytest.mark.real
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on the PATH")
def test_the_curl_line_of_the_reference_reads_history(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "protocol.md").read_text()
    found = re.search(r"^curl -G http://127\.0\.0\.1:8787/v1/history .*$", page, re.MULTILINE)
    assert found is not None
    server = Server(tmp_path / "data", free_port())
    trio.run(server.start)
    try:
        for type_ in ("price.tick", "alert.high", "price.spike"):
            body = json.dumps({"type": type_, "entity": "e", "data": 1})
            post = ["curl", "-s", "-d", body, "-H", "content-type: application/json", f"{server.url}/v1/signals"]
            subprocess.run(post, check=True, capture_output=True, timeout=30)
        line = found[0].replace("http://127.0.0.1:8787", server.url).replace("curl", "curl -s", 1)
        read = subprocess.run(["sh", "-c", line], check=True, capture_output=True, timeout=30)
    finally:
        server.kill()
    assert [signal["type"] for signal in json.loads(read.stdout)["d"]] == ["price.tick", "price.spike"]
