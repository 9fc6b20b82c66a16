"""The stream: numbers, epochs, duplicates, sources' cursors, retention, groups."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio

from actors.app import app
from actors.settings import Settings, StreamSettings
from actors.signals import Draft
from actors.stream import STREAM, Granted, Wanted
from runtime import LimitExceeded
from runtime.testing import RunningServer, start_server

QUIET = Settings(sources_enabled=False)


def stream(server: RunningServer) -> Any:
    return server.env.broadcasters.get_by_name(STREAM)


def drafts(*ids: str | None, size: int = 1, type_: str = "a") -> tuple[Draft, ...]:
    return tuple(Draft.of(type_, "b", "x" * size, id=one) for one in ids)


def settings(**how: Any) -> Settings:
    return Settings(sources_enabled=False, stream=StreamSettings(**how))


async def offsets(server: RunningServer, *ids: str | None) -> list[tuple[int, bool]]:
    published = await stream(server).publish(drafts(*ids))
    return [(receipt.offset, receipt.dup) for receipt in published.receipts]


async def test_offsets_have_no_holes_and_a_repeat_gets_the_first_one(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        assert await offsets(server, "a", None, "a", "b") == [(1, False), (2, False), (1, True), (3, False)]
        assert await offsets(server, "b", None) == [(3, True), (4, False)]


async def test_a_repeat_is_known_after_every_end_and_forgotten_after_its_time(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        assert await offsets(server, "a") == [(1, False)]
        await server.evict(stream(server))
        assert await offsets(server, "a") == [(1, True)]
        server.abort(stream(server))
        assert await offsets(server, "a") == [(1, True)]
        await server.crash()
        await server.start()
        assert await offsets(server, "a") == [(1, True)]
        await trio.sleep(121)
        for batch in range(10):
            assert await offsets(server, "a") == [(1, True)]  # among the last 1,000
            await offsets(server, *(f"{batch}-{number}" for number in range(100)))
        assert await offsets(server, "a") == [(1_002, False)]


async def test_a_repeat_is_known_when_the_clock_was_set_in_between(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        assert await offsets(server, "a") == [(1, False)]
        platform = server.platform
        now = platform.now
        object.__setattr__(platform, "now", lambda: now() + 3_600)
        assert await offsets(server, "a") == [(1, True)]
        await server.crash()
        await server.start()
        assert await offsets(server, "a") == [(1, True)]


async def test_the_epoch_stays_in_restarts_and_changes_with_the_lineage(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        await offsets(server, "a", "b")
        first = await stream(server).bounds()
        await server.crash()
        await server.start()
        assert await stream(server).bounds() == first
        await server.stop()
        server.store.lineage = "restored from a copy"  # type: ignore[misc]
        await server.start()
        restored = await stream(server).bounds()
        assert restored.epoch != first.epoch
        assert restored.head == 2
        (granted,) = (await stream(server).subscribe("shard-0", (Wanted("{}", "now", "fail"),))).answers
        assert isinstance(granted, Granted)


async def test_times_never_go_backwards(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        await offsets(server, "a")
        platform = server.platform
        now = platform.now()
        object.__setattr__(platform, "now", lambda: now - 3_600)
        await offsets(server, "b")
        texts = await logged(server)
        assert texts[0]["ts"] <= texts[1]["ts"]


async def logged(server: RunningServer, after: int = 0) -> list[dict[str, Any]]:
    """The whole log, through pages."""
    found: list[dict[str, Any]] = []
    while True:
        (granted,) = (await stream(server).subscribe("shard-0", (Wanted("{}", "earliest", "fail"),))).answers
        page = await stream(server).page(granted.group, after)
        if page is None:
            continue  # the shard has no subscriber in truth, and said so in between
        found += json.loads(b"[" + page.signals + b"]")
        if page.complete:
            return found
        after = page.upto


async def test_ingest_is_compare_and_set(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        first = await stream(server).ingest("s", None, "10", drafts("s:1", "s:2"))
        assert (first.accepted, first.cursor, first.duplicates) == (True, "10", 0)
        # The source did not hear the answer and repeats: nothing is stored, and it learns where to go on.
        again = await stream(server).ingest("s", None, "12", drafts("s:1", "s:2", "s:3"))
        assert (again.accepted, again.cursor) == (False, "10")
        assert (await stream(server).bounds()).head == 2
        other = await stream(server).ingest("t", None, "1", drafts("t:1"))
        assert other.accepted
        await server.crash()
        await server.start()
        third = await stream(server).ingest("s", "10", "12", drafts("s:2", "s:3"))
        assert (third.accepted, third.duplicates) == (True, 1)
        assert [one["id"] for one in await logged(server)] == ["s:1", "s:2", "t:1", "s:3"]


async def test_a_publication_is_bounded(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        with pytest.raises(LimitExceeded, match="1,001 signals"):
            await stream(server).publish(drafts(*["x"] * 1_001))
        with pytest.raises(LimitExceeded, match="bytes"):
            await stream(server).publish(drafts(*[None] * 200, size=60_000))


@pytest.mark.parametrize(
    ("how", "oldest"),
    [
        ({"retention_signals": 10, "retention_s": 0}, 91),
        ({"retention_signals": 10, "retention_s": 50}, 51),  # whichever keeps more
        ({"retention_signals": 60, "retention_s": 5}, 41),
        ({"retention_signals": 1_000, "retention_s": 5, "retention_max_s": 20}, 81),
        ({"retention_signals": 1_000, "retention_bytes": 65_536}, 36),
    ],
)
async def test_retention(autojump_clock: Any, how: dict[str, Any], oldest: int) -> None:
    async with start_server(app, settings=settings(**how)) as server:
        for n in range(100):
            await stream(server).publish(drafts(f"i{n}", size=900))
            await trio.sleep(1)
        await trio.sleep(0.5)  # past the alarm that is due at a whole second
        bounds = await stream(server).bounds()
        assert bounds.head == 100
        assert abs(bounds.oldest - oldest) <= 2
        log = await logged(server)
        assert [one["o"] for one in log] == list(range(bounds.oldest, 101))
        if "retention_bytes" in how:
            assert sum(len(json.dumps(one)) for one in log) < 70_000
            assert bounds.window_ms < 70_000
        await server.crash()
        await server.start()
        log = await logged(server)
        assert [one["o"] for one in log] == list(range((await stream(server).bounds()).oldest, 101))


async def test_age_is_trimmed_without_publications(autojump_clock: Any) -> None:
    async with start_server(app, settings=settings(retention_s=1, retention_max_s=100)) as server:
        await offsets(server, *map(str, range(50)))
        await trio.sleep(200)
        bounds = await stream(server).bounds()
        assert (bounds.oldest, bounds.head) == (50, 50)


async def test_equal_filters_share_a_group_while_somebody_listens(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:

        async def group(filter_: str, shard: str = "shard-0") -> int:
            joined = await stream(server).subscribe(shard, (Wanted(filter_, "now", "fail"),))
            number: int = joined.answers[0].group
            return number

        one = '{"types":["a"]}'
        first = await group(one)
        assert await group(one, "shard-1") == first
        assert await group("{}") != first
        await stream(server).leave("shard-0", (first,))
        assert await stream(server).page(first, 0) is not None
        await stream(server).leave("shard-1", (first,))
        assert await stream(server).page(first, 0) is None


async def test_groups_are_bounded(autojump_clock: Any) -> None:
    async with start_server(app, settings=settings(groups=2)) as server:
        wanted = tuple(Wanted(f'{{"types":["{one}"]}}', "now", "fail") for one in "abc")
        *granted, refused = (await stream(server).subscribe("shard-0", wanted)).answers
        assert all(isinstance(one, Granted) for one in granted)
        assert "2 distinct filters" in refused


async def test_rows_of_shards_without_subscribers_go_away(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        joined = await stream(server).subscribe("shard-0", (Wanted("{}", "now", "fail"),))
        (granted,) = joined.answers
        await server.crash()  # the shard's sockets are gone, the row is not
        await server.start()
        await offsets(server, "a")
        await trio.sleep(1)
        assert await stream(server).page(granted.group, 0) is None


async def test_a_sparse_filter_reads_a_long_log_in_pieces(autojump_clock: Any) -> None:
    async with start_server(app, settings=QUIET) as server:
        for _ in range(6):
            await stream(server).publish(drafts(*[None] * 500))
        await stream(server).publish(drafts("x", type_="rare"))
        wanted = Wanted('{"types":["rare"]}', "earliest", "fail")
        (granted,) = (await stream(server).subscribe("shard-0", (wanted,))).answers
        after: int = granted.since.offset
        pages: list[Any] = []
        while not pages or not pages[-1].complete:
            pages.append(await stream(server).page(granted.group, after))
            after = pages[-1].upto
        assert len(pages) == 7
        assert all(not page.signals for page in pages[:-1])
        assert [one["id"] for one in json.loads(b"[" + pages[-1].signals + b"]")] == ["x"]
        assert attrs.astuple(pages[0])[:3] == (0, 0, 500)
