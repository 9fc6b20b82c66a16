"""The error codes and close codes of `signals.v1`, each with what the receiver does about it."""

from __future__ import annotations

import enum

import attrs


@attrs.frozen
class ErrorCode:
    """One row of the error table: an HTTP number, a slug, and whether the same request may succeed later."""

    code: int
    slug: str
    retry: bool = False


BAD_MESSAGE = ErrorCode(400, "bad_message")
UNAUTHENTICATED = ErrorCode(401, "unauthenticated")
TOKEN_EXPIRING = ErrorCode(401, "token_expiring", retry=True)
FORBIDDEN = ErrorCode(403, "forbidden")
UNKNOWN_SUB = ErrorCode(404, "unknown_sub")
DUPLICATE_SUB = ErrorCode(409, "duplicate_sub")
CURSOR_EXPIRED = ErrorCode(410, "cursor_expired")
EPOCH_MISMATCH = ErrorCode(412, "epoch_mismatch")
TOO_LARGE = ErrorCode(413, "too_large")
BAD_FILTER = ErrorCode(422, "bad_filter")
BAD_FROM = ErrorCode(422, "bad_from")
RATE_LIMITED = ErrorCode(429, "rate_limited", retry=True)
INTERNAL = ErrorCode(500, "internal", retry=True)
OVERLOADED = ErrorCode(503, "overloaded", retry=True)
DRAINING = ErrorCode(503, "draining", retry=True)

ERROR_CODES = (
    BAD_MESSAGE,
    UNAUTHENTICATED,
    TOKEN_EXPIRING,
    FORBIDDEN,
    UNKNOWN_SUB,
    DUPLICATE_SUB,
    CURSOR_EXPIRED,
    EPOCH_MISMATCH,
    TOO_LARGE,
    BAD_FILTER,
    BAD_FROM,
    RATE_LIMITED,
    INTERNAL,
    OVERLOADED,
    DRAINING,
)


NORMAL = 1000  # RFC 6455


class CloseCode(enum.IntEnum):
    """The close codes of the protocol; the hundreds digit says what to do (Pusher's ranges).

    A client knows them all. The server of this project never sends three: what a token does not cover is answered with
    `FORBIDDEN` and the connection stays; an unknown version is refused before the upgrade, with HTTP 400; and an actor
    that fails ends its connections without a close frame.
    """

    BAD_MESSAGE = 4001
    FORBIDDEN = 4003
    AUTH_FAILED = 4004
    ALREADY_HELLO = 4005
    NOT_HELLO = 4006
    HELLO_TIMEOUT = 4008
    TOO_MANY_CONNECTIONS = 4009
    UNSUPPORTED_VERSION = 4010
    BANNED = 4020
    INTERNAL = 4100
    TOKEN_EXPIRED = 4101
    SLOW_CONSUMER = 4103
    NO_HEARTBEAT = 4105
    RATE_LIMITED = 4107
    OVERLOADED = 4110
    INSUFFICIENT_STATE = 4150
    DEAD_LINK = 4198  # sent by the client
    GAP = 4199  # sent by the client
    SHUTDOWN = 4200
    REBALANCE = 4201
    REPLACED = 4202


class AfterClose(enum.Enum):
    """What a client does when its socket has closed."""

    STOP = "stop"  # tell the user; never reconnect by itself
    BACKOFF = "backoff"  # reconnect after a growing random delay, and resume
    WINDOW = "window"  # reconnect inside the announced window (1 s by default), and resume


_BY_RFC_CODE = {
    1000: AfterClose.WINDOW,
    1001: AfterClose.WINDOW,
    1002: AfterClose.STOP,
    1003: AfterClose.STOP,
    1007: AfterClose.STOP,
    1009: AfterClose.STOP,
    1010: AfterClose.STOP,
}
_BY_HUNDRED = {40: AfterClose.STOP, 41: AfterClose.BACKOFF, 42: AfterClose.WINDOW}


def after_close(code: int | None, *, told_to_go: bool = False) -> AfterClose:
    """What the close code asks for; None is a socket that ended without one.

    One that is replaced does not come back: a newer socket of its session is there. But if it had been told to go, that
    may have been its own successor, which may be gone again; then 4202 is like the other 42xx.

    A code nobody has heard of acts by its range; outside the ranges the client tries again with backoff,
    because an intermediary that closes with an odd code says nothing about the session.
    """
    if code is None:
        return AfterClose.BACKOFF
    if code == CloseCode.REPLACED and not told_to_go:
        return AfterClose.STOP
    return _BY_RFC_CODE.get(code) or _BY_HUNDRED.get(code // 100, AfterClose.BACKOFF)


def close_name(code: int | None) -> str:
    """The name for messages to people: `slow_consumer`, or `unknown` for a code without one."""
    if code is None:
        return "no code"
    try:
        return CloseCode(code).name.lower()
    except ValueError:
        return "unknown"
