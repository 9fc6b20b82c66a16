"""Where our errors read differently on purpose: class and text here, name and text as recorded.

Python's classes and method names, and messages that also say what was seen and what to do. Everything that is not in
this table has to read as the real runtime's.
"""

from __future__ import annotations

import re
from typing import Any

from runtime import ActorError, InvalidId, LimitExceeded, SqlError, StorageFailed

_PUT_TEXT = (
    "put() may only be called with a single key-value pair and optional options as put(key, value, options) "
    "or with multiple key-value pairs and optional options as put(entries, options)"
)
_MIGRATE = (
    "change `new_classes` to `new_sqlite_classes` within the 'migrations' field in your wrangler.jsonc or "
    "wrangler.toml file. If using workerd directly,{}set `enableSql = true` in your workerd config for the class. Note "
    "that this change cannot be made after the class is already deployed to production."
)
_NO_SQL = "SQL is not enabled for this Durable Object class. To enable it, " + _MIGRATE.format("")
_NO_KV = (
    "The storage.kv (synchronous KV) API is only available for SQLite-backed Durable Objects, but this object's "
    "namespace is not declared to use SQLite. You can use the older, asyncronous interface via methods of `storage` "
    "itself (e.g. `storage.get()`). Alternatively, to enable SQLite, " + _MIGRATE.format(" ")
)
_NO_TRANSACTION = (
    "To execute a transaction, please use the state.storage.transaction() or state.storage.transactionSync() APIs "
    "instead of the SQL BEGIN TRANSACTION or SAVEPOINT statements. The JavaScript API is safer because it will "
    "automatically roll back on exceptions, and because it interacts correctly with Durable Objects' automatic atomic "
    "write coalescing."
)
# (our class, pattern of our text, recorded name, recorded text with the pattern's groups)
_TABLE: list[tuple[type[BaseException], str, str, str]] = [
    # Calls.
    (ActorError, r'(The RPC receiver does not implement the method "\w+"\.) .*', "TypeError", r"\1"),
    (ActorError, r"('alarm' is a reserved method and cannot be called over RPC\.)", "TypeError", r"\1"),
    (ActorError, r"(Timed out waiting to evict Durable Object: it still has active references\.) .*", "Error", r"\1"),
    (ActorError, r"(Durable Object is overloaded. Too many requests queued\.) .*", "Error", r"\1"),
    # Values: Python says where in the value and what is allowed.
    (TypeError, r"value.* is the function .*", "DataCloneError", "() => a could not be cloned."),
    # Keys, lists, limits.
    (
        TypeError,
        r"a key is text; got dict .*",
        "TypeError",
        _PUT_TEXT,
    ),
    (
        TypeError,
        r"list\(\) cannot be called with both start and start_after values\.",
        "TypeError",
        "list() cannot be called with both start and startAfter values.",
    ),
    (TypeError, r"List limit must be positive; got .*", "TypeError", "List limit must be positive."),
    (LimitExceeded, r"(key|value).* is [\d,]+ bytes; at most .*", "Error", "string or blob too big: SQLITE_TOOBIG"),
    # Transactions.
    (
        RuntimeError,
        r"Cannot call delete_all\(\) within a transaction",
        "Error",
        "Cannot call deleteAll() within a transaction",
    ),
    (RuntimeError, r"Cannot (get|put|delete)_many\(\) (on rolled .*)", "Error", r"Cannot \1() \2"),
    (RuntimeError, r"Cannot get_alarm\(\) (on rolled back transaction)", "Error", r"Cannot getAlarm() \1"),
    (RuntimeError, r"Cannot set_alarm\(\) (on rolled back transaction)", "Error", r"Cannot setAlarm() \1"),
    (RuntimeError, r"Cannot delete_alarm\(\) (on rolled back transaction)", "Error", r"Cannot deleteAlarm() \1"),
    # SQL classes.
    (RuntimeError, r"SQL is not enabled for this actor class; .*", "Error", _NO_SQL),
    (RuntimeError, r"The storage\.kv API is only available for SQL classes\. .*", "Error", _NO_KV),
    (SqlError, r"To run a transaction use ctx\.storage\.transaction\(\) .*", "Error", _NO_TRANSACTION),
    (
        StorageFailed,
        r"the writes were not stored: cannot commit transaction - .*",
        "Error",
        "internal error; reference = <id>",
    ),
    # Alarms.
    (
        TypeError,
        r"Your actor class must have an alarm\(\) handler in order to call set_alarm\(\)",
        "TypeError",
        "Your Durable Object class must have an alarm() handler in order to call setAlarm()",
    ),
    (
        TypeError,
        r"set_alarm\(\) cannot be called with an alarm time <= 0 .*",
        "TypeError",
        "setAlarm() cannot be called with an alarm time <= 0",
    ),
    (
        TypeError,
        r"set_alarm\(\) needs seconds since the Unix epoch; .*",
        "TypeError",
        "Failed to execute 'setAlarm' on 'DurableObjectStorage': parameter 1 is not of type 'date'.",
    ),
    # Sockets.
    (LimitExceeded, r"(Request|Response)( cannot be larger than .*)", "RangeError", r"\1\2"),
    (
        Exception,
        r"(Message is too large: .*)",
        "Error",
        r"WebSocket protocol error; protocolError.statusCode = 1009; protocolError.description = \1",
    ),
    (ValueError, r"(Invalid WebSocket close code: .*)", "InvalidAccessError", r"\1"),
    (ValueError, r"(WebSocket close reason must not be longer than .*)", "SyntaxError", r"\1"),
    (ValueError, r"(If you specify a WebSocket close reason, .*)", "InvalidAccessError", r"\1"),
    (
        RuntimeError,
        r"this WebSocket was accepted already; accept each one once",
        "Error",
        "Cannot call `acceptWebSocket()` if the WebSocket was already accepted via `accept()`",
    ),
]
_SCRUBBED = [
    (re.compile(r"reference = [0-9a-z]+"), "reference = <id>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<object-id>"),
]


def as_recorded(error: BaseException) -> tuple[str, str]:
    """Name and message under which the real runtime reports what `error` reports here."""
    text = str(error)
    for cls, pattern, name, message in _TABLE:
        if isinstance(error, cls):
            match = re.fullmatch(pattern, text, re.DOTALL)
            if match is not None:
                return name, match.expand(message)
    for pattern_, replacement in _SCRUBBED:
        text = pattern_.sub(replacement, text)
    return _name(error), text


def _name(error: Any) -> str:
    named: str | None = getattr(error, "js_name", None)
    if named is not None:
        return named
    if isinstance(error, InvalidId):
        return "TypeError"
    name = type(error).__name__
    return name if name in {"TypeError", "RangeError", "SyntaxError"} else "Error"
