"""Who is behind a proxy: what trusted ones say about the client, and nothing that a client can make up.

Each proxy adds the address it was called from at the end of a list, so the list is read from there. What stands before
the first address that is no trusted proxy's may be anybody's invention.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import attrs

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Family = Literal["x-forwarded", "forwarded"]

UNKNOWN = "unknown"  # RFC 7239, 6.2: a proxy that does not tell; one address like any other for limits


class InvalidNetwork(ValueError):
    """An address or network that is none; the text says what was seen and what is allowed."""


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Addresses and networks such as `127.0.0.1` and `10.0.0.0/8`.

    Raises:
        InvalidNetwork: one of them is neither.
    """
    found: list[Network] = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise InvalidNetwork(f"saw {text!r}; must be an address or a network such as 10.0.0.0/8: {error}") from None
    return tuple(found)


@attrs.frozen
class Client:
    """Where a request comes from.

    Attributes:
        peer: its address. host: the name it was sent to, None where no proxy says so.
        encrypted: it came under TLS, as far as is known.
    """

    peer: str
    host: str | None = None
    encrypted: bool = False


@attrs.frozen(kw_only=True)
class Proxies:
    """The proxies that are believed, and what they write.

    Attributes:
        trusted: where they call from. family: which headers they set; those of the other family are never read, since
            a proxy that does not know them hands on what the client made up.
    """

    trusted: tuple[Network, ...] = ()
    family: Family = "x-forwarded"

    def client(self, peer: str, headers: Mapping[str, str], *, encrypted: bool) -> Client:
        """The client of a request: the last address that is no trusted proxy's.

        Args:
            peer: the address of the other end of the connection.
            headers: the request's, with lower-case names.
            encrypted: the connection is under TLS.
        """
        if not self.trusted or not self._trusts(peer):
            return Client(peer, None, encrypted)
        hops = _forwarded(headers) if self.family == "forwarded" else _x_forwarded(headers)
        client = Client(peer, None, encrypted)
        for hop in hops:
            client = Client(_canonical(hop.peer), hop.host or client.host, hop.encrypted)
            if not self._trusts(client.peer):
                break
        return client

    def _trusts(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self.trusted)


def _x_forwarded(headers: Mapping[str, str]) -> Iterator[Client]:
    """The hops of `X-Forwarded-For`, the nearest first; of `-Host` and `-Proto` what the nearest proxy wrote."""
    host = _last(headers.get("x-forwarded-host", ""))
    encrypted = _last(headers.get("x-forwarded-proto", "")).lower() in {"https", "wss"}
    for address in reversed(_elements(headers.get("x-forwarded-for", ""))):
        yield Client(address, host or None, encrypted)


def _forwarded(headers: Mapping[str, str]) -> Iterator[Client]:
    """The hops of `Forwarded` (RFC 7239), the nearest first."""
    for element in reversed(_elements(headers.get("forwarded", ""))):
        said: dict[str, str] = {}
        for pair in element.split(";"):
            name, _, value = pair.partition("=")
            said[name.strip().lower()] = value.strip().strip('"')
        yield Client(said.get("for", UNKNOWN), said.get("host") or None, said.get("proto", "").lower() == "https")


def _elements(value: str) -> list[str]:
    return [element for part in value.split(",") if (element := part.strip())]


def _last(value: str) -> str:
    return value.rpartition(",")[2].strip()


def _canonical(node: str) -> str:
    """An address without its port and brackets; `UNKNOWN` for what is none."""
    if node.startswith("["):
        node = node[1:].partition("]")[0]
    elif node.count(":") == 1:
        node = node.partition(":")[0]
    try:
        address = ipaddress.ip_address(node)
    except ValueError:
        return UNKNOWN
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
