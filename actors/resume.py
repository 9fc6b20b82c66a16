"""Resume tokens: signed text that lets a client keep its session id; the cursor, not the session, is what recovers."""

from __future__ import annotations

import hmac

import attrs

SECRET_BYTES = 32
_MAC_CHARACTERS = 32


@attrs.frozen
class Sessions:
    """Makes and checks resume tokens.

    Args:
        secret: the key they are signed with. valid_s: how long one is valid.
    """

    secret: bytes = attrs.field(repr=False)
    valid_s: float

    def token(self, session: str, user: str, now: float) -> str:
        """A token for a session of a user."""
        expires = f"{round(now + self.valid_s):x}"
        return f"{session}.{expires}.{self._mac(session, user, expires)}"

    def session(self, token: str, user: str, now: float) -> str | None:
        """The session a token was made for; None when it is not ours, another user's, or expired."""
        session, _, rest = token.partition(".")
        expires, _, mac = rest.partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(session, user, expires).encode()):
            return None
        return session if int(expires, 16) >= now else None

    def _mac(self, session: str, user: str, expires: str) -> str:
        signed = f"{session}\n{user}\n{expires}".encode()
        return hmac.digest(self.secret, signed, "sha256").hex()[:_MAC_CHARACTERS]
