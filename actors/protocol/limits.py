"""The limits of `signals.v1` as one value, sent to every client in `welcome.limits`."""

from __future__ import annotations

import attrs

HISTORY_LIMIT = 100  # signals of one page of history, when nothing else is asked for
HISTORY_LIMIT_MAX = 500
LATEST_MS = 1_000  # between two frames of `mode` `latest`, when `min_ms` is not said
LATEST_MS_MIN = 20
LATEST_MS_MAX = 60_000


@attrs.frozen(kw_only=True)
class Limits:
    """What one connection may do; every field is a key of `heliograph.toml`.

    Rates and counts per user or address apply to authenticated or non-loopback peers.
    """

    msg_bytes: int = 16_384  # inbound message; beyond: close 1009 (Discord 4 KiB, Centrifugo 64 KiB)
    data_bytes: int = 65_536  # JSON text of a signal's data
    subs: int = 128  # subscriptions of one connection (Centrifugo 128, Ably 200)
    rate_messages: int = 100  # inbound messages per `rate_window_ms` (Discord 120 per minute)
    rate_window_ms: int = 10_000
    rate_burst: int = 50
    handshakes_per_s: int = 8  # per address (Coinbase)
    handshakes_burst: int = 20
    handshakes_per_5_min: int = 300  # (Binance)
    connections_per_user: int = 20  # beyond: close 4009 (Centrifugo)
    hello_ms: int = 5_000  # the first message must be there by then (Coinbase)
    backlog_bytes: int = 1_048_576  # outbound, not yet taken by the client (Centrifugo)
    backlog_ms: int = 5_000

    def to_json(self) -> dict[str, object]:
        """The object for `welcome.limits`."""
        return attrs.asdict(self)
