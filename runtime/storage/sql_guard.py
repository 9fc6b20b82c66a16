"""What SQL of an app may do: the authorizer of an object's database, and how its errors read."""

from __future__ import annotations

from typing import Any, Final

import apsw

from runtime.errors import SqlError

_TRANSACTION: Final = (
    "To run a transaction use ctx.storage.transaction() or ctx.storage.transaction_sync() instead of the SQL "
    "statements BEGIN, COMMIT and SAVEPOINT: they roll back on exceptions, and know that the writes of a turn are one "
    "batch"
)
_HIDDEN = "_cf_"
_MODULES = frozenset({"fts5", "fts5vocab", "rtree", "rtree_i32"})
_TABLES_REFUSED = frozenset({"dbstat", "sqlite_dbpage"})  # they show the pages of all tables
_FUNCTIONS_REFUSED = frozenset(
    {
        "fts3_tokenizer",
        "load_extension",
        "sqlite_compileoption_get",
        "sqlite_compileoption_used",
        "sqlite_log",
        "sqlite_offset",
        "sqlite_source_id",
        "sqlite_version",
    }
)
_PRAGMAS_WITHOUT_ARGUMENT = frozenset({"data_version", "page_size"})
_PRAGMAS = frozenset(
    {
        "case_sensitive_like",
        "defer_foreign_keys",
        "foreign_key_check",
        "foreign_key_list",
        "foreign_keys",
        "ignore_check_constraints",
        "index_info",
        "index_list",
        "index_xinfo",
        "legacy_alter_table",
        "optimize",
        "quick_check",
        "recursive_triggers",
        "reverse_unordered_selects",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
_REFUSED = frozenset(
    {
        apsw.SQLITE_ATTACH,
        apsw.SQLITE_DETACH,
        apsw.SQLITE_CREATE_TEMP_INDEX,
        apsw.SQLITE_CREATE_TEMP_TABLE,
        apsw.SQLITE_CREATE_TEMP_TRIGGER,
        apsw.SQLITE_CREATE_TEMP_VIEW,
        apsw.SQLITE_DROP_TEMP_INDEX,
        apsw.SQLITE_DROP_TEMP_TABLE,
        apsw.SQLITE_DROP_TEMP_TRIGGER,
        apsw.SQLITE_DROP_TEMP_VIEW,
    }
)
_TRANSACTIONS = frozenset({apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT})
_NAMES = frozenset(
    {
        apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_ANALYZE,
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_CREATE_VTABLE,
        apsw.SQLITE_DELETE,
        apsw.SQLITE_DROP_INDEX,
        apsw.SQLITE_DROP_TABLE,
        apsw.SQLITE_DROP_TRIGGER,
        apsw.SQLITE_DROP_VIEW,
        apsw.SQLITE_DROP_VTABLE,
        apsw.SQLITE_INSERT,
        apsw.SQLITE_READ,
        apsw.SQLITE_UPDATE,
    }
)


class Guard:
    """The authorizer of one connection. It judges only while `text` is set: the app's own statement.

    Durable Objects: the same statements, pragmas and names are refused.
    """

    __slots__ = ("_transaction", "text")

    def __init__(self) -> None:
        self.text: str | None = None
        self._transaction = False

    def __call__(self, action: int, one: str | None, two: str | None, database: str | None, trigger: str | None) -> int:
        """SQLite asks this for everything that a statement does, when it is prepared."""
        if self.text is None:
            return apsw.SQLITE_OK
        if action in _TRANSACTIONS:
            self._transaction = True
            return apsw.SQLITE_DENY
        refused = (
            action in _REFUSED
            or (action in _NAMES and (_is_hidden(one) or _is_hidden(two)))
            or (action == apsw.SQLITE_READ and (one or "").lower() in _TABLES_REFUSED)
            or (action == apsw.SQLITE_PRAGMA and not _pragma_allowed(one, two))
            or (action == apsw.SQLITE_FUNCTION and (two or "").lower() in _FUNCTIONS_REFUSED)
            or (action == apsw.SQLITE_CREATE_VTABLE and (two or "").lower() not in _MODULES)
            # The new name of a table is not asked about.
            or (action == apsw.SQLITE_ALTER_TABLE and _HIDDEN in self.text.lower())
        )
        return apsw.SQLITE_DENY if refused else apsw.SQLITE_OK

    def error(self, error: apsw.Error) -> SqlError:
        """What the app sees of an error of its statement."""
        if self._transaction:
            self._transaction = False
            return SqlError(_TRANSACTION, code="SQLITE_AUTH", extended_code=None, offset=None)
        return sql_error(error)


def sql_error(error: apsw.Error) -> SqlError:
    """SQLite's error, with its text, its place in the statement, and its code."""
    seen: Any = error  # its attributes are there at run time, and not in its type
    result = seen.result or apsw.SQLITE_ERROR
    code = str(apsw.mapping_result_codes.get(result & 0xFF, "SQLITE_ERROR"))
    extended = apsw.mapping_extended_result_codes.get(seen.extendedresult)
    offset = seen.error_offset if seen.error_offset >= 0 else None
    text = str(error).rstrip("\n")
    if offset is not None:
        text += f" at offset {offset}"
    text += f": {code}"
    if extended is not None:
        text += f" (extended: {extended})"
    return SqlError(text, code=code, extended_code=None if extended is None else str(extended), offset=offset)


def _is_hidden(name: str | None) -> bool:
    return name is not None and name[:4].lower() == _HIDDEN


def _pragma_allowed(name: str | None, argument: str | None) -> bool:
    pragma = (name or "").lower()
    return pragma in _PRAGMAS or (pragma in _PRAGMAS_WITHOUT_ARGUMENT and argument is None)
