"""The console's routes about actors: all of them, one of them, what it stores, and what may be done to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import trio

from actors.console.answers import BAD_QUERY, ROWS, Ask, Invalid, choice, number
from actors.protocol import ijson
from actors.protocol.codes import BAD_MESSAGE, ErrorCode
from runtime import ActorError, ActorId, ActorView, InvalidId, Request, SqlError

AT_ONCE = 128  # actors that are looked at before others get a moment
TEXT_BYTES = 4_096  # of a stored value
UNSHOWN = "secret"  # what is stored under this name, as a key or a field, is not shown
HIDDEN = "…"
QUERY_BYTES = 16_384
_NO_ACTOR = ErrorCode(404, "no_actor")
_REFUSED = ErrorCode(400, "refused")
_STATES = ("active", "idle", "hibernated", "failing")

_SORTS: dict[str, Callable[[ActorView], Any]] = {
    "class": lambda view: (view.actor_class, view.id.name or ""),
    "id": lambda view: (view.id.namespace, view.id.name or "", view.id.raw),
    "state": lambda view: _STATES.index(view.state),
    "mailbox": lambda view: view.mailbox,
    "in_flight": lambda view: view.in_flight,
    "last_event": lambda view: -1.0 if view.idle_s is None and view.state == "hibernated" else -(view.idle_s or 0.0),
    "alarm": lambda view: float("inf") if view.alarm_at is None else view.alarm_at,
    "restarts": lambda view: view.restarts,
    "sockets": lambda view: view.sockets,
}


async def actors(ask: Ask) -> dict[str, Any]:
    """A window of the actors that are in memory, have sockets or have an alarm."""
    request = ask.request
    query = request.query_values()
    wanted, class_ = query.get("q", "").lower(), query.get("class", "")
    state = choice(request, "state", ("", *_STATES), "")
    sort = choice(request, "sort", tuple(_SORTS), "class")
    offset = number(request, "offset", 0, least=0, most=10_000_000)
    limit = number(request, "limit", 100, most=ROWS)
    found: list[ActorView] = []
    total = 0
    for view in ask.env.operator.actors():
        total += 1
        if total % AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        if (not class_ or view.actor_class == class_) and (not state or view.state == state) and _named(view, wanted):
            found.append(view)
    found.sort(key=_SORTS[sort], reverse=query.get("desc") == "1")
    now = ask.env.operator.now()
    return {
        "total": total,
        "matched": len(found),
        "classes": sorted(set(ask.env.operator.namespaces.values())),
        "actors": [row(view, now) for view in found[offset : offset + limit]],
    }


def _named(view: ActorView, wanted: str) -> bool:
    return (
        not wanted
        or wanted in (view.id.name or "").lower()
        or wanted in view.id.namespace.lower()
        or str(view.id).startswith(wanted)
    )


def row(view: ActorView, now: float) -> dict[str, Any]:
    """An actor as the console shows it."""
    return {
        "id": str(view.id),
        "class": view.actor_class,
        "namespace": view.id.namespace,
        "name": view.id.name,
        "state": view.state,
        "mailbox": view.mailbox,
        "in_flight": view.in_flight,
        "last_event": view.last_event,
        "last_event_at": None if view.idle_s is None else round(1_000 * (now - view.idle_s)),
        "alarm_at": None if view.alarm_at is None else round(1_000 * view.alarm_at),
        "storage": view.storage,
        "restarts": view.restarts,
        "last_error": view.last_error,
        "sockets": view.sockets,
        "why_awake": list(view.why_awake),
    }


async def actor(ask: Ask) -> dict[str, Any]:
    """One actor; to see its bookmark wakes it, so that is only looked at when `bookmark=1`."""
    found = _find(ask)
    operator = ask.env.operator
    shown = row(operator.actor(found), operator.now()) | {"bookmark": None}
    if ask.request.query_values().get("bookmark") == "1":
        try:
            shown["bookmark"] = await operator.bookmark(found)
        except ActorError as error:
            shown["bookmark_error"] = str(error)
    return shown


async def storage(ask: Ask) -> dict[str, Any]:
    """A page of what an actor stores; to look wakes it."""
    query = ask.request.query_values()
    limit = number(ask.request, "limit", 100, most=ROWS)
    entries = await ask.env.operator.entries(
        _find(ask), prefix=query.get("prefix", ""), after=query.get("after") or None, limit=limit
    )
    shown = [_entry(key, value) for key, value in entries.items()]
    return {"entries": shown, "next": next(reversed(entries)) if len(entries) == limit else None}


def _entry(key: str, value: object) -> dict[str, Any]:
    shown = HIDDEN if key.rpartition("/")[2] == UNSHOWN else _hidden(value)
    text = json.dumps(shown, ensure_ascii=False)
    data = text.encode("utf-8", "replace")
    cut = len(data) > TEXT_BYTES
    return {
        "key": key,
        "bytes": len(data),
        "text": data[:TEXT_BYTES].decode("utf-8", "ignore") if cut else text,
        "cut": cut,
    }


def _hidden(value: object) -> object:
    """The same without what is under the name `secret`."""
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {key: HIDDEN if key == UNSHOWN else _hidden(inner) for key, inner in items}
    if isinstance(value, list):
        return [_hidden(inner) for inner in cast("list[object]", value)]
    return value


async def sql(ask: Ask) -> dict[str, Any]:
    """`{"query": …, "limit": …}`: what a statement that only reads gives."""
    try:
        body = ijson.parse(ask.request.body)
    except ijson.InvalidJson as error:
        raise Invalid(BAD_MESSAGE, str(error)) from None
    query = cast("dict[str, object]", body).get("query") if isinstance(body, dict) else None
    if not isinstance(query, str) or not query.strip() or len(query) > QUERY_BYTES:
        raise Invalid(BAD_MESSAGE, f"query is a statement of at most {QUERY_BYTES:,} characters", at="/query")
    begun = trio.current_time()
    try:
        found = await ask.env.operator.query(_find(ask), query, rows=ROWS)
    except SqlError as error:
        raise Invalid(_REFUSED, str(error), at="/query") from None
    return {
        "columns": list(found.columns),
        "rows": [[value.hex() if isinstance(value, bytes) else value for value in one] for one in found.rows],
        "cut": found.more,
        "ms": round(1_000 * (trio.current_time() - begun), 2),
    }


async def evict(ask: Ask) -> dict[str, Any]:
    """Forget the instance once it is idle."""
    await ask.env.operator.evict(_find(ask))
    return {"done": True}


async def alarm(ask: Ask) -> dict[str, Any]:
    """Run the alarm now."""
    await ask.env.operator.run_alarm(_find(ask))
    return {"done": True}


async def abort(ask: Ask) -> dict[str, Any]:
    """Destroy the instance."""
    ask.env.operator.abort(_find(ask), "aborted by an operator")
    return {"done": True}


def target(request: Request) -> str:
    """What is written down of an actor."""
    return f"{request.params['namespace']}/{request.params['id']}"


def _find(ask: Ask) -> ActorId:
    namespace, text = ask.request.params["namespace"], ask.request.params["id"]
    try:
        return ask.env.operator.find(namespace, text)
    except KeyError:
        known = ", ".join(sorted(ask.env.operator.namespaces))
        raise Invalid(_NO_ACTOR, f"no namespace {namespace[:64]!r}; there are {known}") from None
    except InvalidId as error:
        raise Invalid(BAD_QUERY, str(error)) from None
