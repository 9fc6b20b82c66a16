"""What the service's actors and routes reach: the namespaces, under the keys they are stored by, and the settings."""

from __future__ import annotations

import attrs

from actors.analytics.analytics import Analytics
from actors.authentication import Authenticator
from actors.broadcaster import SignalBroadcaster
from actors.connections import ConnectionManager
from actors.console.console import Console
from actors.console.injection import FaultInjection
from actors.echo import Echo
from actors.handshakes import Handshakes
from actors.ingest.ingest import Ingest
from actors.settings import Settings
from actors.signal_tracer import SignalTracer
from actors.tickets import Tickets
from actors.token_verifier import TokenVerifier
from runtime import Namespace, Operator


@attrs.frozen(kw_only=True)
class Env:
    """The bindings of the signal service."""

    settings: Settings
    broadcasters: Namespace[SignalBroadcaster]
    shards: Namespace[ConnectionManager]
    ingests: Namespace[Ingest]
    echoes: Namespace[Echo]
    handshakes: Namespace[Handshakes]
    verifiers: Namespace[TokenVerifier]
    tickets: Namespace[Tickets]
    consoles: Namespace[Console]
    tracers: Namespace[SignalTracer]
    analytics: Namespace[Analytics]
    injections: Namespace[FaultInjection]
    operator: Operator

    @property
    def authenticator(self) -> Authenticator:
        """What tells who the bearer of a token is."""
        return Authenticator(self.settings.auth, self.verifiers)
