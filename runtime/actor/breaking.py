"""Errors as they travel: the one that unwinds a destroyed instance, and the copies that callers get."""

from __future__ import annotations

from runtime.errors import ActorError, ActorReset


class Aborted(BaseException):
    """Unwinds a handler whose instance has just been destroyed; never reaches user code's `except Exception`."""


def copy_error(error: BaseException) -> Exception:
    """A copy for one receiver: same class, message, notes and own attributes; no traceback."""
    try:
        copy = type(error).__new__(type(error), *error.args)
    except TypeError:
        copy = ActorError(f"{type(error).__name__}: {error}")
    if not isinstance(copy, Exception):
        copy = ActorError(f"{type(error).__name__}: {error}")
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    if notes := getattr(error, "__notes__", None):
        copy.__notes__ = list(notes)
    return copy


def reset_copy(error: BaseException) -> Exception:
    """The error that everyone gets when user code's exception destroyed the instance."""
    copy = copy_error(error) if isinstance(error, Exception) else ActorReset(str(error))
    copy.durable_object_reset = True  # type: ignore[attr-defined]
    return copy


class Incarnation:
    """One life of an actor; a stub used during it fails for ever when it ends in an error."""

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: Exception | None = None
