"""Who may connect: subprotocol, bearer token, and how often one address may try."""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections import OrderedDict
from functools import lru_cache

import attrs

from actors.protocol.limits import Limits
from actors.protocol.rate import TokenBucket
from actors.settings import AuthSettings
from runtime import Request, Response

SUBPROTOCOLS = ("signals.v1.json",)  # in the order we like them
ADDRESSES_KEPT = 10_000


def subprotocol(request: Request) -> str | Response | None:
    """The subprotocol to answer with; None when none was offered; a 400 when none of those offered is known."""
    offered = [word.strip() for word in request.headers.get("sec-websocket-protocol", "").split(",") if word.strip()]
    if not offered:
        return None
    for ours in SUBPROTOCOLS:
        if ours in offered:
            return ours
    known = ", ".join(SUBPROTOCOLS)
    return Response.text(f"subprotocols {', '.join(offered)[:200]}: none is known here; offer {known}, or none\n", 400)


def bearer(request: Request) -> str | None:
    """The token of an `Authorization: Bearer` header."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


@lru_cache(maxsize=ADDRESSES_KEPT)
def is_loopback(peer: str) -> bool:
    """Whether the address is this machine's own; one without an address is in memory."""
    try:
        return not peer or ipaddress.ip_address(peer.partition("%")[0]).is_loopback
    except ValueError:
        return False


@attrs.define(eq=False)
class Admission:
    """Rules for new connections of one shard.

    Args:
        limits: how often an address may try. auth: which tokens let in.
    """

    limits: Limits
    auth: AuthSettings
    _tries: OrderedDict[str, tuple[TokenBucket, TokenBucket]] = attrs.field(factory=OrderedDict, init=False)

    def accepts(self, token: str | None) -> bool:
        """Whether the token lets its bearer in; without configured tokens everybody is."""
        return self.auth.accepts(token)

    def user(self, token: str | None) -> str:
        """A name for the bearer of an accepted token that tells nothing about the token; "" for nobody."""
        if token is None or not self.auth.tokens:
            return ""
        return hashlib.sha256(token.encode()).hexdigest()[:16]

    def counts(self, user: str, peer: str) -> bool:
        """Whether limits of rates and counts apply: to users, and to whoever comes from another machine."""
        return bool(user) or not is_loopback(peer)

    def too_many_handshakes(self, peer: str, now: float) -> int:
        """Count a handshake of an address; whole seconds to wait when there were too many, else 0."""
        buckets = self._tries.get(peer)
        if buckets is None:
            limits = self.limits
            buckets = self._tries[peer] = (
                TokenBucket(limits.handshakes_per_s, limits.handshakes_burst),
                TokenBucket(limits.handshakes_per_5_min / 300, limits.handshakes_per_5_min),
            )
            if len(self._tries) > ADDRESSES_KEPT:
                self._tries.popitem(last=False)
        self._tries.move_to_end(peer)
        refusals = [bucket.wait_s for bucket in buckets if not bucket.take(now)]
        return math.ceil(max(refusals)) if refusals else 0
