"""`ctx.storage.sql` as an actor of a SQL class sees it."""

from __future__ import annotations

import attrs
import pytest

from runtime import Actor, App, Namespace, SqlError, StorageFailed
from runtime.limits import StorageLimits
from runtime.testing import start_server


class Book(Actor["Env"]):
    """Runs what a test hands over, on its own storage."""

    storage = "sql"

    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.kept = {}

    async def do(self, name):
        return await PROGRAMS[name](self)


class Plain(Book):
    storage = "shared"


@attrs.frozen
class Env:
    books: Namespace[Book]
    plain: Namespace[Plain]


APP = App(env=Env, routes={})
PROGRAMS = {}


async def run(server, *programs, name="a", namespace="books"):
    """Run programs as events of one actor, and give the result of the last."""
    result = None
    for program in programs:
        PROGRAMS["it"] = program
        result = await getattr(server.env, namespace).get_by_name(name).do("it")
    return result


@pytest.fixture
async def server(autojump_clock):
    async with start_server(APP) as running:
        yield running


async def make_table(book):
    book.ctx.storage.sql.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a'), (2, 'b')")


def refused(book, query, *bindings):
    with pytest.raises(SqlError) as caught:
        book.ctx.storage.sql.exec(query, *bindings)
    return str(caught.value)


# Cursors.


async def test_rows_come_as_dicts_as_tuples_and_one_by_one(autojump_clock, server):
    async def program(book):
        sql = book.ctx.storage.sql
        cursor = sql.exec("SELECT id, v FROM t")
        return (
            sql.exec("SELECT id, v FROM t").to_array(),
            list(sql.exec("SELECT id, id FROM t").raw()),
            cursor.next(),
            list(cursor),
            cursor.next(),
            cursor.column_names,
        )

    assert await run(server, make_table, program) == (
        [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}],
        [(1, 1), (2, 2)],
        {"id": 1, "v": "a"},
        [{"id": 2, "v": "b"}],
        None,
        ("id", "v"),
    )


async def test_one_wants_exactly_one_row(autojump_clock, server):
    async def program(book):
        sql = book.ctx.storage.sql
        assert sql.exec("SELECT v FROM t WHERE id = ?", 2).one() == {"v": "b"}
        with pytest.raises(SqlError, match="got no results"):
            sql.exec("SELECT v FROM t WHERE id = 9").one()
        with pytest.raises(SqlError, match="got multiple results"):
            sql.exec("SELECT v FROM t").one()

    await run(server, make_table, program)


async def test_a_cursor_without_rows_knows_its_columns(autojump_clock, server):
    async def program(book):
        cursor = book.ctx.storage.sql.exec("SELECT id, v FROM t WHERE 0")
        return cursor.column_names, cursor.to_array(), cursor.rows_read

    assert await run(server, make_table, program) == (("id", "v"), [], 0)


async def test_rows_are_counted(autojump_clock, server):
    async def program(book):
        sql = book.ctx.storage.sql
        read = sql.exec("SELECT * FROM t")
        read.to_array()
        return read.rows_read, read.rows_written, sql.exec("UPDATE t SET v = 'c'").rows_written

    assert await run(server, make_table, program) == (2, 0, 2)


async def test_a_cursor_outlives_waits_and_events_but_not_its_instance(autojump_clock, server):
    async def begin(book):
        book.kept["c"] = book.ctx.storage.sql.exec("SELECT id FROM t")
        await book.ctx.sleep(1)
        return book.kept["c"].next()

    async def go_on(book):
        return book.kept["c"].next() if "c" in book.kept else "gone"

    assert await run(server, make_table, begin) == {"id": 1}
    assert await run(server, go_on) == {"id": 2}
    await server.evict(server.env.books.get_by_name("a"))
    assert await run(server, go_on) == "gone"


async def test_every_kind_of_value_comes_back(autojump_clock, server):
    async def program(book):
        values = (1, -(2**63), 1.5, "é\0x", b"\0\xff", None, True)
        return next(book.ctx.storage.sql.exec("SELECT ?, ?, ?, ?, ?, ?, ?", *values).raw())

    assert await run(server, program) == (1, -(2**63), 1.5, "é\0x", b"\0\xff", None, 1)


