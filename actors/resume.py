"""Resume tokens: signed text that lets a client keep its session id; the cursor, not the session, is what recovers."""

from __future__ import annotations

import hmac

import attrs

SECRET_BYTES = 32
_MAC_CHARACTERS = 32


@attrs.frozen
class Session:
    """What a client's sockets have in common, one after another.

    Attributes:
        name: the id that operators and the client see.
        number: of this socket among those of the session, from 1; each is resumed by a later one. Two that were
            resumed with the same token have the same.
    """

    name: str
    number: int = 1

    @property
    def is_resumed(self) -> bool:
        """There was a socket before."""
        return self.number > 1


@attrs.frozen
class Sessions:
    """Makes and checks resume tokens.

    Args:
        secret: the key they are signed with. valid_s: how long one is valid.
    """

    secret: bytes = attrs.field(repr=False)
    valid_s: float

    def token(self, session: Session, user: str, now: float) -> str:
        """A token to resume this socket of a user with."""
        expires = f"{round(now + self.valid_s):x}"
        return f"{session.name}.{session.number:x}.{expires}.{self._mac(session.name, session.number, user, expires)}"

    def resumed(self, token: str, user: str, now: float) -> Session | None:
        """The session a token goes on with; None when it is not ours, another user's, or expired."""
        name, number, expires, mac = [*token.split(".", 3), "", "", ""][:4]
        try:
            socket = int(number, 16)
        except ValueError:
            return None
        if not hmac.compare_digest(mac.encode(), self._mac(name, socket, user, expires).encode()):
            return None
        return Session(name, socket + 1) if int(expires, 16) >= now else None

    def _mac(self, name: str, number: int, user: str, expires: str) -> str:
        signed = f"{name}\n{number:x}\n{user}\n{expires}".encode()
        return hmac.digest(self.secret, signed, "sha256").hex()[:_MAC_CHARACTERS]
