"""What can go wrong for an application that uses the SDK.

    ClientError
    ├── ClientClosed         the connection is over for good: a terminal close code, or the client was left
    ├── SubscriptionFailed   the server refused or ended this subscription; the others go on
    ├── ModifyRefused        the server refused a change of a subscription; that is as it was
    ├── PublishRefused       the server refused this publication for good
    └── ReadRefused          the server has no such page of history
    InvalidUrl (ValueError)  the address is none

Also: `InvalidFilter` and `InvalidSignal` for what cannot be sent, `OutboxFull` when too many publications wait.
"""

from __future__ import annotations


class ClientError(Exception):
    """Any failure that the server, or the end of the connection, causes."""


class ClientClosed(ClientError):  # named by what happened, as trio.ClosedResourceError
    """The client will not reconnect.

    Attributes:
        code: the close code, or the HTTP status of a refused handshake; 1000 when the application left it.
    """

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"closed for good with {code}: {reason}")
        self.code = code
        self.reason = reason


class SubscriptionFailed(ClientError):
    """The server refused or ended a subscription.

    Attributes:
        name: which one. code: HTTP-like number of the refusal.
    """

    def __init__(self, name: str, code: int | None, reason: str) -> None:
        super().__init__(f"subscription {name}: {reason} ({code})")
        self.name = name
        self.code = code
        self.reason = reason


class ModifyRefused(ClientError):
    """The server refused to change a subscription, which goes on as it was.

    Attributes:
        code: HTTP-like number. slug: the name of the refusal.
    """

    def __init__(self, code: int, slug: str, message: str) -> None:
        super().__init__(f"{slug} ({code}): {message}")
        self.code = code
        self.slug = slug


class PublishRefused(ClientError):
    """The server refused a publication; it is not sent again.

    Attributes:
        code: HTTP-like number. slug: the name of the refusal.
    """

    def __init__(self, code: int, slug: str, message: str) -> None:
        super().__init__(f"{slug} ({code}): {message}")
        self.code = code
        self.slug = slug


class ReadRefused(ClientError):
    """The server has no such page of history: above all, the log no longer reaches back to the cursor.

    Attributes:
        code: HTTP-like number. slug: the name of the refusal, such as `cursor_expired` or `epoch_mismatch`.
    """

    def __init__(self, code: int, slug: str, message: str) -> None:
        super().__init__(f"{slug} ({code}): {message}")
        self.code = code
        self.slug = slug


class InvalidUrl(ValueError):
    """The text is no address of a signal service."""