async def test_other_values_are_refused_by_their_place(autojump_clock, server):
    async def program(book):
        with pytest.raises(TypeError, match="binding 2 is dict"):
            book.ctx.storage.sql.exec("SELECT ?, ?", 1, {})
        with pytest.raises(OverflowError):
            book.ctx.storage.sql.exec("SELECT ?", 2**63)
        with pytest.raises(TypeError, match="needs SQL text"):
            book.ctx.storage.sql.exec(b"SELECT 1")

    await run(server, program)


# Statements.


async def test_several_statements_run_in_order_and_the_last_has_the_bindings(autojump_clock, server):
    async def program(book):
        cursor = book.ctx.storage.sql.exec(
            "CREATE TABLE l (x); -- a ; in a comment\n"
            "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO l VALUES ('x;y'); INSERT INTO l VALUES (2); END;"
            "INSERT INTO t VALUES (3, ';'); SELECT x FROM l WHERE x <> ?; -- end",
            5,
        )
        return cursor.to_array()

    assert await run(server, make_table, program) == [{"x": "x;y"}, {"x": 2}]


async def test_bindings_have_to_fit(autojump_clock, server):
    async def program(book):
        assert refused(book, "SELECT ?") == "Wrong number of parameter bindings for SQL query."
        assert refused(book, "SELECT 1", 1) == "Wrong number of parameter bindings for SQL query."
        assert "only the last statement can have parameters" in refused(book, "SELECT ?; SELECT ?", 1)

    await run(server, program)


@pytest.mark.parametrize("query", ["", ";", " ; \n", "-- nothing", "/* nothing */ ;"])
async def test_a_text_without_a_statement_is_refused(autojump_clock, server, query):
    async def program(book):
        return refused(book, query)

    assert await run(server, program) == "SQL code did not contain a statement."


async def test_a_statement_that_fails_leaves_nothing_and_those_before_it_stay(autojump_clock, server):
    async def program(book):
        text = refused(book, "INSERT INTO t VALUES (3, 'c'); INSERT INTO t VALUES (4, 'd'), (1, 'again')")
        return text, [row for (row,) in book.ctx.storage.sql.exec("SELECT id FROM t").raw()]

    assert await run(server, make_table, program) == (
        "UNIQUE constraint failed: t.id: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_PRIMARYKEY)",
        [1, 2, 3],
    )


async def test_errors_say_where_and_what(autojump_clock, server):
    async def program(book):
        with pytest.raises(SqlError) as caught:
            book.ctx.storage.sql.exec("SELECT nope FROM t")
        error = caught.value
        return str(error), error.code, error.extended_code, error.offset

    assert await run(server, make_table, program) == (
        "no such column: nope at offset 7: SQLITE_ERROR",
        "SQLITE_ERROR",
        None,
        7,
    )


@pytest.mark.parametrize(
    "query",
    [
        "ATTACH ':memory:' AS other",
        "CREATE TEMP TABLE x (y)",
        "CREATE TABLE _cf_mine (x)",
        "CREATE TABLE _CF_mine (x)",
        "CREATE VIEW _cf_v AS SELECT 1",
        "ALTER TABLE t RENAME TO _cf_t",
        "PRAGMA user_version",
        "PRAGMA journal_mode = delete",
        "PRAGMA page_size = 512",
        "PRAGMA writable_schema = on",
        "CREATE VIRTUAL TABLE x USING fts4(y)",
        "DROP TABLE _cf_KV",
        "DELETE FROM _cf_KV",
        "UPDATE _cf_METADATA SET value = 1",
    ],
)
async def test_what_is_not_for_apps_is_not_authorized(autojump_clock, server, query):
    async def seed(book):
        book.ctx.storage.put("k", 1)
        book.ctx.storage.delete_alarm()
        book.ctx.storage.sql.exec("CREATE TABLE t (x)")
        book.ctx.storage._overlay.set_alarm(book.ctx.now() + 1000)

    async def program(book):
        return refused(book, query)

    assert "not authorized: SQLITE_AUTH" in await run(server, seed, program)


