"""Who is signed in at the console: sessions by the hash of their cookies, and who may have one."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence

import attrs

from runtime import Storage

SESSIONS = 100
_PREFIX = "session/"
_BYTES = 24
SHOWN = 8


@attrs.frozen
class _Kept:
    until: float


@attrs.frozen
class SignedIn:
    """A new session: what its cookie says."""

    session: str = attrs.field(repr=False)


@attrs.frozen
class NotSignedIn:
    """The password was wrong, or `wait_s` seconds must pass before another one is looked at."""

    wait_s: int = 0


class Sessions:
    """Kept in the storage of an actor; what is stored lets nobody in.

    Args:
        storage: of the actor. token: gives random bytes. session_s: how long a session lasts.
        passwords: each lets in.
    """

    def __init__(
        self, storage: Storage, token: Callable[[int], bytes], session_s: float, passwords: Sequence[str]
    ) -> None:
        self._storage = storage
        self._token = token
        self._session_s = session_s
        self._digests = [_digest(one) for one in passwords]

    def accepts(self, password: str) -> bool:
        """Whether it is one of the passwords; that costs one hash of it."""
        # Of equal length, and all of them, so that the comparison tells nothing, not even that.
        seen = _digest(password)
        return sum([hmac.compare_digest(seen, one) for one in self._digests]) > 0

    def open(self, now: float) -> SignedIn:
        """A new session; of too many the one that ends first goes."""
        kept = self._storage.list(_Kept, prefix=_PREFIX)
        ended = [key for key, one in kept.items() if one.until <= now]
        lasting = sorted((one.until, key) for key, one in kept.items() if one.until > now)
        ended += [key for _, key in lasting[: max(0, len(lasting) - SESSIONS + 1)]]
        self._storage.delete_many(ended)
        session = base64.urlsafe_b64encode(self._token(_BYTES)).decode()
        self._storage.put(_key(session), _Kept(now + self._session_s))
        return SignedIn(session)

    def name(self, session: str | None, now: float) -> str | None:
        """What a session is called in the audit log; None when it is none, or has ended."""
        if session is None:
            return None
        kept = self._storage.get(_key(session), _Kept)
        return None if kept is None or kept.until <= now else _key(session).removeprefix(_PREFIX)[:SHOWN]

    def sign_out(self, session: str) -> None:
        """The session lets nobody in any more."""
        self._storage.delete(_key(session))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _key(session: str) -> str:
    return _PREFIX + hashlib.sha256(session.encode("utf-8", "surrogatepass")).hexdigest()
