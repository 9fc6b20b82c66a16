"""From what a person types (`localhost:8787`, `https://host/base`) to the address of the stream."""

from __future__ import annotations

from urllib.parse import urlsplit

import attrs

from actors.client.errors import InvalidUrl

DEFAULT_URL = "http://127.0.0.1:8787"

_PATH = "/v1/stream"
_TLS = {"ws": False, "http": False, "wss": True, "https": True}


@attrs.frozen
class Address:
    """Where the stream is.

    Attributes:
        host: a name or an IP address, without brackets.
        resource: path and query of the stream.
        tls: encrypted.
    """

    host: str
    port: int
    resource: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `ws:`, `wss:`, `http:`, `https:` or a bare `host:port`; `/v1/stream` is added unless it is there.

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
        resource = path if path.endswith(_PATH) else path + _PATH
        if parts.query:
            resource += f"?{parts.query}"
        return cls(host, port or (443 if tls else 80), resource, tls)

    @property
    def host_header(self) -> str:
        """The value of the `Host` header: brackets around IPv6, the port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://{self.host_header}{self.resource}"
