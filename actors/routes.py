"""The HTTP side of the service: publish, history, sources, health, and the page with its assets."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import cast

import attrs

from actors.admission import bearer
from actors.env import Env
from actors.history import Unreadable, Wish
from actors.protocol import ijson
from actors.protocol.codes import BAD_MESSAGE, DRAINING, OVERLOADED, RATE_LIMITED, TOO_LARGE, UNAUTHENTICATED, ErrorCode
from actors.protocol.fields import Refused
from actors.signals import Draft, InvalidSignal
from actors.stream import STREAM, shard_name
from runtime import ActorError, Overloaded, Request, Response

POST_SIGNALS = 100  # signals of one request
SIGNAL_BYTES = 65_536  # of a body for each of its signals, beside what the data alone may take
ATTEMPTS = 3
ECHO = "echo"
_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; object-src 'none'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

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
    """The WebSocket: requests go round the shards, past those that send their clients elsewhere."""
    shards = env.settings.shards
    response = Response(DRAINING.code, b"no shard takes clients\n", {"retry-after": "1"})
    for turn in range(shards):
        response = await env.shards.get_by_name(shard_name((request.number + turn) % shards)).fetch(request)
        if response.status != DRAINING.code:
            break
    return response


@only("GET")
async def echo(request: Request, env: Env) -> Response:
    """The echo WebSocket, when test routes are on."""
    if not env.settings.test_routes:
        return Response.text(f"nothing at {request.path}\n", 404)
    return await env.echoes.get_by_name(ECHO).fetch(request)


@only("POST")
async def publish(request: Request, env: Env) -> Response:
    """Publish one signal or an array of at most 100: 201 with epoch and offsets, in order; all or nothing."""
    if (refused := _refused(request, env)) is not None:
        return refused
    try:
        value = ijson.parse(request.body)
    except ijson.InvalidJson as error:
        return _error(BAD_MESSAGE, str(error))
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    if not values:
        return _error(BAD_MESSAGE, "an empty array; send 1 to 100 signals", at="")
    limit = env.settings.limits.data_bytes
    most = len(values) * max(SIGNAL_BYTES, limit + 8_192)
    if len(values) > POST_SIGNALS or len(request.body) > most:
        seen = f"{len(values):,} signals in {len(request.body):,} bytes"
        return _error(TOO_LARGE, f"{seen}; at most {POST_SIGNALS}, and {most // len(values):,} bytes each", at="")
    drafts: list[Draft] = []
    for position, one in enumerate(values):
        try:
            drafts.append(Draft.from_value(one, data_bytes_max=limit))
        except InvalidSignal as error:
            at = f"/{position}{error.at}" if isinstance(value, list) else error.at
            return _error(TOO_LARGE if error.too_large else _INVALID, str(error), at=at)
    return await _published(env, tuple(drafts))


@only("GET")
async def history(request: Request, env: Env) -> Response:
    """A page of what is stored: `filter`, `after`, `limit`, `reverse`, all optional."""
    if (refused := _refused(request, env)) is not None:
        return refused
    try:
        wish = Wish.from_query(request.query_values())
    except Refused as error:
        return _error(error.error, str(error), at=error.at)
    try:
        page = await env.broadcasters.get_by_name(STREAM).read(wish)
    except ActorError as error:
        return _error(OVERLOADED, str(error), headers={"retry-after": "1"})
    if isinstance(page, Unreadable):
        return _error(page.error, page.message, at="/after")
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return Response(200, page.json.encode() + b"\n", headers)


async def _published(env: Env, drafts: tuple[Draft, ...]) -> Response:
    for attempt in range(ATTEMPTS):
        try:
            published = await env.broadcasters.get_by_name(STREAM).publish(drafts)
        except ActorError as error:
            # Only what certainly did not run is repeated: a signal without an id would be stored twice.
            if attempt + 1 < ATTEMPTS and error.retryable:
                continue
            return _error(DRAINING, f"not known to be stored: {error}", headers={"retry-after": "1"})
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
    if (refused := _refused(request, env)) is not None:
        return refused
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
        return _error(ErrorCode(404, "no_webhook"), f"no webhook named {name[:128]!r} is configured")
    try:
        answer = await env.ingests.get_by_name(name).receive(request.headers, request.body)
    except Overloaded as error:
        return _error(RATE_LIMITED, f"too many at once: {error}", headers={"retry-after": "1"})
    except ActorError as error:
        return _error(DRAINING, f"not known to be stored; send it again: {error}", headers={"retry-after": "1"})
    if answer.status == 202:
        return Response.json({"signals": answer.signals}, 202)
    headers = {"retry-after": str(answer.retry_after_s)} if answer.retry_after_s else None
    return _error(ErrorCode(answer.status, _REFUSED.get(answer.status, "bad_signal")), answer.text, headers=headers)


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
    return _file(request, _pages() / "index.html")


@only("GET", "HEAD")
async def asset(request: Request, env: Env) -> Response:
    """What the page is made of."""
    return _file(request, _pages() / request.params["name"])


@only("GET", "HEAD")
async def client_js(request: Request, env: Env) -> Response:
    """The JavaScript client, one module."""
    return _file(request, resources.files("actors.client") / "js" / "client.js")


ROUTES: Mapping[str, Route] = {
    "/": page,
    "/assets/{name}": asset,
    "/client.js": client_js,
    "/healthz": healthz,
    "/readyz": readyz,
    "/v1/history": history,
    "/v1/signals": publish,
    "/v1/sources": sources,
    "/v1/stream": stream,
    "/v1/webhooks/{name}": webhook,
    "/_test/echo": echo,
}

_INVALID = ErrorCode(422, "bad_signal")
_REFUSED = {400: "bad_message", 401: "unauthenticated", 409: "replayed", 413: "too_large", 429: "rate_limited"}


def _pages() -> Traversable:
    return resources.files("actors") / "pages"


def _file(request: Request, file: Traversable) -> Response:
    if file.name.startswith(".") or "/" in file.name or "\\" in file.name or not file.is_file():
        return Response.text(f"nothing at {request.path}\n", 404)
    content = file.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if kind.startswith("text/") or kind in {"application/javascript", "application/json", "image/svg+xml"}:
        kind += "; charset=utf-8"
    headers = {**_PAGE_HEADERS, "content-type": kind, "etag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(304, b"", headers)
    return Response(200, content, headers)


def _refused(request: Request, env: Env) -> Response | None:
    if env.settings.auth.accepts(bearer(request)):
        return None
    message = "send a configured token as `Authorization: Bearer …`"
    return _error(UNAUTHENTICATED, message, headers={"www-authenticate": "Bearer"})


def _error(
    error: ErrorCode, message: str, *, at: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    body: dict[str, object] = {"code": error.code, "slug": error.slug, "msg": message}
    if at is not None:
        body["at"] = at
    return Response.json(body, error.code, headers)
