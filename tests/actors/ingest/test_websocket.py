"""Sources `websocket` and `heliograph`: streams that are followed, and resumed where they can be."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel
import trio_websocket

from actors.app import app
from actors.ingest.kinds import KINDS
from actors.ingest.link import Link, LinkClosed, Target
from actors.ingest.source import InvalidCursor, InvalidOptions, SourceFailed
from actors.ingest.sources.heliograph import heliograph
from actors.ingest.sources.websocket import websocket
from actors.settings import AuthSettings, Settings
from actors.signals import Draft
from actors.stream import STREAM
from runtime import Secret
from runtime.testing import RunningServer, start_server
from tests.actors.ingest.kit import example, only, published, status, told, until, world


@attrs.define
class Upstream:
    """A stream on this machine that a test plays: messages from 0 on, to whoever asks for what follows a number."""

    port: int = 0
    messages: list[Any] = attrs.Factory(list)
    asked: list[Any] = attrs.Factory(list)
    headers: list[Any] = attrs.Factory(list)
    cut: trio.Event = attrs.Factory(trio.Event)
    resumes: bool = True
    refuse: int = 0
    ended: int = 0

    async def serve(self, request: trio_websocket.WebSocketRequest) -> None:
        self.headers.append({name.decode(): value.decode() for name, value in request.headers})
        if self.refuse:
            await request.reject(self.refuse, body=b"not today")
            return
        ws = await request.accept()
        try:
            self.asked.append(first := json.loads(await ws.get_message()))
            sent = first.get("after", -1) + 1 if self.resumes else len(self.messages)
            async with trio.open_nursery() as nursery:

                async def end() -> None:
                    await self.cut.wait()
                    await ws.aclose(1012, "restarting")

                nursery.start_soon(end)
                while True:
                    while sent < len(self.messages):
                        await ws.send_message(json.dumps(self.messages[sent]))
                        sent += 1
                    await trio.sleep(0.005)
        except* trio_websocket.ConnectionClosed:
            self.ended += 1


@asynccontextmanager
async def upstream(**how: Any) -> AsyncGenerator[Upstream]:
    held = Upstream(**how)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(trio_websocket.serve_websocket, held.serve, "127.0.0.1", 0, None))
        held.port = server.port
        yield held
        nursery.cancel_scope.cancel()


def trade(number: int) -> dict[str, Any]:
    return {"seq": number, "price": number, "symbol": "a"}


def trades(held: Upstream, **options: Any) -> Any:
    given = example("source-websocket", url=f"ws://127.0.0.1:{held.port}/stream", wait_s=0.3).options
    given = {**given, **options}
    return websocket(world("trades"), {name: value for name, value in given.items() if value is not None})


async def follow(source: Any, cursor: str | None, count: int) -> tuple[str | None, list[Any]]:
    found: list[Any] = []
    with trio.fail_after(10):
        while len(found) < count:
            batch = await source.fetch(cursor)
            found += [one["price"] for one in told(batch)]
            cursor = batch.cursor
    return cursor, found


@pytest.mark.real
async def test_a_stream_is_resumed_after_what_was_published() -> None:
    async with upstream(messages=[trade(n) for n in range(5)]) as held:
        source = trades(held)
        cursor, found = await follow(source, None, 5)
        assert found == [0, 1, 2, 3, 4]
        assert held.headers[0]["authorization"] == "trades_token-0123456789abcdef"
        held.messages += [trade(n) for n in range(5, 8)]
        ahead = await source.fetch(cursor)  # not published: the server crashed
        assert told(ahead)
        again = trades(held)
        _, found = await follow(again, cursor, 3)
        assert found == [5, 6, 7]
        assert held.asked == [
            {"op": "subscribe", "channel": "trades"},
            {"op": "subscribe", "channel": "trades", "after": 4},
        ]
        await source._drop()
        await again._drop()


@pytest.mark.real
async def test_what_was_not_published_is_offered_again() -> None:
    async with upstream(messages=[trade(n) for n in range(3)], resumes=False) as held:
        source = trades(held, sequence=None, resume=None)
        first = await source.fetch(None)
        held.messages += [trade(n) for n in range(3, 6)]
        _, found = await follow(source, first.cursor, 3)
        assert found == [3, 4, 5]
        held.messages.append(trade(6))
        with trio.fail_after(5):
            while not (batch := await source.fetch("[3,null]")).signals:
                pass
        assert await source.fetch("[3,null]") == batch
        await source._drop()


@pytest.mark.real
async def test_messages_that_come_again_or_mean_nothing_are_passed_over() -> None:
    noise = [{"op": "welcome"}, trade(1), trade(0), trade(1), {"price": 2, "seq": 2}, trade(3)]
    async with upstream(messages=noise) as held:
        source = trades(held)
        cursor, found = await follow(source, None, 2)
        assert found == [1, 3]
        assert cursor == "[3,3]"
        await source._drop()


@pytest.mark.real
async def test_a_connection_that_ends_is_a_failure_and_opened_again() -> None:
    async with upstream(messages=[trade(0)]) as held:
        source = trades(held)
        cursor, _ = await follow(source, None, 1)
        held.cut.set()
        with pytest.raises(SourceFailed, match="closed by the other side with 1012: restarting"):
            await follow(source, cursor, 1)
        held.cut = trio.Event()
        held.messages.append(trade(1))
        assert (await follow(source, cursor, 1))[1] == [1]
        await source._drop()
        held.refuse = 403
        with pytest.raises(SourceFailed, match=f"ws://127.0.0.1:{held.port}/stream answered 403: not today"):
            await trades(held, url=f"ws://127.0.0.1:{held.port}/stream?key=secret").fetch(None)
    with pytest.raises(SourceFailed, match="onnect"):
        await trades(held).fetch(None)


@pytest.mark.real
async def test_the_example_of_the_websocket_page_runs() -> None:
    async with upstream(messages=[trade(n) for n in range(3)]) as held:
        source = example("source-websocket", url=f"ws://127.0.0.1:{held.port}/stream")
        async with start_server(app, settings=only(source)) as server:

            async def done() -> bool:
                return bool((await status(server, "trades"))["produced"] == 3)

            await until(done)
            server.abort(server.env.ingests.get_by_name("trades"))
            held.messages += [trade(n) for n in range(3, 6)]

            async def more() -> bool:
                return bool((await status(server, "trades"))["produced"] == 6)

            await until(more)
            found = await published(server)
            assert [(one.type, one.entity, one.data["price"]) for one in found] == [("trade", "a", n) for n in range(6)]


async def test_links_that_are_collected_with_everything_around_them_close_their_connections() -> None:
    async with upstream() as held:
        target = Target.parse(f"ws://127.0.0.1:{held.port}/stream")
        assert target is not None
        for _ in range(20):  # the order in which a cycle is finalized is nobody's promise
            link = await Link.open(target, headers={})
            around: list[Any] = [link._stream, link]
            around.append(around)
            del link, around
        gc.collect()  # a warning of an unclosed socket would be an error here

        async def gone() -> bool:
            return held.ended == 20

        await until(gone)


async def test_a_place_of_another_kind_is_refused() -> None:
    source = trades(Upstream())
    for cursor in ("17", "nonsense", '["a", 1]'):
        with pytest.raises(InvalidCursor, match="another name"):
            await source.fetch(cursor)
    with pytest.raises(InvalidCursor, match="another name"):
        await heliograph(world(), {"url": "x:1"}).fetch("[1]")


def test_a_mistake_in_the_options_is_named() -> None:
    for options, said in (
        ({"url": "http://x"}, "options.url must be a ws: or wss:"),
        ({"resume": "again"}, "options.resume is 'again'"),
        ({"sequence": None}, "options.sequence must say"),
        ({"sequence": "seq"}, "options.sequence is 'seq'"),
    ):
        with pytest.raises(InvalidOptions, match=said):
            trades(Upstream(), **options)
    for given, said in (
        ({"url": "ftp://x"}, "options.url"),
        ({"url": "x:1", "filter": {"types": 7}}, "options.filter"),
        ({"url": "x:1", "since": "ever"}, "options.since"),
    ):
        with pytest.raises(InvalidOptions, match=said):
            heliograph(world(), given)


async def test_a_link_answers_pings_joins_fragments_and_bounds_messages(autojump_clock: Any) -> None:
    client, server = trio.testing.memory_stream_pair()
    target = Target.parse("ws://x/")
    assert target is not None

    async def open_stream(_: Target) -> trio.abc.Stream:
        return client

    async def serve() -> None:
        request = await trio_websocket.wrap_server_stream(nursery, server)
        ws = await request.accept()
        with trio.fail_after(5):
            await ws.ping()  # waits for the pong
        await ws.send_message("after the ping")
        assert await ws.get_message() == "hello"
        await ws.send_message(b"binary")
        with pytest.raises(trio_websocket.ConnectionClosed):
            await ws.get_message()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        link = await Link.open(target, headers={}, open_stream=open_stream)
        received: list[str] = []
        while not received:
            with trio.move_on_after(0.001):  # may be cancelled at any moment
                received.append(await link.receive())
            await trio.lowlevel.checkpoint()
        assert received == ["after the ping"]
        await link.send("hello")
        with pytest.raises(LinkClosed, match="binary"):
            await link.receive()
        await link.aclose()


# Another Heliograph.


def berlin(server: RunningServer, **options: Any) -> Any:
    """The source of the page, leading to a server in memory."""

    async def open_stream(_: Target) -> trio.abc.Stream:
        return await server.network.connect("127.0.0.1", 8787)

    return lambda world, given: heliograph(world, {**given, **options}, open_stream)


async def publish(server: RunningServer, first: int, count: int) -> None:
    drafts = tuple(
        Draft.of(f"alert.{n % 2}", "e", {"n": n}, id=f"n{n}", tags={"n": n}) for n in range(first, first + count)
    )
    await server.env.broadcasters.get_by_name(STREAM).publish(drafts)


async def test_the_example_of_the_heliograph_page_follows_through_crashes_on_both_sides(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = Settings(sources=(), auth=AuthSettings(tokens=(Secret("berlin_token-0123456789abcdef"),)))
    async with start_server(app, settings=locked, seed=1) as upper:
        monkeypatch.setattr(Settings, "kinds", {**KINDS, "heliograph": berlin(upper)})
        monkeypatch.setattr("actors.settings._check_options", lambda *_: None)
        async with start_server(app, settings=only(example("source-heliograph")), seed=2) as lower:
            for turn in range(12):
                await publish(upper, turn * 50, 50)
                await trio.sleep(turn % 3)
                for _ in range(turn * 7):
                    await trio.lowlevel.checkpoint()
                if turn % 4 == 1:
                    await lower.crash()
                    await lower.start()
                elif turn % 4 == 2:
                    lower.abort(lower.env.ingests.get_by_name("berlin"))
                elif turn % 4 == 3:
                    await upper.crash()
                    await upper.start()
            await trio.sleep(120)
            found = await published(lower)
            assert [(one.id, one.data["n"], one.tags) for one in found] == [(f"n{n}", n, {"n": n}) for n in range(600)]
            assert (await status(lower, "berlin"))["error"] == ""


async def test_a_wrong_token_is_said_and_only_matching_signals_come(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = Settings(sources=(), auth=AuthSettings(tokens=(Secret("berlin_token-0123456789abcdef"),)))
    monkeypatch.setattr("actors.settings._check_options", lambda *_: None)
    async with start_server(app, settings=locked) as upper:
        await publish(upper, 0, 10)
        wrong = berlin(upper, token="wrong")
        narrow = berlin(upper, filter={"types": ["alert.1"]})
        monkeypatch.setattr(Settings, "kinds", {"wrong": wrong, "narrow": narrow})
        page = example("source-heliograph")
        settings = only(
            attrs.evolve(page, kind="wrong", name="wrong"), attrs.evolve(page, kind="narrow", name="narrow")
        )
        async with start_server(app, settings=settings) as lower:
            await trio.sleep(30)
            assert "token" in (await status(lower, "wrong"))["error"]
            assert [one.data["n"] for one in await published(lower)] == [1, 3, 5, 7, 9]
