"""Who the bearer of a token is: the one place where tokens are looked at."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

import attrs

from actors.principal import ANYBODY, EVERYTHING, NotAccepted, Principal
from actors.settings import AuthSettings
from actors.token_verifier import VERIFIER, TokenVerifier
from actors.web_token import TOKEN_BYTES_MAX
from runtime import ActorError, Namespace, Request, Secret

ATTEMPTS = 3
_IN_URLS = ("token", "access_token", "authorization", "bearer", "jwt")


@attrs.frozen
class Authenticator:
    """Lets the bearers of tokens in.

    Args:
        settings: which tokens let in. verifiers: where signed tokens are checked.
    """

    settings: AuthSettings
    verifiers: Namespace[TokenVerifier]

    async def principal(self, token: str | None) -> Principal | NotAccepted:
        """Who shows this token; where nothing is configured, anybody.

        Raises: ActorError, when signed tokens cannot be checked now.
        """
        settings = self.settings
        if not settings.tokens and not settings.jwt.enabled:
            return ANYBODY
        if token is None:
            return NotAccepted("a token is missing")
        seen = token.encode("utf-8", "surrogatepass")
        if is_one_of(token, settings.tokens):
            # The name tells nothing about the token.
            return Principal(user=hashlib.sha256(seen).hexdigest()[:16], capability=EVERYTHING)
        if not settings.jwt.enabled or token.count(".") != 2 or len(seen) > TOKEN_BYTES_MAX:
            return NotAccepted("the token is not accepted")
        for attempt in range(ATTEMPTS):
            try:
                return await self.verifiers.get_by_name(VERIFIER).principal(token)
            except ActorError:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError


def is_one_of(token: str, known: Sequence[Secret]) -> bool:
    """Whether it is one of some secrets."""
    seen = token.encode("utf-8", "surrogatepass")
    # No short cut: how long this takes tells nothing about which secret was nearly right.
    return sum([hmac.compare_digest(seen, one.value.encode()) for one in known]) > 0


def bearer(request: Request) -> str | None:
    """The token of an `Authorization: Bearer` header."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def shown_ticket(request: Request) -> str | None:
    """The ticket of an `Authorization: Ticket` header."""
    scheme, _, ticket = request.headers.get("authorization", "").partition(" ")
    return ticket.strip() if scheme.lower() == "ticket" else None


def token_in_url(request: Request) -> str | None:
    """The name of a field of the query that looks as if it had a token, which would end in logs and histories."""
    return next((name for name in request.query_values() if name.lower() in _IN_URLS), None)
