"""Source `feed`: RSS and Atom, oldest first, each entry once."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from actors.app import app
from actors.ingest.source import InvalidOptions, SourceFailed
from actors.ingest.sources.feed import feed
from runtime.testing import start_server
from tests.actors.ingest.kit import drain, example, only, published, serve_http, status, until, world

RSS = """<?xml version="1.0" encoding="{encoding}"?>
<rss version="2.0"><channel><title>Example</title><link>http://x</link><description>d</description>{items}
</channel></rss>"""
ITEM = "<item><title>{n} é</title><guid>g{n}</guid><link>http://x/{n}</link>{date}</item>"
ATOM = """<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><title>E</title><id>e</id>
<entry><title>b</title><id>urn:b</id><updated>2026-01-02T00:00:00Z</updated><summary>&lt;b&gt;x&lt;/b&gt;</summary></entry>
<entry><title>a</title><id>urn:a</id><updated>2026-01-01T00:00:00Z</updated><category term="c"/></entry></feed>"""


def rss(*numbers: int, dated: bool = False, encoding: str = "utf-8") -> bytes:
    dates = {n: f"<pubDate>Thu, 01 Jan 2026 00:00:{n:02d} GMT</pubDate>" if dated else "" for n in numbers}
    items = "".join(ITEM.format(n=n, date=dates[n]) for n in numbers)
    return RSS.format(encoding=encoding, items=items).encode(encoding)


class Site:
    def __init__(self, body: bytes) -> None:
        self.body = body

    def __call__(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=self.body)


def source(site: Site, **options: Any) -> Any:
    return feed(world("news"), {"url": "http://site/feed", **options}, httpx.MockTransport(site))


async def test_the_newest_entry_is_published_last_and_each_once() -> None:
    site = Site(rss(2, 1))
    asked = source(site)
    cursor, found = await drain(asked, None)
    assert [one["title"] for one in found] == ["1 é", "2 é"]
    site.body = rss(4, 3, 2)
    cursor, found = await drain(asked, cursor)
    assert [one["link"] for one in found] == ["http://x/3", "http://x/4"]
    assert await drain(source(site), cursor) == (cursor, [])


async def test_entries_with_times_are_published_in_their_order() -> None:
    _, found = await drain(source(Site(rss(1, 3, 2, dated=True))), None)
    assert [one["title"][0] for one in found] == ["1", "2", "3"]


async def test_an_atom_feed_is_read_and_an_encoding_understood() -> None:
    batch = await source(Site(ATOM.encode())).fetch(None)
    assert [draft.id for draft in batch.signals] == ["news:urn:a", "news:urn:b"]
    assert (batch.signals[0].type, batch.signals[0].entity) == ("feed.entry", "news")
    _, found = await drain(source(Site(ATOM.encode())), None)
    assert (found[0]["tags"], found[1]["summary"]) == (["c"], "<b>x</b>")
    _, found = await drain(source(Site(rss(1, encoding="iso-8859-1"))), None)
    assert found[0]["title"] == "1 é"


async def test_what_is_no_feed_is_a_failure() -> None:
    for body in (b"<html><p>Sorry</p></html>", b"{}", b"", b"\xff\x00"):
        with pytest.raises(SourceFailed, match="no feed"):
            await source(Site(body)).fetch(None)


def test_a_name_in_the_options_must_be_legal() -> None:
    with pytest.raises(InvalidOptions, match="entity is 'a b'"):
        source(Site(b""), entity="a b")


@pytest.mark.real
async def test_the_example_of_the_page_runs() -> None:
    async with trio.open_nursery() as nursery:
        port = await serve_http(nursery, lambda _: (200, {"content-type": "application/rss+xml"}, rss(2, 1)))
        news = example("source-feed", url=f"http://127.0.0.1:{port}/feed.xml")
        async with start_server(app, settings=only(news)) as server:
            shown = await status(server, "news")
            assert shown["next"] > server.platform.now()  # the schedule of the page says later
            await server.run_alarm(server.env.ingests.get_by_name("news"))

            async def done() -> bool:
                return bool((await status(server, "news"))["last_success"])

            await until(done)
            found = await published(server)
            assert [(one.type, one.entity, one.id) for one in found] == [
                ("news.entry", "example-news", "news:g1"),
                ("news.entry", "example-news", "news:g2"),
            ]
        nursery.cancel_scope.cancel()
