"""The HTTP side of the service: publish, history, sources, health, and the page with its assets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import cast

import attrs

from actors.authentication import bearer, token_in_url
from actors.env import Env
from actors.error_response import error_response
from actors.event_source import later
from actors.files import file_response
from actors.history import Unreadable, Wish
from actors.principal import NotAccepted, Principal
from actors.protocol import ijson
from actors.protocol.codes import (
    BAD_MESSAGE,
    DRAINING,
    FORBIDDEN,
    OVERLOADED,
    RATE_LIMITED,
    TOO_LARGE,
    UNAUTHENTICATED,
    ErrorCode,
)
from actors.protocol.fields import Refused
from actors.signals import Draft, InvalidSignal
from actors.stream import STREAM, shard_name
from actors.tickets import OUTSTANDING_OF_ONE, TICKET_S, TICKETS
from runtime import ActorError, Overloaded, Request, Response

POST_SIGNALS = 100  # signals of one request
SIGNAL_BYTES = 65_536  # of a body for each of its signals, beside what the data alone may take
ATTEMPTS = 3
ECHO = "echo"
Route = Callable[[Request, Env], Awaitable[Response]]


def only(*methods: str) -> Callable[[Route], Route]:
    """A route for these methods; any other is answered with 405 and `Allow`."""

    def decorate(route: Route) -> Route:
        async def checked(request: Request, env: Env) -> Response:
            if request.method not in methods:
                return Response(
                    405,
                    f"{request.method} is not allowed here; {', '.join(methods)} is\n".encode(),
                    {"allow": ", ".join(methods), "content-type": "text/plain; charset=utf-8"},
                )
            return await route(request, env)

        return checked

    return decorate


@only("GET")
async def stream(request: Request, env: Env) -> Response:
    """The WebSocket: requests go round the stream's shards, past those that send their clients elsewhere."""
    name = _stream(request, env)
    if isinstance(name, Response):
        return name
    shards = env.settings.shards
    response = Response(DRAINING.code, b"no shard takes clients\n", {"retry-after": "1"})
    for turn in range(shards):
        shard = env.shards.get_by_name(shard_name((request.number + turn) % shards, name))
        response = await shard.fetch(request)
        if response.status != DRAINING.code:
            break
    return response


@only("GET")
async def events(request: Request, env: Env) -> Response:
    """Server-sent events: `filter`, `from`, `last_event_id`, `on_gap`, `mode`, `min_ms`, `ticket`, all optional."""
    if (refused := _token_refused(request)) is not None:
        return refused
    response = later(request, await stream(request, env))
    if "origin" not in request.headers:
        return response
    # Only allowed origins come this far.
    allowed = {"access-control-allow-origin": request.headers["origin"], "vary": "origin"}
    return attrs.evolve(response, headers={**response.headers, **allowed})


@only("POST")
async def tickets(request: Request, env: Env) -> Response:
    """A ticket for who reads server-sent events and can set no header: for one connection, at once."""
    principal = await _principal(request, env)
    if isinstance(principal, Response):
        return principal
    try:
        issued = await env.tickets.get_by_name(TICKETS).issue(principal, principal.user or request.peer)
    except ActorError as error:
        return error_response(OVERLOADED, f"no tickets now: {error}", headers={"retry-after": "1"})
    if issued is None:
        message = f"{OUTSTANDING_OF_ONE} tickets of yours, or too many of everybody, were not used yet"
        return error_response(RATE_LIMITED, message, headers={"retry-after": f"{TICKET_S:.0f}"})
    body = {"ticket": issued.text, "expires_ms": issued.expires_ms}
    return Response.json(body, 201, {"cache-control": "no-store"})


@only("GET")
async def echo(request: Request, env: Env) -> Response:
    """The echo WebSocket, when test routes are on."""
    if not env.settings.test_routes:
        return Response.text(f"nothing at {request.path}\n", 404)
    return await env.echoes.get_by_name(ECHO).fetch(request)


@only("POST")
async def publish(request: Request, env: Env) -> Response:
    """Publish one signal or an array of at most 100: 201 with epoch and offsets, in order; all or nothing."""
    principal = await _principal(request, env)
    return principal if isinstance(principal, Response) else await publish_as(principal, request, env)


