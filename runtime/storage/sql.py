"""`ctx.storage.sql`: statements on the actor's own database, and cursors over their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import apsw

from runtime import limits
from runtime.errors import SqlError
from runtime.storage.object_keys import ObjectKeys
from runtime.storage.statements import split_statements

NO_SQL = (
    'SQL is not enabled for this actor class; set storage = "sql" on it. '
    "A class cannot change that once it has stored something."
)

SqlValue = int | float | str | bytes | None
Row = tuple[SqlValue, ...]

_TYPES = (int, float, str, bytes, bytearray, memoryview, type(None))


class Sql:
    """SQL on the database of one object.

    Durable Objects: `SqlStorage`. Statements run at once and belong to the open batch like every other write. What is
    allowed: tables, indexes, views, triggers, FTS5, R*Tree, JSON and mathematical functions; not: transactions,
    ATTACH, temporary tables, names that begin with `_cf_`, most pragmas.
    """

    __slots__ = ("_begin", "_check", "_database")

    def __init__(self, database: ObjectKeys, check: Callable[[], None], begin: Callable[[], None]) -> None:
        self._database = database
        self._check = check
        self._begin = begin

    def exec(self, query: str, *bindings: SqlValue) -> SqlCursor:
        """Run one statement or several, and give a cursor over the rows of the last.

        A statement that writes has taken effect when this returns, whether its rows are read or not. Nothing of the
        statement that fails stays; the statements before it do.

        Args:
            query: up to 100,000 bytes of SQL.
            bindings: for the parameters of the last statement, in their order: int (64 bits), float, str, bytes or
                None. True and False are stored as 1 and 0.

        Raises:
            SqlError: SQLite refused the statement; or no statement, or another number of parameters.
            TypeError: a binding of another type.
        """
        self._check()
        self._database.check()
        if not isinstance(cast("object", query), str):
            raise TypeError(f"sql.exec() needs SQL text; got {type(query).__name__} {query!r:.60}")
        for place, value in enumerate(bindings, 1):
            if not isinstance(cast("object", value), _TYPES):
                raise TypeError(
                    f"binding {place} is {type(value).__name__} {value!r:.60}; "
                    "SQL takes int, float, str, bytes and None: convert it first"
                )
        if len(query.encode("utf-8", "surrogatepass")) > limits.SQL_TEXT_BYTES:
            raise SqlError("statement too long: SQLITE_TOOBIG", code="SQLITE_TOOBIG")
        statements = split_statements(query)
        if not statements:
            raise SqlError("SQL code did not contain a statement.")
        for statement in statements[:-1]:
            SqlCursor(self, statement, (), last=False).close()
        return SqlCursor(self, statements[-1], bindings, last=True)

    def read(self, query: str, *, rows: int, steps: int) -> tuple[tuple[str, ...], list[Row], bool]:
        """What one statement that only reads gives: names of columns, at most so many rows, whether there are more.

        For whoever looks in from outside: what is refused to the app is refused here, and whatever writes.

        Args:
            steps: of SQLite's virtual machine, after which it is cut off; 10 million take a tenth of a second or so.

        Raises:
            SqlError: it would write, took too long, or SQLite refused it.
        """
        self._check()
        self._database.check()
        connection = self._database.connection
        connection.set_progress_handler(lambda: True, steps)
        try:
            cursor = SqlCursor(self, query, (), last=True, writes=False)
            found = list(islice(cursor.raw(), rows + 1))
            cursor.close()
        finally:
            connection.set_progress_handler(None)
        return cursor.column_names, found[:rows], len(found) > rows

    @property
    def database_size(self) -> int:
        """Bytes that the database uses: its pages of 4,096 bytes less those that are free."""
        self._check()
        return self._database.size

    def set_max_page_count_for_test(self, pages: int) -> None:
        """Let the database grow to so many pages of 4,096 bytes and no further, to see an app run out of space."""
        self._check()
        self._database.bound_pages(pages)


class SqlCursor(Iterator[dict[str, SqlValue]]):
    """Rows of one statement, each once, as dicts by column name (of two columns with one name the last counts).

    It stays usable across waits and later events of the same instance, and reads one row ahead. A statement that
    writes and has RETURNING must be read to its end before the next wait, or its batch cannot be committed.
    """

    __slots__ = ("_ahead", "_cursor", "_database", "_names", "_rows", "_sql", "_total", "_writes", "_written")

    def __init__(
        self, sql: Sql, statement: str, bindings: tuple[SqlValue, ...], *, last: bool, writes: bool = True
    ) -> None:
        self._sql = sql
        self._writes = writes
        self._database = sql._database
        self._names: tuple[str, ...] = ()
        self._rows = 0
        self._ahead: Row | None = None
        connection = self._database.connection
        self._cursor = cursor = connection.cursor()
        cursor.exec_trace = self._about_to_run
        self._total: int = connection.total_changes()
        try:
            # A text of the runtime never ends so: the app's statements share no prepared statement with it.
            self._step(lambda: cursor.execute(f"{statement}\n", bindings), statement)
        except apsw.BindingsError:
            raise _bindings_error(last=last) from None
        self._written: int = connection.total_changes() - self._total
        self._advance()

    def _about_to_run(self, cursor: apsw.Cursor, _sql: str, _bindings: Any) -> bool:
        self._names = tuple(column[0] for column in cursor.get_description())
        if not cursor.is_readonly:
            if not self._writes:
                raise SqlError("this statement writes; only what reads is allowed here", code="SQLITE_READONLY")
            text, self._database.guard.text = self._database.guard.text, None
            self._sql._begin()
            self._database.guard.text = text
        return True

    def _advance(self) -> None:
        row: Row | None = self._step(lambda: next(self._cursor, None))
        self._ahead = row
        self._rows += row is not None

    def _step(self, step: Callable[[], Any], text: str = "") -> Any:
        guard = self._database.guard
        guard.text = text
        try:
            return step()
        except apsw.BindingsError:
            raise
        except apsw.Error as error:
            seen = guard.error(error)
            self._database.note(error, seen)
            raise seen from error
        finally:
            guard.text = None

    def _next(self) -> Row | None:
        self._sql._check()
        row = self._ahead
        if row is not None:
            self._database.check()
            self._advance()
        return row

    def __next__(self) -> dict[str, SqlValue]:
        row = self._next()
        if row is None:
            raise StopIteration
        return dict(zip(self._names, row, strict=True))

    def next(self) -> dict[str, SqlValue] | None:
        """The next row, None after the last."""
        return next(self, None)

    def to_array(self) -> list[dict[str, SqlValue]]:
        """All rows that are left."""
        return list(self)

    def one(self) -> dict[str, SqlValue]:
        """The only row.

        Raises:
            SqlError: there is none, or more than one.
        """
        row = next(self, None)
        if row is None:
            raise SqlError("Expected exactly one result from SQL query, but got no results.")
        if self._ahead is not None:
            raise SqlError("Expected exactly one result from SQL query, but got multiple results.")
        return row

    def raw(self) -> Iterator[Row]:
        """The rows that are left as tuples, columns with the same name included."""
        while (row := self._next()) is not None:
            yield row

    def close(self) -> None:
        """Read no further."""
        self._ahead = None
        self._cursor.close(True)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns, in their order."""
        return self._names

    @property
    def rows_read(self) -> int:
        """Rows that were taken from the database so far, the one that was read ahead included."""
        return self._rows

    @property
    def rows_written(self) -> int:
        """Rows that the statement inserted, changed or deleted, those of triggers and foreign keys included."""
        return self._written


def _bindings_error(*, last: bool) -> SqlError:
    if last:
        return SqlError("Wrong number of parameter bindings for SQL query.")
    return SqlError(
        "When executing multiple SQL statements in a single call, only the last statement can have parameters."
    )
