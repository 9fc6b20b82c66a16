"""The actor that has the tickets: what a browser shows in a URL, where a token would end in logs (section 2.11)."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from typing import TYPE_CHECKING

import attrs
import trio

from actors.principal import NotAccepted, Principal
from runtime import Actor, Context, Timeout

if TYPE_CHECKING:
    from actors.env import Env

TICKETS = "tickets"
TICKET_S = 30.0
TICKET_BYTES = 16
OUTSTANDING = 10_000
OUTSTANDING_OF_ONE = 100
_TEXT_MAX = 64
_REFUSED = NotAccepted("the ticket is not accepted: it lets in once, within 30 s; ask /v1/tickets for another one")


@attrs.frozen
class Ticket:
    """What lets in once.

    Attributes:
        text: to show. expires_ms: for how long it may be shown.
    """

    text: str = attrs.field(repr=False)
    expires_ms: int


@attrs.frozen
class _Issued:
    principal: Principal
    holder: str
    until: float
    timeout: Timeout


class Tickets(Actor["Env"]):
    """Gives tickets, and takes each back once.

    They are in memory only, by their hash: after a restart none is valid, and clients ask for another one.
    """

    def __init__(self, ctx: Context, env: Env) -> None:
        super().__init__(ctx, env)
        self._issued: dict[bytes, _Issued] = {}  # in the order of `until`
        self._held: Counter[str] = Counter()

    async def issue(self, principal: Principal, holder: str) -> Ticket | None:
        """A ticket that lets in as `principal`; None when `holder`, or everybody together, has too many unused ones."""
        self._forget_old()
        if len(self._issued) >= OUTSTANDING or self._held[holder] >= OUTSTANDING_OF_ONE:
            return None
        text = base64.urlsafe_b64encode(self.ctx.token(TICKET_BYTES)).rstrip(b"=").decode()
        timeout = self.ctx.set_timeout(TICKET_S, self._timeout)  # nobody evicts this instance before
        self._issued[_digest(text)] = _Issued(principal, holder, trio.current_time() + TICKET_S, timeout)
        self._held[holder] += 1
        left_s = TICKET_S if principal.expires is None else min(TICKET_S, principal.expires - self.ctx.now())
        return Ticket(text, max(0, round(left_s * 1000)))

    async def redeem(self, text: str) -> Principal | NotAccepted:
        """Who shows this ticket, which is worth nothing from now on."""
        self._forget_old()
        if len(text) > _TEXT_MAX:
            return _REFUSED
        found = self._forget(_digest(text))
        if found is None or (found.principal.expires is not None and found.principal.expires <= self.ctx.now()):
            return _REFUSED
        return found.principal

    async def settle(self) -> None:
        """The server goes down: no ticket is worth anything any more."""
        for digest in list(self._issued):
            self._forget(digest)

    async def _timeout(self) -> None:
        self._forget_old()

    def _forget_old(self) -> None:
        now = trio.current_time()
        while self._issued:
            oldest = next(iter(self._issued))
            if self._issued[oldest].until > now:
                break
            self._forget(oldest)

    def _forget(self, digest: bytes) -> _Issued | None:
        found = self._issued.pop(digest, None)
        if found is not None:
            found.timeout.cancel()
            self._held[found.holder] -= 1
            if not self._held[found.holder]:
                del self._held[found.holder]
        return found


def _digest(text: str) -> bytes:
    """How long it takes to find a hash tells nothing about the ticket."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
