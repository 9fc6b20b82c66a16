"""Who may connect: with which subprotocol, and who is counted."""

from __future__ import annotations

from contextlib import suppress

import attrs

from actors.handshakes import HANDSHAKES, Handshakes
from actors.loopback import is_loopback
from actors.principal import Principal
from actors.protocol.encoding import ENCODINGS, Encoding
from runtime import ActorError, Context, Namespace, Request, Response


def counts(principal: Principal | None, peer: str) -> bool:
    """Whether limits of rates and counts apply: to users, and to whoever comes from another machine."""
    return (principal is not None and bool(principal.user)) or not is_loopback(peer)


@attrs.frozen
class Admission:
    """Counts connections of who is counted, and says how many seconds to wait when there were too many, else 0.

    Args:
        ctx: of who asks. handshakes: where they are counted, for the whole server.
    """

    ctx: Context
    handshakes: Namespace[Handshakes]

    async def of_address(self, peer: str) -> int:
        """One of another machine, before a token is checked, or a ticket used up. Raises: ActorError."""
        return 0 if is_loopback(peer) else await self._all.count(peer)

    async def of_user(self, peer: str, principal: Principal | None) -> int:
        """One of a user on this machine. Raises: ActorError."""
        return await self._all.count(peer) if is_loopback(peer) and counts(principal, peer) else 0

    def resumed(self, peer: str) -> None:
        """The last one of an address goes on with a session, so in the long run it does not count."""
        with suppress(ActorError):
            self.ctx.notify(self._all.resumed, peer)

    @property
    def _all(self) -> Handshakes:
        return self.handshakes.get_by_name(HANDSHAKES)


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
