"""The console over HTTP: its API, and the way to its streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, TypeVar

import attrs

from actors.console import (
    access,
    actor_routes,
    analytics_routes,
    connection_routes,
    fault_routes,
    page_routes,
    subscription_routes,
    trace_routes,
)
from actors.console.access import OperatorName
from actors.console.answers import LOGIN_REQUIRED, LOOPBACK_ONLY, NAME, NO_STREAM, NOT_MEANT, Ask, Invalid, number
from actors.console.console import source_json
from actors.console.sessions import NotSignedIn
from actors.env import Env
from actors.error_response import error_response
from actors.loopback import is_local
from actors.principal import EVERYTHING, Principal
from actors.protocol import ijson
from actors.protocol.codes import BAD_MESSAGE, DRAINING, OVERLOADED, RATE_LIMITED, TOO_LARGE, UNAUTHENTICATED, ErrorCode
from actors.routes import history_as, publish_as
from actors.stream import CONSOLE_STREAM, shard_name
from actors.tickets import TICKETS
from runtime import ActorError, Request, Response

T = TypeVar("T")

OPERATOR = Principal(user="operator", capability=EVERYTHING)
PAGES = ("overview", "actors", "connections", "subscriptions", "signals", "ingest", "analytics", "faults", "audit")
AUDIT_ROWS = 200
SERIES_MINUTES = 60
SIGN_IN_BYTES = 16_384  # a password of 1,024 characters, each of them escaped
_HEADERS = {"cache-control": "no-store"}
_NO_SOURCE = ErrorCode(404, "no_source")
_NOT_NOW = ErrorCode(409, "not_now")

Answering = Callable[[Ask], Awaitable[Any]]
Route = Callable[[Request, Env], Awaitable[Response]]


def off(request: Request) -> Response:
    """What is said of the console where there is none."""
    return Response.text(f"nothing at {request.path}\n", 404)


async def let_in(request: Request, env: Env) -> OperatorName | Response:
    """Who asks, or what is said to somebody who may not."""
    if not env.settings.console.enabled:
        return off(request)
    if not env.settings.console.passwords:
        if is_local(request):
            return OperatorName("local", request.peer)
        message = (
            "without a password the console answers only requests of this machine that no proxy has passed on; "
            "set console.passwords in heliograph.toml to use it from elsewhere"
        )
        return error_response(LOOPBACK_ONLY, message, headers=_HEADERS)
    session = access.shown_session(request)
    name = None if session is None else await env.consoles.get_by_name(NAME).session_name(session)
    if name is None:
        return error_response(LOGIN_REQUIRED, "sign in with the console's password", headers=_HEADERS)
    return OperatorName("password", request.peer, name)


def reading(answer: Answering, *, method: str = "GET") -> Route:
    """A route that changes nothing, and whose answer is JSON; one for `POST` has to be meant all the same."""

    async def route(request: Request, env: Env) -> Response:
        if request.method != method:
            return _method(request, method)
        try:
            who = await let_in(request, env)
            if isinstance(who, Response):
                return who
            if method != "GET" and not access.changes_safely(request):
                return _not_meant()
            value = await answer(Ask(request=request, env=env, who=who))
        except Invalid as error:
            return error_response(error.code, str(error), at=error.at, headers=_HEADERS)
        except ActorError as error:
            return error_response(OVERLOADED, str(error), headers={**_HEADERS, "retry-after": "1"})
        return value if isinstance(value, Response) else Response.json(value, headers=_HEADERS)

    return route


def doing(what: str, target: Callable[[Request], str], act: Answering) -> Route:
    """A route for `POST` that changes something: meant by an operator, and written down with what came of it."""

    async def route(request: Request, env: Env) -> Response:
        if request.method != "POST":
            return _method(request, "POST")
        try:
            who = await let_in(request, env)
        except ActorError as error:
            return error_response(OVERLOADED, str(error), headers={**_HEADERS, "retry-after": "1"})
        if isinstance(who, Response):
            return who
        if not access.changes_safely(request):
            return _not_meant()
        try:
            value = await act(Ask(request=request, env=env, who=who))
        except Invalid as error:
            value = error_response(error.code, str(error), at=error.at, headers=_HEADERS)
        except ActorError as error:
            value = error_response(_NOT_NOW, str(error), headers=_HEADERS)
        except Exception as error:  # noqa: BLE001 - of an actor, which its operator is to see
            value = error_response(_NOT_NOW, f"{type(error).__name__}: {error}", headers=_HEADERS)
        answer = value if isinstance(value, Response) else Response.json(value, headers=_HEADERS)
        try:
            await env.consoles.get_by_name(NAME).note(who, what, target(request), _result(answer))
        except ActorError as error:
            return error_response(DRAINING, f"done, and not in the audit log: {error}", headers=_HEADERS)
        return answer

    return route


def by_method(**routes: Route) -> Route:
    """A route for each of some methods."""

    async def route(request: Request, env: Env) -> Response:
        found = routes.get(request.method)
        return _method(request, ", ".join(routes)) if found is None else await found(request, env)

    return route


def _result(answer: Response) -> str:
    if answer.status < 300:
        return "done"
    try:
        return str(ijson.parse(answer.body)["msg"])  # type: ignore[index]  # an error of ours
    except (ijson.InvalidJson, KeyError, TypeError):
        return f"status {answer.status}"


def _method(request: Request, allowed: str) -> Response:
    return Response(405, f"{request.method} is not allowed here; {allowed} is\n".encode(), {"allow": allowed})


def _not_meant() -> Response:
    message = f"a request that changes something has the header `{access.HEADER}: 1`, and comes from the console's page"
    return error_response(NOT_MEANT, message, headers=_HEADERS)


# Who is in.


async def sign_in(request: Request, env: Env) -> Response:
    """`{"password": …}`: 204 and a cookie."""
    settings = env.settings.console
    if not settings.enabled or not settings.passwords:
        return off(request)
    if request.method != "POST":
        return _method(request, "POST")
    if not access.changes_safely(request):
        return _not_meant()
    if len(request.body) > SIGN_IN_BYTES:  # strangers send these: what they cost is bounded before they are read
        message = f"the request has {len(request.body):,} bytes; at most {SIGN_IN_BYTES:,}"
        return error_response(TOO_LARGE, message, headers=_HEADERS)
    try:
        value = ijson.parse(request.body)
    except ijson.InvalidJson as error:
        return error_response(BAD_MESSAGE, str(error), headers=_HEADERS)
    password = value.get("password") if isinstance(value, dict) else None
    if not isinstance(password, str):
        return error_response(BAD_MESSAGE, "password is missing", at="/password", headers=_HEADERS)
    try:
        answer = await env.consoles.get_by_name(NAME).sign_in(password, request.peer)
    except ActorError as error:
        return error_response(OVERLOADED, str(error), headers={**_HEADERS, "retry-after": "1"})
    if isinstance(answer, NotSignedIn):
        if answer.wait_s:
            headers = {**_HEADERS, "retry-after": str(answer.wait_s)}
            return error_response(RATE_LIMITED, f"too many wrong passwords; try in {answer.wait_s} s", headers=headers)
        return error_response(UNAUTHENTICATED, "the password is wrong", headers=_HEADERS)
    secure = request.headers.get("origin", "").startswith("https:")
    shown = access.cookie(answer.session, settings.session_s, secure=secure)
    return Response(204, b"", {**_HEADERS, "set-cookie": shown})


async def sign_out(ask: Ask) -> Response:
    """The session ends."""
    session = access.shown_session(ask.request)
    if session is not None:
        await ask.console.sign_out(session)
    return Response(204, b"", {**_HEADERS, "set-cookie": access.cookie("", 0, secure=False)})


async def session(ask: Ask) -> dict[str, Any]:
    """Who asks, and what there is."""
    await ask.console.watch()
    has_faults = ask.env.operator.faults is not None
    there = {"analytics": ask.env.settings.console.has_analytics, "faults": has_faults}
    return {
        "operator": ask.who.kind,
        "faults": has_faults,
        "version": version("heliograph"),
        "streams": list(ask.env.settings.stream_names),
        "started": round(1_000 * ask.env.operator.started),
        "pages": [name for name in PAGES if there.get(name, True)],
    }


# What the server does.


async def series(ask: Ask) -> dict[str, Any]:
    """The last minutes of the overview."""
    minutes = number(ask.request, "minutes", 15, most=SERIES_MINUTES)
    found: dict[str, Any] = await ask.console.series(minutes)
    return found


async def audit(ask: Ask) -> dict[str, Any]:
    """The audit log, the newest first."""
    offset = number(ask.request, "offset", 0, least=0, most=1_000_000)
    limit = number(ask.request, "limit", 100, most=AUDIT_ROWS)
    total, entries = await ask.console.entries(offset, limit)
    return {"total": total, "entries": [attrs.asdict(one) | {"at": round(1_000 * one.at)} for one in entries]}


async def ingest(ask: Ask) -> dict[str, Any]:
    """Every source."""
    calls = [ask.env.ingests.get_by_name(one.name).status() for one in ask.env.settings.active_sources()]
    return {"sources": [source_json(status) for call in calls if (status := await call) is not None]}


def _source(deed: str) -> Answering:
    async def act(ask: Ask) -> dict[str, Any]:
        name = ask.request.params["name"]
        if not any(one.name == name for one in ask.env.settings.active_sources()):
            raise Invalid(_NO_SOURCE, f"no source named {name[:128]!r} is configured")
        source = ask.env.ingests.get_by_name(name)
        done = await {"run": source.run_now, "pause": source.pause, "resume": source.resume}[deed]()
        if not done:
            raise Invalid(_NOT_NOW, f"{name!r} is paused, or has no schedule: it cannot {deed} now")
        return {"done": True}

    return act


async def publish(ask: Ask) -> Response:
    """A test signal."""
    return await publish_as(OPERATOR, _of_stream(ask.request), ask.env)


async def history(ask: Ask) -> Response:
    """What is stored."""
    return await history_as(OPERATOR, _of_stream(ask.request), ask.env)


def _of_stream(request: Request) -> Request:
    name = request.query_values().get("stream")
    return request if name is None else attrs.evolve(request, params={"name": name})


# Streams.


async def live(request: Request, env: Env) -> Response:
    """The hidden stream, with what every viewer sees."""
    return await _socket(request, env, CONSOLE_STREAM, 1)


async def stream(request: Request, env: Env) -> Response:
    """A stream of the service, with the operator's rights."""
    name = request.params["name"]
    if name not in env.settings.stream_names:
        return error_response(NO_STREAM, f"no stream named {name[:64]!r} is configured")
    return await _socket(request, env, name, env.settings.shards)


