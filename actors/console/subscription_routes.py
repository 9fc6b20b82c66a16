"""The console's routes about subscriptions: filters with who has them, and why one lets a signal pass or does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, cast

import attrs
import trio

from actors.console.answers import BAD_QUERY, NO_STREAM, ROWS, Ask, Invalid, choice, number
from actors.filters import Filter, InvalidFilter
from actors.filters.explain import explain as explained
from actors.filters.explain import in_words
from actors.inspecting import GroupView
from actors.protocol import ijson
from actors.protocol.codes import BAD_FILTER, BAD_MESSAGE
from actors.signals import Draft, InvalidSignal
from actors.stream import shard_name

FILTERS_AT_ONCE = 256  # of at most 8 KiB each
EXPLAINED_AT_ONCE = 16
QUERY_CHARACTERS = 128

_SORTS: dict[str, Callable[[GroupView], float | None]] = {
    "members": lambda one: one.members,
    "evaluated": lambda one: one.evaluated,
    "matched": lambda one: one.matched,
    "match_rate": lambda one: one.match_rate,
    "bytes_per_s": lambda one: one.bytes_per_s,
}


@attrs.frozen
class _Found:
    stream: str
    group: GroupView
    filter: str

    def to_json(self) -> dict[str, Any]:
        one = self.group
        return {
            "group": f"g{one.number}@{self.stream}",
            "stream": self.stream,
            "filter": ijson.parse(self.filter),
            "text": in_words(self.filter),
            "members": one.members,
            "evaluated": one.evaluated,
            "matched": one.matched,
            "match_rate": one.match_rate,
            "bytes_per_s": one.bytes_per_s,
        }


async def subscriptions(ask: Ask) -> dict[str, Any]:
    """A window of the filters that connections have; those that are equal are one."""
    request, names = ask.request, ask.env.settings.stream_names
    query = request.query_values()
    stream = choice(request, "stream", ("", *names), "")
    value = _SORTS[choice(request, "sort", tuple(_SORTS), "members")]
    offset = number(request, "offset", 0, least=0, most=10_000_000)
    limit = number(request, "limit", 100, most=ROWS)
    q = query.get("q", "").lower()
    if len(q) > QUERY_CHARACTERS:
        raise Invalid(BAD_QUERY, f"q has {len(q)} characters; at most {QUERY_CHARACTERS}", at="q")
    groups = [(name, group) for name in ([stream] if stream else names) for group in await _groups(ask, name)]
    desc = query.get("desc") == "1"

    def place(one: tuple[str, GroupView]) -> tuple[bool, float, str, int]:
        seen = value(one[1])
        return (seen is None) != desc, seen or 0, one[0], one[1].number  # what is not known comes last either way

    groups.sort(key=place, reverse=desc)
    if not q:
        window = [one async for one in _with_filters(ask, groups[offset : offset + limit])]
        return {"total": len(groups), "rows": [one.to_json() for one in window]}
    found = [
        one async for one in _with_filters(ask, groups) if q in one.filter.lower() or q in in_words(one.filter).lower()
    ]
    return {"total": len(found), "rows": [one.to_json() for one in found[offset : offset + limit]]}


async def _groups(ask: Ask, stream: str) -> list[GroupView]:
    """The groups of a stream; figures of each are of the shard that knows it longest, members of all shards."""
    head = (await ask.env.broadcasters.get_by_name(stream).bounds()).head
    calls = [ask.env.shards.get_by_name(shard_name(n, stream)).groups(head) for n in range(ask.env.settings.shards)]
    found: dict[int, GroupView] = {}
    for call in calls:
        for one in await call:
            other = found.get(one.number)
            found[one.number] = one if other is None else one.joined(other)
    return list(found.values())


async def _with_filters(ask: Ask, groups: Sequence[tuple[str, GroupView]]) -> AsyncIterator[_Found]:
    """With the filters of those that their stream still knows."""
    for stream, piece in _pieces(groups):
        filters = await ask.env.broadcasters.get_by_name(stream).filters(tuple(one.number for one in piece))
        for one, text in zip(piece, filters, strict=True):
            if text is not None:
                yield _Found(stream, one, text)


def _pieces(groups: Sequence[tuple[str, GroupView]]) -> Iterator[tuple[str, list[GroupView]]]:
    """In the same order, those beside each other of one stream together."""
    piece: list[GroupView] = []
    of = ""
    for stream, group in groups:
        if piece and (stream != of or len(piece) == FILTERS_AT_ONCE):
            yield of, piece
            piece = []
        of = stream
        piece.append(group)
    if piece:
        yield of, piece


async def explain(ask: Ask) -> dict[str, Any]:
    """`{"signal": …}` with `stream` or `filter`: what each filter says of a signal, and why."""
    try:
        value = ijson.parse(ask.request.body)
    except ijson.InvalidJson as error:
        raise Invalid(BAD_MESSAGE, str(error)) from None
    if not isinstance(value, dict):
        raise Invalid(BAD_MESSAGE, "the body is an object with signal, and stream or filter")
    body = cast("dict[str, object]", value)
    signal = _signal(body.get("signal"))
    if "filter" in body:
        try:
            filter_ = Filter.parse(body["filter"])
        except InvalidFilter as error:
            raise Invalid(BAD_FILTER, str(error), at=f"/filter{error.at}") from None
        return {"results": [_result(filter_, signal)]}
    stream = body.get("stream", "main")
    if not isinstance(stream, str) or stream not in ask.env.settings.stream_names:
        raise Invalid(NO_STREAM, f"no stream named {str(stream)[:64]!r} is configured", at="/stream")
    groups = sorted(await _groups(ask, stream), key=lambda one: -one.members)[:ROWS]
    results: list[dict[str, Any]] = []
    async for found in _with_filters(ask, [(stream, one) for one in groups]):
        results.append(_result(Filter.from_canonical(found.filter), signal) | {"members": found.group.members})
        if len(results) % EXPLAINED_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return {"results": results}


def _signal(value: object) -> dict[str, Any]:
    try:
        Draft.from_value(value)
    except InvalidSignal as error:
        raise Invalid(BAD_MESSAGE, str(error), at=f"/signal{error.at}") from None
    return cast("dict[str, Any]", value)


def _result(filter_: Filter, signal: dict[str, Any]) -> dict[str, Any]:
    tree = explained(filter_, signal)
    return {
        "filter": ijson.parse(filter_.canonical),
        "text": in_words(filter_.canonical),
        "matches": tree.matches,
        "tree": tree.to_json(),
    }
