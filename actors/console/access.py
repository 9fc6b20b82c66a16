"""Who may use the console: whoever sits at this machine, or knows its password; and that it was they who asked.

No page of another site can make a browser change anything here: its requests cannot carry the header, the cookie goes
along with requests of this site only, and browsers say where a request comes from.
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from typing import Literal
from urllib.parse import urlsplit

import attrs

from runtime import Request

COOKIE = "heliograph_console"
HEADER = "x-heliograph-console"
_SAFE_SITES = ("same-origin", "none")


@attrs.frozen
class OperatorName:
    """Somebody who was let in, for the audit log.

    Attributes:
        kind: how. session: the beginning of the hash of their session; "" of one who needs none. peer: their address.
    """

    kind: Literal["local", "password"]
    peer: str
    session: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.session}".rstrip()


def is_from_elsewhere(request: Request) -> bool:
    """Whether a browser says that a page of another site made it send this."""
    site = request.headers.get("sec-fetch-site", "none")
    origin = request.headers.get("origin")
    return site not in _SAFE_SITES or (
        origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
    )


def changes_safely(request: Request) -> bool:
    """Whether a request that changes something was meant: it has the header, and is of this site."""
    return request.headers.get(HEADER) == "1" and not is_from_elsewhere(request)


def shown_session(request: Request) -> str | None:
    """The session in its cookie."""
    try:
        morsel = SimpleCookie(request.headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def cookie(session: str, seconds: float, *, secure: bool) -> str:
    """`Set-Cookie` of a session; of none when its time is 0."""
    parts = [f"{COOKIE}={session}", "Path=/console", f"Max-Age={round(seconds)}", "HttpOnly", "SameSite=Strict"]
    return "; ".join([*parts, "Secure"] if secure else parts)
