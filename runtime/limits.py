"""Every bound of the runtime, with Durable Objects' number beside it."""

from __future__ import annotations

import attrs

# Storage (Durable Objects: limits page, key-value backed objects).
KEY_BYTES = 2_048
VALUE_BYTES = 131_072
KEYS_PER_CALL = 128
WORKERD_ROW_BYTES = 8_388_642  # the largest blob that its SELECT may build

# Names and values between actors.
NAME_BYTES = 1_024  # Durable Objects: `ctx.id.name` is dropped beyond this
RPC_BYTES = 32 * 1024 * 1024  # Durable Objects: serialized arguments or return values

# Sockets (Durable Objects: hibernatable WebSockets).
SOCKETS_PER_ACTOR = 32_768
TAGS_PER_SOCKET = 10
TAG_CHARACTERS = 256
ATTACHMENT_BYTES = 16_384
AUTO_RESPONSE_BYTES = 2_048
MESSAGE_BYTES = 32 * 1024 * 1024
CLOSE_REASON_BYTES = 123
EVENT_TIMEOUT_MS = 604_800_000
SOCKET_BACKLOG_BYTES = 1024 * 1024  # ours: what one slow reader may make the server hold
SOCKET_BACKLOG_S = 5.0
SOCKET_EVENTS = 64  # ours: frames of one socket that wait for the actor before its reader pauses

# Life of an actor.
IDLE_S = 10.0  # Durable Objects: idle eviction
LIVE_ACTORS = 100_000  # ours: instances in memory; the longest idle leaves first
TURN_S = 5.0  # ours: a handler that keeps the turn longer than one to two of these is named in the log
CRITICAL_SECTION_S = 30.0  # Durable Objects: blockConcurrencyWhile
CRITICAL_SECTION_DEPTH = 64
MAILBOX_EVENTS = 1_000  # ours: queued events of one actor; Durable Objects: "Too many requests queued"
TURN_EFFECTS = 1_000  # ours: effects of one turn that leave together at its end
HELD_EFFECTS = 10_000  # ours: effects of one instance behind its output gate
STORE_BACKLOG_BYTES = 64 * 1024 * 1024  # ours: sealed but not yet durable, all actors together

# Alarms.
ALARM_RETRIES = 6
ALARM_BACKOFF_S = 2.0
ALARM_HANDLER_S = 15 * 60.0

# HTTP.
REQUEST_HEAD_BYTES = 8_192
REQUEST_HEAD_S = 5.0
REQUEST_HEADERS = 64
REQUEST_BODY_BYTES = 8 * 1024 * 1024
IDLE_CONNECTION_S = 75.0


@attrs.frozen(kw_only=True)
class StorageLimits:
    """What one storage call may carry; `production` is Durable Objects' documented set."""

    key_bytes: int = KEY_BYTES
    value_bytes: int = VALUE_BYTES
    keys_per_call: int = KEYS_PER_CALL

    @classmethod
    def workerd(cls) -> StorageLimits:
        """What Cloudflare's local runtime enforces: only the size of a row."""
        return cls(key_bytes=WORKERD_ROW_BYTES, value_bytes=WORKERD_ROW_BYTES, keys_per_call=WORKERD_ROW_BYTES)
