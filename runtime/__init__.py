"""The front door: the names an app may use, and nothing else."""

from runtime.actor.actor import Actor, AlarmInfo
from runtime.actor.context import ActorEvent, Context, Spawned, Timeout
from runtime.actor.facets import Facets, FacetStartupOptions
from runtime.actor.http import Request, Response
from runtime.actor.recipients import Recipients
from runtime.actor.response_stream import ResponseStream
from runtime.actor.sockets import WebSocket
from runtime.app import App
from runtime.config import ConfigError, load_config
from runtime.errors import (
    ActorError,
    ActorReset,
    InvalidBookmark,
    InvalidId,
    LimitExceeded,
    Overloaded,
    SqlError,
    StorageFailed,
    UnknownMethod,
    UnknownNamespace,
)
from runtime.frames import PreparedMessage
from runtime.ids import ActorId
from runtime.meter import Histogram, Meter
from runtime.namespace.namespace import Namespace
from runtime.namespace.references import Reference, RpcTarget
from runtime.operator import ActorView, Operator, Rows
from runtime.storage.durable import durable
from runtime.storage.storage import Storage
from runtime.storage.transaction import Transaction
from runtime.tables import Secret

__all__ = [
    "Actor",
    "ActorError",
    "ActorEvent",
    "ActorId",
    "ActorReset",
    "ActorView",
    "AlarmInfo",
    "App",
    "ConfigError",
    "Context",
    "FacetStartupOptions",
    "Facets",
    "Histogram",
    "InvalidBookmark",
    "InvalidId",
    "LimitExceeded",
    "Meter",
    "Namespace",
    "Operator",
    "Overloaded",
    "PreparedMessage",
    "Recipients",
    "Reference",
    "Request",
    "Response",
    "ResponseStream",
    "Rows",
    "RpcTarget",
    "Secret",
    "Spawned",
    "SqlError",
    "Storage",
    "StorageFailed",
    "Timeout",
    "Transaction",
    "UnknownMethod",
    "UnknownNamespace",
    "WebSocket",
    "durable",
    "load_config",
]
