"""Who may connect: with which subprotocol, and how often one address may try."""

from __future__ import annotations

import math
from collections import OrderedDict

import attrs

from actors.loopback import is_loopback
from actors.principal import Principal
from actors.protocol.encoding import ENCODINGS, Encoding
from actors.protocol.limits import Limits
from actors.protocol.rate import TokenBucket
from runtime import Request, Response

ADDRESSES_KEPT = 10_000


def offered_encoding(request: Request) -> Encoding | Response | None:
    """The encoding to speak; None when no subprotocol was offered; a 400 when none of those offered is known."""
    offered = [word.strip() for word in request.headers.get("sec-websocket-protocol", "").split(",") if word.strip()]
    if not offered:
        return None
    for encoding in ENCODINGS.values():
        if encoding.subprotocol in offered:
            return encoding
    known = ", ".join(encoding.subprotocol for encoding in ENCODINGS.values())
    return Response.text(
        f"subprotocols {', '.join(offered)[:200]}: none is known here; offer one of {known}, or none\n", 400
    )


@attrs.define(eq=False)
class Admission:
    """Rules for new connections of one shard.

    Args:
        limits: how often an address may try.
    """

    limits: Limits
    _tries: OrderedDict[str, tuple[TokenBucket, TokenBucket]] = attrs.field(factory=OrderedDict, init=False)

    def counts(self, principal: Principal | None, peer: str) -> bool:
        """Whether limits of rates and counts apply: to users, and to whoever comes from another machine."""
        return (principal is not None and bool(principal.user)) or not is_loopback(peer)

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
