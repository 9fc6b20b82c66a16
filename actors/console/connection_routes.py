"""The console's routes about connections: all of them, one of them with its flight recorder, and their end."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast, get_args

from actors.connections import ConnectionManager
from actors.console.answers import BAD_QUERY, NO_STREAM, ROWS, Ask, Invalid, choice, number
from actors.inspecting import ConnectionState, ConnectionView, ConnectionWish, Opened, Sort
from actors.protocol import ijson
from actors.protocol.codes import BAD_MESSAGE, NORMAL, CloseCode, ErrorCode
from actors.stream import shard_name
from runtime import Request

T = TypeVar("T")

REASON_BYTES = 123  # RFC 6455, section 5.5
QUERY_CHARACTERS = 128
_NO_CONNECTION = ErrorCode(404, "no_connection")


async def connections(ask: Ask) -> dict[str, Any]:
    """A window of the connections of all streams. Only places are collected; rows are made for the window alone."""
    request, settings = ask.request, ask.env.settings
    query = request.query_values()
    q = query.get("q", "").lower()
    if len(q) > QUERY_CHARACTERS:
        raise Invalid(BAD_QUERY, f"q has {len(q)} characters; at most {QUERY_CHARACTERS}", at="q")
    wish = ConnectionWish(
        q=q,
        state=cast("ConnectionState", choice(request, "state", ("", *get_args(ConnectionState)), "")),
        sort=cast("Sort", choice(request, "sort", get_args(Sort), "age_ms")),
    )
    offset = number(request, "offset", 0, least=0, most=10_000_000)
    limit = number(request, "limit", 100, most=ROWS)
    where = [(stream, shard) for stream in settings.stream_names for shard in range(settings.shards)]
    calls = [_shard(ask, *one).find(wish) for one in where]
    known: list[tuple[Any, int, int]] = []
    unknown: list[tuple[Any, int, int]] = []
    for n, call in enumerate(calls):
        places = await call
        for value, connection in zip(places.values, places.numbers, strict=True):
            (unknown if value is None else known).append((value, n, connection))
    known.sort(reverse=query.get("desc") == "1")
    found = known + unknown
    window = found[offset : offset + limit]
    by_shard: dict[int, set[int]] = {}
    for _, n, connection in window:
        by_shard.setdefault(n, set()).add(connection)
    views = {n: await _shard(ask, *where[n]).views(frozenset(numbers)) for n, numbers in by_shard.items()}
    # One that has gone in between has no row.
    shown = [(where[n], views[n].get(connection)) for _, n, connection in window]
    return {"total": len(found), "rows": [row(*at, view) for at, view in shown if view is not None]}


def row(stream: str, shard: int, view: ConnectionView) -> dict[str, Any]:
    """A connection as the console shows it."""
    return {
        "session": view.session,
        "stream": stream,
        "shard": shard,
        "user": view.user or None,
        "sdk": view.sdk,
        "peer": view.peer,
        "encoding": view.encoding,
        "age_ms": round(1_000 * view.age_s),
        "rtt_ms": None if view.rtt_s is None else round(1_000 * view.rtt_s, 3),
        "lag": view.lag,
        "backlog_bytes": view.backlog_bytes,
        "sent": view.passed.signals,
        "sent_bytes": view.passed.nbytes,
        "dropped": view.dropped,
        "conflated": view.passed.left_out,
        "subs": view.subs,
        "state": view.state,
    }


async def connection(ask: Ask) -> dict[str, Any]:
    """One connection, its subscriptions, and what was said since somebody looks."""
    stream, session = _named(ask)
    shard, opened = await _first(ask, stream, lambda one: one.look(session))
    numbers = tuple(sub.group for sub in opened.subs)
    texts = await ask.env.broadcasters.get_by_name(stream).filters(numbers)
    return row(stream, shard, opened.view) | {
        "subscriptions": [
            {
                "sid": sub.s,
                "filter": None if text is None else json.loads(text),
                "mode": "latest" if sub.min_ms else "all",
                "state": sub.state,
                "position": sub.position,
                "on_slow": sub.on_slow,
                "matched": sub.matched,
            }
            for sub, text in zip(opened.subs, texts, strict=True)
        ],
        "events": _events(opened),
    }


def _events(opened: Opened) -> list[dict[str, Any]]:
    return [
        {"at": round(1_000 * one.at), "dir": one.direction, "kind": one.kind, "bytes": one.size, "text": one.text}
        for one in opened.events
    ]


async def close(ask: Ask) -> dict[str, Any]:
    """`{"code": …, "reason": …}`, each optional: close it."""
    stream, session = _named(ask)
    code, reason = _close_of(ask.request)
    await _first(ask, stream, lambda one: one.dismiss(session, code, reason))
    return {"done": True}


async def send_away(ask: Ask) -> dict[str, Any]:
    """Let its client connect anew."""
    stream, session = _named(ask)
    await _first(ask, stream, lambda one: one.send_away(session))
    return {"done": True}


def target(request: Request) -> str:
    """What is written down of a connection."""
    return f"{request.params['name']}/{request.params['session']}"


def _close_of(request: Request) -> tuple[int, str]:
    try:
        value = ijson.parse(request.body or b"{}")
    except ijson.InvalidJson as error:
        raise Invalid(BAD_MESSAGE, str(error)) from None
    if not isinstance(value, dict):
        raise Invalid(BAD_MESSAGE, "the body is an object with code and reason, each optional")
    body = cast("dict[str, object]", value)
    code, reason = body.get("code", int(CloseCode.REBALANCE)), body.get("reason", "")
    if not isinstance(code, int) or not (code == NORMAL or 4_000 <= code <= 4_999):
        raise Invalid(BAD_MESSAGE, f"code is {str(code)[:40]}; must be 1000 or from 4000 to 4999", at="/code")
    if not isinstance(reason, str) or len(reason.encode("utf-8", "surrogatepass")) > REASON_BYTES:
        raise Invalid(BAD_MESSAGE, f"reason is a text of at most {REASON_BYTES} bytes", at="/reason")
    return code, reason


def _shard(ask: Ask, stream: str, shard: int) -> ConnectionManager:
    return ask.env.shards.get_by_name(shard_name(shard, stream))


def _named(ask: Ask) -> tuple[str, str]:
    stream, session = ask.request.params["name"], ask.request.params["session"]
    if stream not in ask.env.settings.stream_names:
        raise Invalid(NO_STREAM, f"no stream named {stream[:64]!r} is configured")
    return stream, session


async def _first(ask: Ask, stream: str, call: Callable[[ConnectionManager], Awaitable[T | None]]) -> tuple[int, T]:
    """What the shard says that has the connection, and its number.

    Raises:
        Invalid: none has.
    """
    calls = [call(_shard(ask, stream, shard)) for shard in range(ask.env.settings.shards)]
    answers = [await one for one in calls]
    for shard, answer in enumerate(answers):
        if answer:
            return shard, answer
    session = ask.request.params["session"]
    raise Invalid(_NO_CONNECTION, f"no connection of {session[:64]!r} to {stream}; it may have ended")