async def test_the_runtimes_tables_cannot_be_read_even_in_its_own_words(autojump_clock, server):
    async def program(book):
        book.ctx.storage.put("k", 1)
        book.ctx.storage.get("k")
        return refused(book, "SELECT value FROM _cf_KV WHERE key = ?", b"k"), refused(book, "SELECT sqlite_version()")

    tables, function = await run(server, program)
    assert tables.startswith("access to _cf_KV.value is prohibited")
    assert function.startswith("not authorized to use function: sqlite_version")


async def test_how_the_database_is_laid_out_cannot_be_read(autojump_clock, server):
    async def program(book):
        return refused(book, "SELECT name FROM dbstat"), refused(book, "SELECT count(*) FROM dbstat")

    for text in await run(server, program):
        assert "SQLITE_AUTH" in text


@pytest.mark.parametrize("query", ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT x", "RELEASE x", "begin immediate"])
async def test_transactions_are_pointed_to_the_api(autojump_clock, server, query):
    async def program(book):
        return refused(book, query), book.ctx.storage.sql.exec("SELECT 1 AS one").one()

    text, after = await run(server, program)
    assert "use ctx.storage.transaction()" in text
    assert after == {"one": 1}


async def test_vacuum_fails_in_the_batch(autojump_clock, server):
    async def program(book):
        return refused(book, "VACUUM")

    assert await run(server, program) == "cannot VACUUM from within a transaction: SQLITE_ERROR"


@pytest.mark.parametrize(
    "query",
    [
        "PRAGMA table_list",
        "PRAGMA table_info(t)",
        "PRAGMA foreign_key_check",
        "PRAGMA quick_check",
        "PRAGMA optimize",
        "PRAGMA page_size",
        "PRAGMA case_sensitive_like = on",
        "SELECT * FROM pragma_index_list('t')",
        "ANALYZE",
        "EXPLAIN QUERY PLAN SELECT * FROM t",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT sum(i) FROM n",
        "SELECT sqrt(2), json_extract('{\"a\": 1}', '$.a'), value FROM json_each('[1]')",
    ],
)
async def test_what_apps_need_is_allowed(autojump_clock, server, query):
    async def program(book):
        book.ctx.storage.sql.exec(query).to_array()

    await run(server, make_table, program)


async def test_full_text_search_and_r_trees(autojump_clock, server):
    async def program(book):
        sql = book.ctx.storage.sql
        sql.exec("CREATE VIRTUAL TABLE f USING fts5(body); CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)")
        sql.exec("INSERT INTO f VALUES ('the quick fox'), ('slow')")
        sql.exec("INSERT INTO r VALUES (1, 0.0, 2.0)")
        return (
            sql.exec("SELECT body FROM f WHERE f MATCH ?", "quick").one(),
            sql.exec("SELECT id FROM r WHERE x0 <= 1 AND x1 >= 1").one(),
        )

    assert await run(server, program) == ({"body": "the quick fox"}, {"id": 1})


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELECT " + ", ".join("?" * 101), "too many SQL variables"),
        (f"CREATE TABLE w ({', '.join(f'c{i}' for i in range(101))})", "too many columns"),
        ("SELECT 1" + " " * 100_000, "statement too long: SQLITE_TOOBIG"),
        ("SELECT 'é'" + "é" * 49_996, "statement too long: SQLITE_TOOBIG"),
        ("SELECT 'x' LIKE '" + "%a" * 26 + "'", "LIKE or GLOB pattern too complex"),
        (" UNION ".join(["SELECT 1"] * 6), "too many terms in compound SELECT"),
        ("SELECT " + "+".join(["1"] * 102), "Expression tree is too large"),
        (f"SELECT max({', '.join(['1'] * 33)})", "too many arguments on function max"),
        ("SELECT zeroblob(3000000)", "string or blob too big: SQLITE_TOOBIG"),
    ],
)
async def test_limits_of_statements(autojump_clock, server, query, text):
    async def program(book):
        with pytest.raises(SqlError, match=text):
            book.ctx.storage.sql.exec(query, *([1] * query.count("?"))).to_array()

    await run(server, program)


