"""From what a person types (`localhost:8787`, `https://host/base`) to the address of the stream."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import attrs

from actors.client.errors import InvalidUrl
from actors.stream import is_stream_name

DEFAULT_URL = "http://127.0.0.1:8787"

_PATH = re.compile(r"/v1/(?:stream|streams/([^/]+))$")
_TLS = {"ws": False, "http": False, "wss": True, "https": True}


@attrs.frozen
class Address:
    """Where the stream is.

    Attributes:
        host: a name or an IP address, without brackets.
        resource: path and query of the stream.
        tls: encrypted.
        stream: its name; None for the one that has none in its path.
    """

    host: str
    port: int
    resource: str
    tls: bool
    stream: str | None = None

    @classmethod
    def parse(cls, url: str, stream: str | None = None) -> Address:
        """Read `ws:`, `wss:`, `http:`, `https:` or a bare `host:port`.

        Args:
            url: `/v1/stream` is added, unless that or `/v1/streams/NAME` is there.
            stream: the name of the stream, whatever the URL says.

        Raises: InvalidUrl.
        """
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise InvalidUrl(f"{url!r}: {error}") from None
        if parts.scheme not in _TLS or not host or parts.fragment or parts.username is not None:
            raise InvalidUrl(f"{url!r} is no address; use http(s)://HOST:PORT, ws(s)://HOST:PORT or HOST:PORT")
        tls = _TLS[parts.scheme]
        path = parts.path.rstrip("/")
        found = _PATH.search(path)
        if stream is None:
            stream = found[1] if found else None
        elif not is_stream_name(stream):
            raise InvalidUrl(f"stream is {stream!r}; it is 1–64 of A-Z a-z 0-9 _ -")
        base = path[: found.start()] if found else path
        resource = f"{base}/v1/stream" if stream is None else f"{base}/v1/streams/{stream}"
        if parts.query:
            resource += f"?{parts.query}"
        return cls(host, port or (443 if tls else 80), resource, tls, stream)

    @property
    def host_header(self) -> str:
        """The value of the `Host` header: brackets around IPv6, the port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://{self.host_header}{self.resource}"
