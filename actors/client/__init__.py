"""The Python SDK of the signal service: `from actors.client import SignalClient`."""

from actors.client.client import Ack, SignalClient
from actors.client.errors import ClientClosed, ClientError, InvalidUrl, PublishRefused, SubscriptionFailed
from actors.client.subscription import Gap, Subscription
from actors.filters import InvalidFilter
from actors.protocol.cursor import Cursor, InvalidCursor, Last
from actors.protocol.publications import OutboxFull
from actors.signals import InvalidSignal, Signal

__all__ = [
    "Ack",
    "ClientClosed",
    "ClientError",
    "Cursor",
    "Gap",
    "InvalidCursor",
    "InvalidFilter",
    "InvalidSignal",
    "InvalidUrl",
    "Last",
    "OutboxFull",
    "PublishRefused",
    "Signal",
    "SignalClient",
    "Subscription",
    "SubscriptionFailed",
]