# With the rest of storage.


async def test_keys_tables_and_the_alarm_are_one_batch(autojump_clock, server):
    async def abort(book):
        storage = book.ctx.storage
        storage.put("k", 1)
        storage.kv.put("l", 2)
        storage.sql.exec("INSERT INTO t VALUES (3, 'c')")
        book.ctx.abort("stop")

    async def look(book):
        return dict(book.ctx.storage.list()), book.ctx.storage.sql.exec("SELECT count(*) AS n FROM t").one()

    await run(server, make_table)
    with pytest.raises(Exception, match="stop"):
        await run(server, abort)
    assert await run(server, look) == ({}, {"n": 2})


async def test_transactions_take_tables_back_too(autojump_clock, server):
    async def program(book):
        storage, sql = book.ctx.storage, book.ctx.storage.sql

        def inner():
            sql.exec("INSERT INTO t VALUES (9, 'z')")
            storage.put("gone", 1)
            raise KeyError

        async def outer(txn):
            sql.exec("CREATE TABLE u (x)")
            storage.put("also gone", 1)
            txn.rollback()

        with pytest.raises(KeyError):
            storage.transaction_sync(inner)
        storage.transaction_sync(lambda: sql.exec("INSERT INTO t VALUES (3, 'c')"))
        await storage.transaction(outer)
        storage.put("kept", 1)
        return (
            [name for (name,) in sql.exec("SELECT name FROM pragma_table_list WHERE name IN ('t', 'u')").raw()],
            [row for (row,) in sql.exec("SELECT id FROM t").raw()],
            list(storage.list()),
        )

    assert await run(server, make_table, program) == (["t"], [1, 2, 3], ["kept"])


async def test_delete_all_drops_everything_that_refers_to_each_other(autojump_clock, server):
    async def program(book):
        storage, sql = book.ctx.storage, book.ctx.storage.sql
        sql.exec(
            "CREATE TABLE p (id INTEGER PRIMARY KEY, c REFERENCES c(id));"
            "CREATE TABLE c (id PRIMARY KEY, p REFERENCES p);"
            "PRAGMA defer_foreign_keys = on; INSERT INTO p VALUES (1, 2); INSERT INTO c VALUES (2, 1);"
            "CREATE VIEW v AS SELECT * FROM p; CREATE VIRTUAL TABLE f USING fts5(x); CREATE INDEX i ON p (c);"
            "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO a DEFAULT VALUES"
        )
        storage.put("k", 1)
        await book.ctx.sleep(1)
        storage.delete_all()
        left = [name for (name,) in sql.exec("SELECT name FROM sqlite_master").raw()]
        sql.exec("CREATE TABLE p (x); INSERT INTO p VALUES (7)")
        storage.put("new", 2)
        return left, dict(storage.list())

    async def look(book):
        return dict(book.ctx.storage.list()), book.ctx.storage.sql.exec("SELECT x FROM p").one()

    assert await run(server, program) == (["sqlite_sequence"], {"new": 2})
    await server.evict(server.env.books.get_by_name("a"))
    assert await run(server, look) == ({"new": 2}, {"x": 7})


async def test_a_class_without_sql_says_how_to_get_it(autojump_clock, server):
    async def program(book):
        with pytest.raises(RuntimeError, match='set storage = "sql"'):
            _ = book.ctx.storage.sql
        with pytest.raises(RuntimeError, match="only available for SQL classes"):
            _ = book.ctx.storage.kv

    await run(server, program, namespace="plain")


async def test_a_key_and_its_value_share_two_mebibytes(autojump_clock, server):
    async def program(book):
        book.ctx.storage.put("k" * 100_000, b"x" * 1_900_000)
        with pytest.raises(ValueError, match=r"with its key is [\d,]+ bytes; at most 2,097,152"):
            book.ctx.storage.put("k" * 100_000, b"x" * 2_000_000)
        return len(book.ctx.storage.get("k" * 100_000))

    assert await run(server, program) == 1_900_000