async def publish_as(principal: Principal, request: Request, env: Env) -> Response:
    """The same for somebody who is known."""
    name = _stream(request, env)
    if isinstance(name, Response):
        return name
    try:
        value = ijson.parse(request.body)
    except ijson.InvalidJson as error:
        return error_response(BAD_MESSAGE, str(error))
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    if not values:
        return error_response(BAD_MESSAGE, "an empty array; send 1 to 100 signals", at="")
    limit = env.settings.limits.data_bytes
    most = len(values) * max(SIGNAL_BYTES, limit + 8_192)
    if len(values) > POST_SIGNALS or len(request.body) > most:
        seen = f"{len(values):,} signals in {len(request.body):,} bytes"
        return error_response(
            TOO_LARGE, f"{seen}; at most {POST_SIGNALS}, and {most // len(values):,} bytes each", at=""
        )
    drafts: list[Draft] = []
    for position, one in enumerate(values):
        try:
            draft = Draft.from_value(one, data_bytes_max=limit)
        except InvalidSignal as error:
            at = f"/{position}{error.at}" if isinstance(value, list) else error.at
            return error_response(TOO_LARGE if error.too_large else _INVALID, str(error), at=at)
        if not principal.capability.may_publish(draft.type):
            at = f"/{position}/type" if isinstance(value, list) else "/type"
            return error_response(FORBIDDEN, f"the token does not allow to publish {draft.type!r}", at=at)
        drafts.append(draft)
    return await _published(env, name, tuple(drafts))


@only("GET")
async def history(request: Request, env: Env) -> Response:
    """A page of what is stored: `filter`, `after`, `limit`, `reverse`, all optional."""
    principal = await _principal(request, env)
    return principal if isinstance(principal, Response) else await history_as(principal, request, env)


async def history_as(principal: Principal, request: Request, env: Env) -> Response:
    """The same for somebody who is known."""
    name = _stream(request, env)
    if isinstance(name, Response):
        return name
    try:
        wish = Wish.from_query(request.query_values(), principal.capability)
    except Refused as error:
        return error_response(error.error, str(error), at=error.at)
    try:
        page = await env.broadcasters.get_by_name(name).read(wish)
    except ActorError as error:
        return error_response(OVERLOADED, str(error), headers={"retry-after": "1"})
    if isinstance(page, Unreadable):
        return error_response(page.error, page.message, at="/after")
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return Response(200, page.json.encode() + b"\n", headers)


async def _published(env: Env, name: str, drafts: tuple[Draft, ...]) -> Response:
    for attempt in range(ATTEMPTS):
        try:
            published = await env.broadcasters.get_by_name(name).publish(drafts)
        except ActorError as error:
            # Only what certainly did not run is repeated: a signal without an id would be stored twice.
            if attempt + 1 < ATTEMPTS and error.retryable:
                continue
            return error_response(DRAINING, f"not known to be stored: {error}", headers={"retry-after": "1"})
        return Response.json(
            {
                "epoch": published.epoch,
                "offsets": [receipt.offset for receipt in published.receipts],
                "dup": [receipt.dup for receipt in published.receipts],
            },
            201,
        )
    raise AssertionError


@only("GET")
async def sources(request: Request, env: Env) -> Response:
    """Every configured source: when it ran, when it runs next, what it gave."""
    principal = await _principal(request, env)
    if isinstance(principal, Response):
        return principal
    if not principal.capability.admin:
        return error_response(FORBIDDEN, "the token does not allow to see the sources")
    calls = [env.ingests.get_by_name(one.name).status() for one in env.settings.active_sources()]
    found = [status for call in calls if (status := await call) is not None]
    return Response.json(
        {
            "sources": [
                {"name": one.name, "kind": one.kind, "schedule": one.schedule, "next": one.next}
                | attrs.asdict(one.state)
                for one in found
            ]
        }
    )


