"""Every bound of the runtime, with Durable Objects' number beside it."""

from __future__ import annotations

import attrs

# Storage (Durable Objects: limits page, key-value backed objects).
KEY_BYTES = 2_048
VALUE_BYTES = 131_072
KEYS_PER_CALL = 128
WORKERD_ROW_BYTES = 8_388_642  # the largest blob that its SELECT may build

# Storage of SQL classes (Durable Objects: limits page, SQLite-backed objects).
ROW_BYTES = 2 * 1024 * 1024  # a key with its value; a text, blob or row of a table
OBJECT_BYTES = 10 * 1024**3
SQL_TEXT_BYTES = 100_000
SQL_PARAMETERS = 100
SQL_COLUMNS = 100
SQL_LIKE_BYTES = 50
SQL_FUNCTION_ARGUMENTS = 32
SQL_COMPOUND_SELECTS = 5
SQL_EXPRESSION_DEPTH = 100
SQL_TRIGGER_DEPTH = 10
OPEN_OBJECTS = 2_000  # ours: SQL objects in memory, of three open files each; the longest idle leaves first

# Names and values between actors.
NAME_BYTES = 1_024  # Durable Objects: `ctx.id.name` is dropped beyond this
RPC_BYTES = 32 * 1024 * 1024  # Durable Objects: serialized arguments or return values

# Sockets (Durable Objects: hibernatable WebSockets).
SOCKETS_PER_ACTOR = 32_768
TAGS_PER_SOCKET = 10
TAG_BYTES = 256  # of UTF-8, though the text of the error says characters
ATTACHMENT_BYTES = 16_384
AUTO_RESPONSE_BYTES = 2_048
MESSAGE_BYTES = 32 * 1024 * 1024
CLOSE_REASON_BYTES = 123
EVENT_TIMEOUT_MS = 604_800_000
SOCKET_BACKLOG_BYTES = 1024 * 1024  # ours: what one slow reader may make the server hold
SOCKET_BACKLOG_S = 5.0
STREAM_HIGH_WATER_BYTES = 65_536  # ours: of a response being streamed, what waits to be read before its writer pauses
SOCKET_EVENTS = 64  # ours: frames of one socket that wait for the actor before its reader pauses

# Life of an actor.
IDLE_S = 10.0  # Durable Objects: idle eviction
LIVE_ACTORS = 100_000  # ours: instances in memory; the longest idle leaves first
TURN_S = 5.0  # ours: a handler that keeps the turn longer than one to two of these is named in the log
CRITICAL_SECTION_S = 30.0  # Durable Objects: blockConcurrencyWhile
CRITICAL_SECTION_DEPTH = 64
FACET_NAME_BYTES = 256
FACET_DEPTH = 4  # Durable Objects: the root counts
FACETS_PER_ACTOR = 10_000  # ours: those of one actor in memory
MAILBOX_EVENTS = 1_000  # ours: queued events of one actor; Durable Objects: "Too many requests queued"
TURN_EFFECTS = 1_000  # ours: effects of one turn that leave together at its end
HELD_EFFECTS = 10_000  # ours: effects of one instance behind its output gate
STORE_BACKLOG_BYTES = 64 * 1024 * 1024  # ours: sealed but not yet durable, all actors together

# Alarms.
ALARM_RETRIES = 6
ALARM_BACKOFF_S = 2.0
ALARM_BACKOFF_MOST_S = 1_024.0  # Durable Objects: reached only by failures that do not count
ALARM_HANDLER_S = 15 * 60.0

# HTTP.
REQUEST_HEAD_BYTES = 8_192
REQUEST_HEAD_S = 5.0
REQUEST_HEADERS = 64
TLS_HANDSHAKE_S = 5.0
REQUEST_BODY_BYTES = 8 * 1024 * 1024
IDLE_CONNECTION_S = 75.0


@attrs.frozen(kw_only=True)
class StorageLimits:
    """What one storage call may carry; the defaults are Durable Objects' documented set.

    Attributes:
        key_bytes, value_bytes, keys_per_call: of classes without SQL.
        row_bytes: of SQL classes: a key with its value, a row of a table.
        object_bytes: of SQL classes: the database of one object.
        function_arguments: of SQL classes: what one SQL function may be given.
    """

    key_bytes: int = KEY_BYTES
    value_bytes: int = VALUE_BYTES
    keys_per_call: int = KEYS_PER_CALL
    row_bytes: int = ROW_BYTES
    object_bytes: int = OBJECT_BYTES
    function_arguments: int = SQL_FUNCTION_ARGUMENTS

    @classmethod
    def workerd(cls) -> StorageLimits:
        """What Cloudflare's local runtime enforces: only the size of a row."""
        return cls(
            key_bytes=WORKERD_ROW_BYTES,
            value_bytes=WORKERD_ROW_BYTES,
            keys_per_call=WORKERD_ROW_BYTES,
            row_bytes=WORKERD_ROW_BYTES,
            function_arguments=127,
        )

    def of_sql_classes(self) -> StorageLimits:
        """The same for a SQL class, where a key and its value share the bound of a row."""
        return attrs.evolve(self, key_bytes=self.row_bytes, value_bytes=self.row_bytes)