# Failures.


async def test_a_violated_constraint_at_the_end_of_the_turn_undoes_the_batch(autojump_clock, server):
    async def seed(book):
        book.ctx.storage.sql.exec("CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p)")

    async def break_it(book):
        book.ctx.storage.put("k", 1)
        book.ctx.storage.sql.exec("PRAGMA defer_foreign_keys = on; INSERT INTO c VALUES (9)")
        book.kept["memory"] = 1
        return "looks fine"

    async def look(book):
        return dict(book.ctx.storage.list()), book.kept

    await run(server, seed)
    with pytest.raises(StorageFailed, match="constraints were violated: FOREIGN KEY constraint failed"):
        await run(server, break_it)
    assert await run(server, look) == ({}, {})


async def test_a_half_read_returning_cursor_loses_the_batch_and_a_half_read_select_does_not(autojump_clock, server):
    async def bad(book):
        book.ctx.storage.sql.exec("INSERT INTO t VALUES (3, 'c'), (4, 'd'), (5, 'e') RETURNING id").next()

    async def good(book):
        book.ctx.storage.sql.exec("INSERT INTO t VALUES (6, 'f')")
        book.kept["open"] = book.ctx.storage.sql.exec("SELECT id FROM t")
        book.kept["open"].next()

    async def look(book):
        return [row for (row,) in book.ctx.storage.sql.exec("SELECT id FROM t").raw()]

    await run(server, make_table)
    with pytest.raises(StorageFailed, match="SQL statements in progress"):
        await run(server, bad)
    assert await run(server, good, look) == [1, 2, 6]


async def test_a_full_database_ends_the_instance_even_when_the_error_is_caught(autojump_clock, server):
    seen = []

    async def fill(book):
        storage = book.ctx.storage
        storage.put("k", 1)
        storage.sql.set_max_page_count_for_test(10)
        for use in (
            lambda: storage.sql.exec("INSERT INTO t VALUES (9, zeroblob(100000))"),
            lambda: storage.get("k"),
            lambda: storage.put("k", 2),
            lambda: storage.sql.exec("SELECT 1"),
        ):
            try:
                use()
            except Exception as error:  # noqa: BLE001 -- that is the point
                seen.append((type(error), str(error)))
        return "looks fine"

    async def look(book):
        return dict(book.ctx.storage.list()), book.ctx.storage.sql.exec("SELECT count(*) AS n FROM t").one()

    await run(server, make_table)
    with pytest.raises(StorageFailed, match="database or disk is full: SQLITE_FULL"):
        await run(server, fill)
    assert [text for _, text in seen] == ["database or disk is full: SQLITE_FULL"] * 4
    assert await run(server, look) == ({}, {"n": 2})


async def test_databases_are_bounded(autojump_clock):
    async def program(book):
        return refused(book, "CREATE TABLE t AS SELECT zeroblob(1000000)")

    async with start_server(APP, storage_limits=StorageLimits(object_bytes=100_000)) as server:
        with pytest.raises(StorageFailed):
            await run(server, program)


# The synchronous keys.


async def test_the_iterator_of_keys_is_live_and_there_is_one(autojump_clock, server):
    async def program(book):
        kv = book.ctx.storage.kv
        for key in "abcd":
            kv.put(key, key)
        pairs = kv.list(reverse=True, limit=3)
        seen = [next(pairs)]
        kv.delete("c")
        kv.put("aa", "new")
        seen += list(pairs)
        second = kv.list(start="b")
        assert next(second) == ("b", "b")
        with pytest.raises(RuntimeError, match="invalidated because a new call"):
            next(pairs)
        return seen, kv.delete("nope"), kv.get("nope", default=7), list(kv.list(prefix="a", start_after="a"))

    assert await run(server, program) == ([("d", "d"), ("b", "b"), ("aa", "new")], False, 7, [("aa", "new")])
