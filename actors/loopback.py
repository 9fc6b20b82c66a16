"""Whether a request comes from this machine: what is not protected by a secret is only for those that do."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from runtime import Request

ADDRESSES_KEPT = 10_000  # whose answer is remembered
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@lru_cache(maxsize=ADDRESSES_KEPT)
def is_loopback(peer: str) -> bool:
    """Whether the address is this machine's own; one without an address is in memory."""
    try:
        return not peer or ipaddress.ip_address(peer.partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_local(request: Request) -> bool:
    """Whether it comes from this machine, was sent to it by a loopback name, and no proxy has passed it on."""
    return (
        is_loopback(request.peer)
        and not any(name in request.headers for name in _FORWARDED)
        and _is_loopback_name(request.headers.get("host", ""))
    )


def _is_loopback_name(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