async def _socket(request: Request, env: Env, name: str, shards: int) -> Response:
    if request.method != "GET":
        return _method(request, "GET")
    try:
        who = await let_in(request, env)
        if isinstance(who, Response):
            return who
        if access.is_from_elsewhere(request):
            return _not_meant()
        if name == CONSOLE_STREAM:
            await env.consoles.get_by_name(NAME).watch()
        ticket = await env.tickets.get_by_name(TICKETS).issue(OPERATOR, f"console {who.peer}")
        if ticket is None:
            return error_response(RATE_LIMITED, "too many connections at once", headers={"retry-after": "1"})
        shown = attrs.evolve(request, headers={**request.headers, "authorization": f"Ticket {ticket.text}"})
        shard = env.shards.get_by_name(shard_name(request.number % shards, name))
        return await shard.fetch(shown)
    except ActorError as error:
        return error_response(OVERLOADED, str(error), headers={"retry-after": "1"})


def _named(request: Request) -> str:
    return request.params["name"]


def _nothing(request: Request) -> str:
    return ""


def _query(request: Request) -> str:
    return request.query_values().get("stream", "main")


CONSOLE_ROUTES: Mapping[str, Route] = {
    "/console": page_routes.entrance,
    "/console/": page_routes.page,
    "/console/assets/{name}": page_routes.asset,
    "/console/stream": live,
    "/console/streams/{name}": stream,
    "/console/api/login": sign_in,
    "/console/api/logout": doing("sign out", _nothing, sign_out),
    "/console/api/session": reading(session),
    "/console/api/overview/series": reading(series),
    "/console/api/audit": reading(audit),
    "/console/api/ingest": reading(ingest),
    **{
        f"/console/api/ingest/{{name}}/{deed}": doing(f"{deed} source", _named, _source(deed))
        for deed in ("run", "pause", "resume")
    },
    "/console/api/history": reading(history),
    "/console/api/publish": doing("publish", _query, publish),
    "/console/api/actors": reading(actor_routes.actors),
    "/console/api/actors/{namespace}/{id}": reading(actor_routes.actor),
    "/console/api/actors/{namespace}/{id}/storage": reading(actor_routes.storage),
    "/console/api/actors/{namespace}/{id}/sql": doing("read by SQL", actor_routes.target, actor_routes.sql),
    "/console/api/actors/{namespace}/{id}/evict": doing("evict", actor_routes.target, actor_routes.evict),
    "/console/api/actors/{namespace}/{id}/alarm": doing("run alarm", actor_routes.target, actor_routes.alarm),
    "/console/api/actors/{namespace}/{id}/abort": doing("abort", actor_routes.target, actor_routes.abort),
    "/console/api/trace/{name}": reading(trace_routes.watch),
    "/console/api/trace/{name}/{offset}": reading(trace_routes.trace),
    "/console/api/analytics": reading(analytics_routes.analytics),
    "/console/api/analytics.csv": reading(analytics_routes.table),
    "/console/api/faults": by_method(
        GET=reading(fault_routes.faults),
        POST=doing("inject fault", fault_routes.target, fault_routes.inject),
    ),
    "/console/api/faults/{id}/end": doing("end fault", fault_routes.target, fault_routes.end),
    "/console/api/subscriptions": reading(subscription_routes.subscriptions),
    "/console/api/explain": reading(subscription_routes.explain, method="POST"),
    "/console/api/connections": reading(connection_routes.connections),
    "/console/api/connections/{name}/{session}": reading(connection_routes.connection),
    "/console/api/connections/{name}/{session}/close": doing(
        "close connection", connection_routes.target, connection_routes.close
    ),
    "/console/api/connections/{name}/{session}/goaway": doing(
        "send away", connection_routes.target, connection_routes.send_away
    ),
}
