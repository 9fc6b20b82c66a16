"""A polite GET: conditional, bounded, redirected with care, and leaving a server alone when it asks for that."""

from __future__ import annotations

import logging
import math
import re
import ssl
from collections.abc import Mapping
from contextlib import aclosing
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import attrs
import httpx

from actors.ingest.options import Options
from actors.ingest.source import InvalidOptions, SourceFailed, World
from runtime import Secret

REDIRECTS_MAX = 5
BODY_BYTES = 8 * 1024 * 1024
SHOWN_CHARACTERS = 200
USER_AGENT = f"heliograph/{version('heliograph')}"

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_REDIRECTS = (301, 302, 303, 307, 308)
_LATER = (429, 503)

# It says every URL at level INFO, and a URL may have a key in its query.
logging.getLogger("httpx").setLevel(logging.WARNING)


@attrs.frozen(kw_only=True)
class Validators:
    """What a server gave with its last answer, by which it recognises that nothing has changed."""

    etag: str = ""
    modified: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """For the next request."""
        named = {"if-none-match": self.etag, "if-modified-since": self.modified}
        return {name: value for name, value in named.items() if value}


@attrs.frozen(kw_only=True)
class Fetched:
    """An answer.

    Attributes:
        body: None when nothing has changed.
        pause_s: how long the server wants to be left alone.
    """

    body: bytes | None
    content_type: str
    validators: Validators
    pause_s: float


@attrs.define(eq=False)
class Getter:
    """Asks one URL. Its connection ends with each answer, so that nothing is held between two polls.

    Args:
        headers: sent to this origin only. body_bytes: beyond that an answer is refused.
        timeout_s: for each step of connecting, sending and receiving.
        transport: where requests go; the network when None.
    """

    world: World
    url: str
    headers: Mapping[str, Secret]
    body_bytes: int
    timeout_s: float
    transport: httpx.AsyncBaseTransport | None = None
    _ssl: ssl.SSLContext | None = attrs.field(default=None, init=False)

    @classmethod
    def of(cls, options: Options, world: World, transport: httpx.AsyncBaseTransport | None) -> Getter:
        """Read `url`, `headers`, `body_bytes` and `step_timeout_s`. Raises: InvalidOptions."""
        url = options.secret("url").value
        parsed = _url(url)
        if parsed is None or parsed.scheme not in ("http", "https") or not parsed.host:
            raise InvalidOptions("options.url must be an http: or https: address")  # not shown: it may have a key
        headers = options.secret_table("headers")
        for name, value in headers.items():
            if _HEADER_NAME.fullmatch(name) is None or not (value.value.isascii() and value.value.isprintable()):
                raise InvalidOptions(f"options.headers: {name!r} and its value are no HTTP header")
        return cls(
            world,
            url,
            headers,
            options.whole("body_bytes", BODY_BYTES, 1, 64 * 1024 * 1024),
            options.number("step_timeout_s", 10, 0.1, 300),
            transport,
        )

    async def get(self, validators: Validators, accept: str) -> Fetched:
        """Ask. Raises: SourceFailed."""
        try:
            async with await self._client() as client:
                return await self._follow(client, validators, accept)
        except httpx.HTTPError as error:
            raise SourceFailed(f"{self._shown}: {type(error).__name__} {error}".rstrip()) from None

    @property
    def _shown(self) -> str:
        return _without_secrets(httpx.URL(self.url))

    async def _client(self) -> httpx.AsyncClient:
        if self.transport is not None:
            return httpx.AsyncClient(transport=self.transport)
        context = self._ssl
        if context is None:  # reads a file of certificates; also for http:, which may redirect to https:
            context = self._ssl = await self.world.run_blocking(httpx.create_ssl_context)
        return httpx.AsyncClient(timeout=self.timeout_s, verify=context)

    async def _follow(self, client: httpx.AsyncClient, validators: Validators, accept: str) -> Fetched:
        first = url = httpx.URL(self.url)
        for _ in range(REDIRECTS_MAX + 1):
            headers = {"accept": accept, "user-agent": USER_AGENT, **validators.headers}
            if _origin(url) == _origin(first):  # a key for one server is not shown to another
                headers |= {name: value.value for name, value in self.headers.items()}
            async with client.stream("GET", url, headers=headers, follow_redirects=False) as response:
                if response.status_code not in _REDIRECTS or "location" not in response.headers:
                    return await self._answer(response)
                target = url.join(response.headers["location"])
            if target.scheme not in ("http", "https") or (url.scheme == "https" and target.scheme == "http"):
                raise SourceFailed(f"{_without_secrets(url)} redirects to {_without_secrets(target)}: not followed")
            url = target
        raise SourceFailed(f"{self._shown} redirects more than {REDIRECTS_MAX} times")

    async def _answer(self, response: httpx.Response) -> Fetched:
        pause_s = _pause_s(response.headers, self.world.now())
        validators = Validators(
            etag=response.headers.get("etag", ""), modified=response.headers.get("last-modified", "")
        )
        content_type = response.headers.get("content-type", "")
        if response.status_code == HTTPStatus.NOT_MODIFIED:
            return Fetched(body=None, content_type=content_type, validators=validators, pause_s=pause_s)
        if response.status_code != HTTPStatus.OK:
            body = await self._read(response, SHOWN_CHARACTERS * 4, cut=True)
            text = " ".join(body.decode(errors="replace").split())[:SHOWN_CHARACTERS]
            limited = response.status_code in _LATER or (response.status_code == HTTPStatus.FORBIDDEN and pause_s)
            raise SourceFailed(
                f"{self._shown} answered {response.status_code}" + (f": {text}" if text else ""),
                retry_s=pause_s if limited and pause_s else None,
            )
        body = await self._read(response, self.body_bytes)
        return Fetched(body=body, content_type=content_type, validators=validators, pause_s=pause_s)

    async def _read(self, response: httpx.Response, most: int, *, cut: bool = False) -> bytes:
        body = bytearray()
        chunks: Any = response.aiter_bytes(65_536)  # a generator, though its type does not say so
        async with aclosing(chunks):
            async for chunk in chunks:
                body += chunk
                if len(body) > most:
                    if cut:
                        break
                    raise SourceFailed(f"{self._shown} sent more than {most:,} bytes; raise options.body_bytes")
        return bytes(body)


def _pause_s(headers: Mapping[str, str], now: float) -> float:
    """What `Retry-After` and the common rate limit headers ask for."""
    found = [_retry_after_s(headers.get("retry-after", ""), now)]
    for prefix in ("x-ratelimit-", "x-rate-limit-", "ratelimit-"):
        if _number(headers.get(f"{prefix}remaining", "")) == 0:
            reset = _number(headers.get(f"{prefix}reset", ""))
            # Seconds to wait, or a time: no window is as long as the time since 1970.
            found.append(reset - now if reset > 1e9 else reset)
    return max(0.0, *found)


def _retry_after_s(text: str, now: float) -> float:
    if not text:
        return 0.0
    seconds = _number(text)
    if seconds > 0:
        return seconds
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now


def _number(text: str) -> float:
    """A header's number; -1 when it is none."""
    try:
        value = float(text.partition(",")[0].strip())
    except ValueError:
        return -1.0
    return value if math.isfinite(value) else -1.0


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return (url.scheme, url.host, url.port)


def _url(text: str) -> httpx.URL | None:
    try:
        return httpx.URL(text)
    except httpx.InvalidURL:
        return None


def _without_secrets(url: httpx.URL) -> str:
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))
