"""What can go wrong, drawn as a tree.

    ActorError                 the one class a caller can catch; made by the runtime only
    ├── ActorReset             the instance was destroyed while the call was in flight
    ├── Overloaded             refused before any work was accepted; try later
    ├── UnknownMethod          no such public method on the target
    ├── UnknownNamespace       no such namespace in this app
    └── StorageFailed          the store could not make a write durable
    LimitExceeded (ValueError) a value is over a bound of `runtime.limits`
    SqlError                   a statement of ctx.storage.sql was refused or failed
    InvalidId (TypeError)      the text is no id, or an id of another namespace
    InvalidBookmark (ValueError)  the text names no point of the history that can be restored

An exception that a handler raises reaches the caller as itself (a copy with the same class, message, notes and own
attributes) with `remote = True` set on the copy.
"""

from __future__ import annotations


class ActorError(Exception):
    """A call to an actor failed for a reason of the runtime.

    Attributes:
        retryable: the call provably did not run, or may be repeated.
        overloaded: the target has too much to do; back off.
        durable_object_reset: the instance that had the call was destroyed.
        remote: the target's own code raised it.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        overloaded: bool = False,
        durable_object_reset: bool = False,
        remote: bool = False,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.overloaded = overloaded
        self.durable_object_reset = durable_object_reset
        self.remote = remote


class ActorReset(ActorError):
    """The instance was destroyed (abort, failed commit, failed critical section, failed constructor).

    Attributes:
        retry_alarm: an alarm handler that was cut short by it is tried again.
    """

    def __init__(self, message: str, *, overloaded: bool = False, retry_alarm: bool = True) -> None:
        super().__init__(message, overloaded=overloaded, durable_object_reset=True)
        self.retry_alarm = retry_alarm


class Overloaded(ActorError):
    """A bound was reached; nothing of the call was accepted."""

    def __init__(self, message: str) -> None:
        super().__init__(message, overloaded=True)


class UnknownMethod(ActorError):
    """The target has no public method of this name."""


class UnknownNamespace(ActorError):
    """The app declares no namespace of this name."""


class StorageFailed(ActorError):
    """The store could not make a batch durable; the instance is gone, and the batch with it.

    Only a crash can bring the batch back: when the disk took it and failed to sync it, the log may still have it then.

    Attributes:
        by_app: the app's writes were at fault, and would be again.
    """

    def __init__(self, message: str, *, by_app: bool = False) -> None:
        super().__init__(message)
        self.by_app = by_app


class LimitExceeded(ValueError):
    """A value is over a bound.

    Attributes:
        limit: the bound. actual: what was seen.
    """

    def __init__(self, message: str, *, limit: int, actual: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.actual = actual


class SqlError(Exception):
    """A statement of `ctx.storage.sql` was refused or failed; what it did is undone, what came before stays.

    Attributes:
        code: SQLite's, such as "SQLITE_CONSTRAINT"; None when the statement did not reach SQLite.
        extended_code: SQLite's, such as "SQLITE_CONSTRAINT_UNIQUE", where there is one.
        offset: where in the statement, in bytes, where SQLite knows it.
    """

    def __init__(
        self, message: str, *, code: str | None = None, extended_code: str | None = None, offset: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.extended_code = extended_code
        self.offset = offset


class InvalidId(TypeError):
    """The text is not an id of this namespace."""


class InvalidBookmark(ValueError):
    """The text names no point of the history that can be restored."""
