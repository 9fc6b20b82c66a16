"""What the tests of sources share: the examples of the how-to pages, a world, and a look at the stream."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import h11
import trio

from actors.client import SignalClient
from actors.client.websocket import websocket_connect
from actors.ingest.source import Batch, World
from actors.settings import Settings, SourceSettings
from actors.signals import Signal
from actors.stream import STREAM
from runtime.testing import RunningServer

PAGES = Path(__file__).parents[3] / "docs" / "how-to"
START = 1_767_225_600.0


def example(kind: str, **changed: Any) -> SourceSettings:
    """The source that a how-to page shows, with some options changed to reach the test's counterpart."""
    page = (PAGES / kind).with_suffix(".md").read_text(encoding="utf-8")
    (text,) = re.findall(r"<!-- source -->\n```toml\n(.*?)```", page, re.DOTALL)
    (table,) = tomllib.loads(text)["sources"]
    source = SourceSettings(**table)
    return attrs.evolve(source, options={**source.options, **changed})


def only(*sources: SourceSettings) -> Settings:
    return Settings(sources=sources)


@attrs.define
class Clock:
    """A wall clock that a test sets."""

    now: float = START


def world(name: str = "s", clock: Clock | None = None) -> World:
    held = clock or Clock()
    return World(name=name, now=lambda: held.now, run_blocking=inline)


async def inline(fn: Any, /, *args: Any) -> Any:
    return fn(*args)


def told(batch: Batch) -> list[Any]:
    """The data of a batch's signals."""
    return [json.loads(draft.data_json) for draft in batch.signals]


async def drain(source: Any, cursor: str | None) -> tuple[str | None, list[Any]]:
    """Fetch until there is no more."""
    found: list[Any] = []
    while True:
        batch = await source.fetch(cursor)
        found += told(batch)
        cursor = batch.cursor
        if not batch.more:
            return cursor, found


async def published(server: RunningServer) -> list[Signal]:
    """Every signal of the stream, oldest first."""
    bounds = await server.env.broadcasters.get_by_name(STREAM).bounds()
    found: list[Signal] = []

    async def open_stream(address: object) -> trio.abc.Stream:
        return await server.network.connect("127.0.0.1", 8787)

    async with SignalClient("127.0.0.1:8787", connect=websocket_connect(open_stream)) as client:
        async with client.subscribe(since="earliest") as subscription:
            while len(found) < bounds.head:
                item = await subscription.__anext__()
                assert isinstance(item, Signal)
                found.append(item)
    return found


async def status(server: RunningServer, name: str) -> Mapping[str, Any]:
    answer = await server.request("GET", "/v1/sources")
    (found,) = [one for one in json.loads(answer.body)["sources"] if one["name"] == name]
    result: Mapping[str, Any] = found
    return result


Answer = tuple[int, Mapping[str, str], bytes]


async def serve_http(nursery: trio.Nursery, answer: Callable[[h11.Request], Answer]) -> int:
    """A small HTTP server on a free port of this machine."""

    async def serve(stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                status, headers, body = answer(event)
                fields = {"content-length": str(len(body)), "connection": "close", **headers}
                data = connection.send(h11.Response(status_code=status, headers=list(fields.items())))
                data += (connection.send(h11.Data(data=body)) or b"") + (connection.send(h11.EndOfMessage()) or b"")
                await stream.send_all(data)
                return
            else:
                return

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")  # noqa: TID251 - a counterpart, not ours
    nursery.start_soon(trio.serve_listeners, serve, [listener])
    port: int = listener.socket.getsockname()[1]
    return port


def header(request: h11.Request, name: str) -> str:
    return dict(request.headers).get(name.encode(), b"").decode()


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait in real time until something is so; `condition` may be async."""
    with trio.fail_after(seconds):
        while True:
            found = condition()
            if found if not hasattr(found, "__await__") else await found:
                return
            await trio.sleep(0.02)
