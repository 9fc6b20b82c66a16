"""The Python SDK of the signal service: `from actors.client import SignalClient`."""

from actors.client.buffer import Gap, SnapSignal
from actors.client.client import Ack, ClientStats, SignalClient
from actors.client.conditions import Condition, F
from actors.client.cursor_store import CursorStore, FileCursorStore, InvalidCursorFile, MemoryCursorStore
from actors.client.errors import (
    ClientClosed,
    ClientError,
    InvalidUrl,
    ModifyRefused,
    PublishRefused,
    ReadRefused,
    SubscriptionFailed,
)
from actors.client.history import History
from actors.client.subscription import Subscription
from actors.client.sync import SyncSignalClient, SyncSubscription
from actors.filters import InvalidFilter
from actors.protocol.cursor import Ago, Cursor, InvalidCursor, Last
from actors.protocol.publications import OutboxFull
from actors.signals import InvalidSignal, Signal

__all__ = [
    "Ack",
    "Ago",
    "ClientClosed",
    "ClientError",
    "ClientStats",
    "Condition",
    "Cursor",
    "CursorStore",
    "F",
    "FileCursorStore",
    "Gap",
    "History",
    "InvalidCursor",
    "InvalidCursorFile",
    "InvalidFilter",
    "InvalidSignal",
    "InvalidUrl",
    "Last",
    "MemoryCursorStore",
    "ModifyRefused",
    "OutboxFull",
    "PublishRefused",
    "ReadRefused",
    "Signal",
    "SignalClient",
    "SnapSignal",
    "Subscription",
    "SubscriptionFailed",
    "SyncSignalClient",
    "SyncSubscription",
]
