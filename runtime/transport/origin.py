"""Who may call: the allow lists of `Host` and `Origin`, checked on every route.

`Origin` alone falls to DNS rebinding: a page of an attacker's name that resolves to 127.0.0.1 is its own origin. The
`Host` header still carries that name, so it must be one of ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from runtime.actor.http import Response

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def refusal(
    headers: Mapping[str, str],
    *,
    hosts: Collection[str],
    origins: Collection[str],
    forwarded_host: str | None = None,
    encrypted: bool = False,
) -> Response | None:
    """The answer to a request that may not be served here, or None when it may.

    Args:
        headers: the request's, with lower-case names.
        hosts: allowed names beside the loopback ones, each with or without a port.
        origins: allowed origins beside the server's own.
        forwarded_host: the name that a client called a proxy by. Both are checked: a page may set the header that
            carries this one, but not `Host`.
        encrypted: the client speaks TLS, so that its own origin is `https`.
    """
    host = headers.get("host", "").lower()
    for called in (host, *([] if forwarded_host is None else [forwarded_host.lower()])):
        name, _ = _split_port(called)
        if name not in LOOPBACK_NAMES and name not in hosts and called not in hosts:
            return Response.text(
                f"Host {called!r} is not served here. Use a name this server knows, or add it to its list of hosts.\n",
                421,
            )
        host = called
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in origins and not _same_host(origin.lower(), host, encrypted):
        return Response.text(
            f"Origin {origin!r} may not call {host!r}. Add it to the server's list of origins to allow it.\n", 403
        )
    return None


def _same_host(origin: str, host: str, encrypted: bool) -> bool:
    try:
        scheme, authority = urlsplit(origin)[:2]
    except ValueError:
        return False
    if scheme not in _DEFAULT_PORTS or (encrypted and scheme != "https"):
        return False
    default = _DEFAULT_PORTS[scheme]
    name, port = _split_port(authority)
    host_name, host_port = _split_port(host)
    return (name, port or default) == (host_name, host_port or default)


def _split_port(authority: str) -> tuple[str, str]:
    name, colon, port = authority.rpartition(":")
    return (name, port) if colon and not port.endswith("]") else (authority, "")