@only("POST")
async def webhook(request: Request, env: Env) -> Response:
    """Take what a configured sender posts: 202 once it is stored, and again whenever the same delivery comes."""
    name = request.params["name"]
    if not any(one.name == name and one.kind == "webhook" for one in env.settings.active_sources()):
        return error_response(ErrorCode(404, "no_webhook"), f"no webhook named {name[:128]!r} is configured")
    try:
        answer = await env.ingests.get_by_name(name).receive(request.headers, request.body)
    except Overloaded as error:
        return error_response(RATE_LIMITED, f"too many at once: {error}", headers={"retry-after": "1"})
    except ActorError as error:
        return error_response(DRAINING, f"not known to be stored; send it again: {error}", headers={"retry-after": "1"})
    if answer.status == 202:
        return Response.json({"signals": answer.signals}, 202)
    headers = {"retry-after": str(answer.retry_after_s)} if answer.retry_after_s else None
    return error_response(
        ErrorCode(answer.status, _REFUSED.get(answer.status, "bad_signal")), answer.text, headers=headers
    )


@only("GET", "HEAD")
async def healthz(request: Request, env: Env) -> Response:
    """The process answers."""
    return Response.text("ok\n")


@only("GET", "HEAD")
async def readyz(request: Request, env: Env) -> Response:
    """The stream answers."""
    try:
        bounds = await env.broadcasters.get_by_name(STREAM).bounds()
    except ActorError as error:
        return Response.text(f"the stream does not answer: {error}\n", 503)
    return Response.json({"epoch": bounds.epoch, "head": bounds.head, "oldest": bounds.oldest})


@only("GET", "HEAD")
async def page(request: Request, env: Env) -> Response:
    """The page that shows signals live."""
    return file_response(request, _pages() / "index.html")


@only("GET", "HEAD")
async def asset(request: Request, env: Env) -> Response:
    """What the page is made of."""
    return file_response(request, _pages() / request.params["name"])


@only("GET", "HEAD")
async def client_js(request: Request, env: Env) -> Response:
    """The JavaScript client, one module, as it is published."""
    return file_response(request, resources.files("actors.client") / "js" / "dist" / "heliograph.js")


ROUTES: Mapping[str, Route] = {
    "/": page,
    "/assets/{name}": asset,
    "/client.js": client_js,
    "/healthz": healthz,
    "/readyz": readyz,
    "/v1/history": history,
    "/v1/signals": publish,
    "/v1/sources": sources,
    "/v1/sse": events,
    "/v1/stream": stream,
    "/v1/streams/{name}": stream,
    "/v1/streams/{name}/history": history,
    "/v1/streams/{name}/signals": publish,
    "/v1/streams/{name}/sse": events,
    "/v1/tickets": tickets,
    "/v1/webhooks/{name}": webhook,
    "/_test/echo": echo,
}

_INVALID = ErrorCode(422, "bad_signal")
_REFUSED = {400: "bad_message", 401: "unauthenticated", 409: "replayed", 413: "too_large", 429: "rate_limited"}


def _pages() -> Traversable:
    return resources.files("actors") / "pages"


async def _principal(request: Request, env: Env) -> Principal | Response:
    """Who asks; or the answer to somebody who is not let in."""
    if (refused := _token_refused(request)) is not None:
        return refused
    try:
        principal = await env.authenticator.principal(bearer(request))
    except ActorError as error:
        return error_response(OVERLOADED, f"tokens cannot be checked now: {error}", headers={"retry-after": "1"})
    if isinstance(principal, NotAccepted):
        message = f"{principal.told}; send one that lets in as `Authorization: Bearer …`"
        return error_response(UNAUTHENTICATED, message, headers={"www-authenticate": "Bearer"})
    return principal


def _token_refused(request: Request) -> Response | None:
    """The answer to somebody who has a token in the URL."""
    if (name := token_in_url(request)) is None:
        return None
    message = f"{name} in the URL would end in logs; the token belongs into `Authorization: Bearer …`"
    return error_response(BAD_MESSAGE, message, at=f"/{name}")


def _stream(request: Request, env: Env) -> str | Response:
    """The stream that a request is about; a 404 when there is none of its name."""
    name = request.params.get("name", STREAM)
    if name in env.settings.stream_names:
        return name
    message = f"no stream named {name[:64]!r} is configured; `streams` in heliograph.toml has the names"
    return error_response(ErrorCode(404, "no_stream"), message)
