"""What the service's actors and routes reach: the namespaces, under the keys they are stored by, and the settings."""

from __future__ import annotations

import attrs

from actors.broadcaster import SignalBroadcaster
from actors.connections import ConnectionManager
from actors.echo import Echo
from actors.ingest.ingest import Ingest
from actors.settings import Settings
from runtime import Namespace


@attrs.frozen(kw_only=True)
class Env:
    """The bindings of the signal service."""

    settings: Settings
    broadcasters: Namespace[SignalBroadcaster]
    shards: Namespace[ConnectionManager]
    ingests: Namespace[Ingest]
    echoes: Namespace[Echo]
