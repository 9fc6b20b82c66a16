"""Source `http`: what is new is published once, and the server is asked politely."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio

from actors.app import app
from actors.ingest.source import InvalidCursor, InvalidOptions, SourceFailed
from actors.ingest.sources.http import http
from runtime.testing import start_server
from tests.actors.ingest.kit import (
    START,
    Clock,
    drain,
    example,
    header,
    only,
    published,
    serve_http,
    status,
    told,
    until,
    world,
)


class Site:
    """A server that a test plays: what it answers, and what it was asked."""

    def __init__(self, *items: Any) -> None:
        self.items: list[Any] = list(items)
        self.answers: dict[str, httpx.Response] = {}
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path in self.answers:
            return self.answers[request.url.path]
        body = json.dumps({"items": self.items}).encode()
        tag = f'"{hash(body)}"'
        if request.headers.get("if-none-match") == tag:
            return httpx.Response(304)
        return httpx.Response(200, content=body, headers={"etag": tag})


def source(site: Site, clock: Clock | None = None, **options: Any) -> Any:
    given = {"url": "http://site/feed", "items": "/items", "type": "t", "entity": "/who", "id": "/id", **options}
    return http(world("s", clock), {k: v for k, v in given.items() if v is not None}, httpx.MockTransport(site))


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "who": "New York", **more}


async def test_an_item_is_published_once_however_often_it_is_offered() -> None:
    site = Site(item(1), item(2))
    asked = source(site)
    first = await asked.fetch(None)
    assert [(draft.type, draft.entity, draft.id) for draft in first.signals] == [
        ("t", "New-York", "s:1"),
        ("t", "New-York", "s:2"),
    ]
    site.items = [item(2), item(3), item(2)]
    second = await asked.fetch(first.cursor)
    assert told(second) == [item(3)]
    assert told(await asked.fetch(second.cursor)) == []
    assert told(await source(site).fetch(first.cursor)) == [item(3)]  # another instance, as after a crash


async def test_an_unchanged_document_costs_a_304_and_leaves_the_cursor() -> None:
    site = Site(item(1))
    asked = source(site)
    first = await asked.fetch(None)
    again = await asked.fetch(first.cursor)
    assert again.cursor == first.cursor
    assert site.requests[1].headers["if-none-match"]


async def test_an_item_without_an_id_is_known_by_its_content() -> None:
    site = Site({"who": "a", "n": 1})
    asked = source(site, id=None)
    cursor, found = await drain(asked, None)
    site.items += [{"n": 1, "who": "a"}, {"who": "a", "n": 2}]
    cursor, found = await drain(asked, cursor)
    assert found == [{"who": "a", "n": 2}]


async def test_more_than_a_batch_holds_comes_in_several() -> None:
    site = Site(*(item(n) for n in range(2_500)))
    asked = source(site)
    cursor, found = await drain(asked, None)
    assert [one["id"] for one in found] == list(range(2_500))
    assert await drain(asked, cursor) == (cursor, [])


async def test_what_is_still_offered_is_never_forgotten() -> None:
    site = Site(item(-1))
    asked = source(site)
    cursor, _ = await drain(asked, None)
    for start in range(0, 12_000, 2_000):
        site.items = [item(-1), *(item(n) for n in range(start, start + 2_000))]
        cursor, found = await drain(asked, cursor)
        assert [one["id"] for one in found] == list(range(start, start + 2_000))
    assert len(cursor or "") < 100_000


async def test_what_is_no_signal_is_passed_over_and_said_once() -> None:
    site = Site(item(1), {"who": "x"}, "text", item(2, big=2**60))
    asked = source(site)
    batch = await asked.fetch(None)
    assert told(batch) == [item(1)]
    assert [one.where for one in batch.rejected] == ["item 1", "item 2", "item 3"]
    assert "/id" in batch.rejected[0].reason
    site.items.append(item(3))
    assert not (await asked.fetch(batch.cursor)).rejected


async def test_headers_go_to_this_server_only_and_redirects_are_bounded() -> None:
    site = Site(item(1))
    site.answers["/feed"] = httpx.Response(302, headers={"location": "http://other/there"})
    asked = source(site, headers={"X-Key": "env:QUAKES_KEY"})
    await asked.fetch(None)
    assert [(one.url.host, one.headers.get("x-key")) for one in site.requests] == [
        ("site", "quakes_key-0123456789abcdef"),
        ("other", None),
    ]
    site.answers["/there"] = site.answers["/feed"]
    with pytest.raises(SourceFailed, match="redirects more than 5 times"):
        await asked.fetch(None)
    site.answers["/feed"] = httpx.Response(302, headers={"location": "file:///etc/passwd"})
    with pytest.raises(SourceFailed, match="not followed"):
        await asked.fetch(None)


@pytest.mark.parametrize(
    ("code", "headers", "retry_s"),
    [
        (429, {"retry-after": "120"}, 120),
        (503, {"retry-after": "Thu, 01 Jan 2026 00:05:00 GMT"}, 300),
        (429, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(START + 60)}, 60),
        (403, {"ratelimit-remaining": "0", "ratelimit-reset": "30"}, 30),
        (429, {}, None),
        (500, {"retry-after": "soon"}, None),
    ],
)
async def test_a_server_that_wants_to_be_left_alone_is(code: int, headers: dict[str, str], retry_s: float) -> None:
    site = Site()
    site.answers["/feed"] = httpx.Response(code, headers=headers, content=b"go away")
    with pytest.raises(SourceFailed, match=f"http://site/feed answered {code}: go away") as raised:
        await source(site, Clock(START), url="http://site/feed?key=secret").fetch(None)
    assert raised.value.retry_s == retry_s


async def test_a_limit_that_is_used_up_pauses_after_a_success() -> None:
    site = Site()
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "90"}
    site.answers["/feed"] = httpx.Response(200, headers=headers, content=b'{"items": []}')
    assert (await source(site).fetch(None)).pause_s == 90


async def test_a_body_has_a_bound_and_must_be_json() -> None:
    site = Site(item(1, text="x" * 500))
    with pytest.raises(SourceFailed, match="more than 100 bytes"):
        await source(site, body_bytes=100).fetch(None)
    site.answers["/feed"] = httpx.Response(200, content=b"<html>")
    with pytest.raises(SourceFailed, match="not JSON"):
        await source(site).fetch(None)
    site.answers["/feed"] = httpx.Response(200, content=b"[" * 100_000)
    with pytest.raises(SourceFailed, match="not JSON"):
        await source(site).fetch(None)
    site.answers["/feed"] = httpx.Response(200, content=b"{}")
    with pytest.raises(SourceFailed, match="nothing at /items"):
        await source(site).fetch(None)


async def test_a_place_of_another_kind_is_refused() -> None:
    for cursor in ("17", "[1]", "nonsense", '["", "", "!"]'):
        with pytest.raises(InvalidCursor, match="another name"):
            await source(Site()).fetch(cursor)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "ftp://x"}, "options.url"),
        ({"url": None}, "options.url is missing; it must be a text"),
        ({"items": "items"}, "options.items is 'items'"),
        ({"entity": "a b"}, "options.entity is 'a b'"),
        ({"headers": {"X": "env:NOT_SET_ANYWHERE"}}, "'NOT_SET_ANYWHERE' is not set"),
        ({"headers": {"X Y": "v"}}, "options.headers"),
        ({"body_bytes": 0}, "options.body_bytes is 0"),
        ({"urll": "x"}, "options.urll is unknown; did you mean 'url'"),
    ],
)
def test_a_mistake_in_the_options_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOptions, match=said):
        source(Site(), **options)


@pytest.mark.real
async def test_the_example_of_the_page_runs() -> None:
    features: list[dict[str, Any]] = [{"id": f"q{n}", "properties": {"net": "us", "mag": n, "time": n}} for n in (2, 1)]
    keys: list[str] = []

    def answer(request: Any) -> Any:
        keys.append(header(request, "authorization"))
        return 200, {}, json.dumps({"features": features}).encode()

    async with trio.open_nursery() as nursery:
        port = await serve_http(nursery, answer)
        quakes = example("source-http", url=f"http://127.0.0.1:{port}/quakes.json")
        async with start_server(app, settings=only(quakes)) as server:
            await until(lambda: len(keys) == 1)
            await until(lambda: _produced(server, 2))
            found = await published(server)
            assert [(one.type, one.entity, one.id, one.data["mag"]) for one in found] == [
                ("earth.quake", "us", "quakes:q1", 1),
                ("earth.quake", "us", "quakes:q2", 2),
            ]
            assert found[0].tags == {"at": 1}
        nursery.cancel_scope.cancel()
    assert keys == ["quakes_key-0123456789abcdef"]


async def _produced(server: Any, count: int) -> bool:
    return bool((await status(server, "quakes"))["produced"] == count)
