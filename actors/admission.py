"""Who may connect: with which subprotocol, and who is counted."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import attrs

from actors.authentication import bearer, shown_ticket
from actors.handshakes import HANDSHAKES, Handshakes
from actors.loopback import is_loopback
from actors.principal import NotAccepted, Principal
from actors.protocol.encoding import ENCODINGS, Encoding
from actors.tickets import TICKETS
from runtime import ActorError, Context, Request, Response

if TYPE_CHECKING:
    from actors.env import Env


def counts(principal: Principal | None, peer: str) -> bool:
    """Whether limits of rates and counts apply: to users, and to whoever comes from another machine."""
    return (principal is not None and bool(principal.user)) or not is_loopback(peer)


class Clients(Protocol):
    """The connections of a shard."""

    @property
    def are_leaving(self) -> bool:
        """All are being sent elsewhere, and no other is taken."""
        ...


@attrs.frozen
class Admission:
    """Says who may connect to a shard now.

    Args:
        ctx: the shard's. env: where tokens and tickets are checked, and handshakes counted for the whole server.
    """

    ctx: Context
    env: Env

    async def admit(self, request: Request, clients: Clients) -> Principal | Response | None:
        """Who a header of an upgrade says it is, None when none does and `hello` has to; or why it is refused."""
        if clients.are_leaving:
            return _leaving()  # before a ticket is used up, with which another shard lets in
        try:
            if wait_s := await self.of_address(request.peer):
                return _too_many(wait_s)
            principal = await self._who(request)
            if isinstance(principal, NotAccepted):
                return Response(401, f"{principal.told}\n".encode(), {"www-authenticate": "Bearer"})
            if wait_s := await self.of_user(request.peer, principal):
                return _too_many(wait_s)
        except ActorError:
            return Response(503, b"who comes cannot be checked now\n", {"retry-after": "1"})
        return _leaving() if clients.are_leaving else principal

    async def of_address(self, peer: str) -> int:
        """Count one of another machine, before a token is checked, or a ticket used up.

        Whole seconds to wait when there were too many, else 0. Raises: ActorError.
        """
        return 0 if is_loopback(peer) else await self._handshakes.count(peer)

    async def of_user(self, peer: str, principal: Principal | None) -> int:
        """Count one of a user on this machine; otherwise like the above."""
        return await self._handshakes.count(peer) if is_loopback(peer) and counts(principal, peer) else 0

    def resumed(self, peer: str) -> None:
        """The last one of an address goes on with a session, so in the long run it does not count."""
        with suppress(ActorError):
            self.ctx.notify(self._handshakes.resumed, peer)

    async def _who(self, request: Request) -> Principal | NotAccepted | None:
        if (ticket := shown_ticket(request)) is not None:
            return await self.env.tickets.get_by_name(TICKETS).redeem(ticket)
        return None if (token := bearer(request)) is None else await self.env.authenticator.principal(token)

    @property
    def _handshakes(self) -> Handshakes:
        return self.env.handshakes.get_by_name(HANDSHAKES)


def _leaving() -> Response:
    return Response(503, b"clients are being sent elsewhere\n", {"retry-after": "1"})


def _too_many(wait_s: int) -> Response:
    return Response(429, b"too many connections from this address\n", {"retry-after": str(wait_s)})


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
