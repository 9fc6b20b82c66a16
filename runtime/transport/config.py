"""What an operator may set about the transport, with its defaults."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from runtime import limits
from runtime.transport.forwarded import Proxies


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


@attrs.frozen(kw_only=True)
class TransportConfig:
    """Bounds and allow lists of one listening server. Sizes in bytes, times in seconds.

    Attributes:
        hosts: names that `Host` may carry beside the loopback ones: `example.com` (any port) or `example.com:8443`.
        proxies: whose word about a request's client is believed.
        origins: origins that may call beside the server's own, as a browser writes them: `https://example.com`.
        head_bytes, head_count, head_s: request line and headers: size, number of headers, time to arrive.
        tls_s: how long a TLS handshake may take, before anything of a request.
        arriving: connections that have not sent a whole request yet; beyond that whoever connects waits in the kernel's
            queue for up to `opening_s`, and then the one that has taken the longest is dropped.
        body_bytes, body_s: request body: size, time to arrive.
        idle_s: how long a kept-alive connection may wait for its next request.
        write_s: how long a client may take for 64 KiB of a response.
        linger_s: how long a client that was refused may go on sending, so that it can read why.
        close_s: from our close frame to the end of a WebSocket connection, whatever its peer does.
        connections: open at the same time; beyond that a client gets 503.
        openings: WebSockets being opened by actors at the same time; while there are so many, who else connects waits
            in the kernel's queue, so that a thousand who come back at once do not stand before everybody's signals.
        opening_s: how long one that is slow to open may hold up the next connection.
        losses: actors told at the same time that a connection was lost; a crowd that vanishes together is told of in
            such groups, between which broadcasts go on.
        refusals: such answers given at the same time; beyond that a client is dropped.
        retry_after_s: what a 503 tells the client to wait.
        keepalive_s: silence after which TCP asks whether the peer is still there, and between the four times it asks.
        backoff_s: pause of the listener when the process is out of descriptors.
    """

    hosts: frozenset[str] = attrs.field(factory=frozenset, converter=_lower)
    origins: frozenset[str] = attrs.field(factory=frozenset, converter=_lower)
    proxies: Proxies = attrs.field(factory=Proxies)
    head_bytes: int = limits.REQUEST_HEAD_BYTES
    head_count: int = limits.REQUEST_HEADERS
    head_s: float = limits.REQUEST_HEAD_S
    tls_s: float = limits.TLS_HANDSHAKE_S
    arriving: int = 1_000
    body_bytes: int = limits.REQUEST_BODY_BYTES
    body_s: float = 60.0
    idle_s: float = limits.IDLE_CONNECTION_S
    write_s: float = 10.0
    linger_s: float = 2.0
    close_s: float = 10.0
    connections: int = 50_000
    openings: int = 4
    opening_s: float = 0.02
    losses: int = 16
    refusals: int = 64
    retry_after_s: int = 5
    keepalive_s: int = 60
    backoff_s: float = 0.1
