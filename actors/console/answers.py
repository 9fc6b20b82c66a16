"""What the console's routes are given, and how they refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from actors.console.access import OperatorName
from actors.protocol.codes import ErrorCode
from runtime import Request

if TYPE_CHECKING:
    from actors.console.console import Console
    from actors.env import Env

BAD_QUERY = ErrorCode(400, "bad_query")
LOGIN_REQUIRED = ErrorCode(401, "login_required")
LOOPBACK_ONLY = ErrorCode(403, "loopback_only")
NOT_MEANT = ErrorCode(403, "not_meant")
NO_STREAM = ErrorCode(404, "no_stream")
ROWS = 200  # of a window
NAME = "console"


class Invalid(Exception):
    """A request that cannot be answered.

    Attributes:
        code: status and slug. at: a JSON Pointer to what is wrong, or the name of a field of the query.
    """

    def __init__(self, code: ErrorCode, message: str, at: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.at = at


@attrs.frozen(kw_only=True)
class Ask:
    """A request of an operator who was let in."""

    request: Request
    env: Env
    who: OperatorName

    @property
    def console(self) -> Console:
        """The actor behind the console."""
        return self.env.consoles.get_by_name(NAME)


def number(request: Request, name: str, default: int, *, least: int = 1, most: int) -> int:
    """A whole number of the query.

    Raises:
        Invalid: it is none, or out of its bounds.
    """
    text = request.query_values().get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15 or not least <= int(text) <= most:
        raise Invalid(BAD_QUERY, f"{name} is {text[:40]!r}; must be a whole number from {least} to {most:,}", at=name)
    return int(text)


def choice(request: Request, name: str, allowed: tuple[str, ...], default: str) -> str:
    """One of several words of the query.

    Raises:
        Invalid: it is another one.
    """
    text = request.query_values().get(name) or default
    if text not in allowed:
        raise Invalid(BAD_QUERY, f"{name} is {text[:40]!r}; must be one of {', '.join(allowed)}", at=name)
    return text
