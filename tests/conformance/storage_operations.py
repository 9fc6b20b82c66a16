"""Operations on storage: keys, transactions, alarms, SQL, bookmarks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, cast

import attrs

from tests.conformance.run import Program, Run, after_commits, perform, perform_now, step
from tests.conformance.values import UNDEFINED, is_undefined, js_map, to_number, to_text, truthy
from tests.conformance.values import milliseconds as to_milliseconds

_TEXT_OPTIONS = {"start": "start", "startAfter": "start_after", "end": "end", "prefix": "prefix"}


def _list_options(options: Any) -> dict[str, Any]:
    """List options as keyword arguments, coerced as JavaScript's binding coerces them."""
    given = {name: value for name, value in (options or {}).items() if not is_undefined(value)}
    known: dict[str, Any] = {ours: to_text(given[name]) for name, ours in _TEXT_OPTIONS.items() if name in given}
    if "reverse" in given:
        known["reverse"] = truthy(given["reverse"])
    if "limit" in given:
        limit = to_number(given["limit"])
        known["limit"] = 0 if math.isnan(limit) else int(limit)
    return known


def _key(value: Any) -> Any:
    return value if isinstance(value, str | list) else to_text(value)


def _get(run: Run, key: Any, *_: Any) -> Any:
    wanted = _key(run.value(key))
    if isinstance(wanted, list):
        return js_map(run.storage.get_many([to_text(item) for item in wanted]).items())
    return run.storage.get(wanted, Any, UNDEFINED)


def _put(run: Run, key: Any, *rest: Any) -> None:
    target, values = run.value(key), [run.value(item) for item in rest]
    if isinstance(target, str):
        if not values or is_undefined(values[0]):
            raise TypeError("put() called with undefined value.")
        run.storage.put(target, values[0], **_write_options(values[1:]))
    elif values and not _is_options(values[0]):
        run.storage.put(target, values[0])
    else:
        entries = {name: value for name, value in target.items() if not is_undefined(value)}
        run.storage.put_many(entries, **_write_options(values))


def _is_options(value: Any) -> bool:
    return isinstance(value, dict) and set(value) <= {"allowUnconfirmed", "allowConcurrency", "noCache"}


def _write_options(options: Sequence[Any]) -> dict[str, Any]:
    given = options[0] if options and isinstance(options[0], dict) else {}
    return {"allow_unconfirmed": True} if given.get("allowUnconfirmed") else {}


def _delete(run: Run, key: Any, *options: Any) -> Any:
    wanted, known = _key(run.value(key)), _write_options([run.value(item) for item in options])
    if isinstance(wanted, list):
        return run.storage.delete_many([to_text(item) for item in wanted], **known)
    return run.storage.delete(wanted, **known)


def _list(run: Run, options: Any = None) -> Any:
    return js_map(run.storage.list(**_list_options(run.value(options))).items())


# ── transactions and critical sections ──


def _transaction(run: Run, program: Program) -> Any:
    async def body(transaction: Any) -> Any:
        return await perform(program, run.part(transaction=transaction))

    return run.ctx.storage.transaction(body)


def _transaction_sync(run: Run, program: Program) -> Any:
    return run.ctx.storage.transaction_sync(lambda: perform_now(program, run.part()))


def _keep_transaction(run: Run) -> None:
    run.memory["transaction"] = run.transaction


def _late_put(run: Run, key: Any, value: Any) -> None:
    run.memory["transaction"].put(run.value(key), run.value(value))


def _block(run: Run, program: Program) -> Any:
    async def section() -> Any:
        try:
            return await perform(program, run.part())
        except Exception:
            await after_commits(run, run.world.commit_rounds())
            raise

    return run.ctx.block_concurrency_while(section)


# ── alarms ──


def _set_alarm(run: Run, milliseconds: Any, *_: Any) -> None:
    # JavaScript's clock has whole milliseconds: an alarm comes a little before a timer that was set with it.
    run.storage.set_alarm(run.ctx.now() + (run.value(milliseconds) - 0.5) / 1000)


def _set_alarm_at(run: Run, milliseconds: Any) -> None:
    time = run.value(milliseconds)
    if isinstance(time, datetime):
        time = to_milliseconds(time)
    run.storage.set_alarm(time / 1000 if isinstance(time, int | float) else time)


def _alarm_in(run: Run) -> Any:
    time = run.storage.get_alarm()
    return None if time is None else math.floor(time - run.ctx.now() + 0.5)


# ── synchronous keys ──


def _kv(run: Run) -> Any:
    return cast("Any", run.ctx.storage).kv


def _kv_put(run: Run, key: Any, value: Any) -> None:
    _kv(run).put(run.value(key), run.value(value))


def _kv_list(run: Run, options: Any = None) -> Any:
    return [list(pair) for pair in _kv(run).list(**_list_options(run.value(options)))]


def _kv_iterate(run: Run, name: str, options: Any = None) -> None:
    run.memory[name] = iter(_kv(run).list(**_list_options(run.value(options))))


def _next(run: Run, name: str) -> Any:
    for item in run.memory[name]:
        return {"done": False, "value": list(item) if isinstance(item, tuple) else item}
    return {"done": True, "value": UNDEFINED}


# ── SQL and recovery ──


def _sql_value(value: Any) -> Any:
    """A binding as JavaScript's binding coerces it: every number a real, what is no value its text."""
    if value is None or is_undefined(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str | bytes):
        return to_text(value)
    return float(value) if isinstance(value, int) else value


def _execute(run: Run, text: Any, bindings: Any = None) -> Any:
    values = [_sql_value(item) for item in run.value(bindings) or ()]
    return cast("Any", run.ctx.storage).sql.exec(run.value(text), *values)


def _sql(run: Run, text: Any, bindings: Any = None, mode: str = "array") -> Any:
    cursor = _execute(run, text, bindings)
    if mode == "one":
        return cursor.one()
    if mode == "raw":
        return [list(row) for row in cursor.raw()]
    if mode == "array":
        return list(cursor)
    if mode == "stats":
        rows = len(list(cursor))
        return {"rows": rows, "rowsRead": cursor.rows_read, "rowsWritten": cursor.rows_written}
    return UNDEFINED


def _cursor(run: Run, name: str, text: Any, bindings: Any = None) -> None:
    run.memory[name] = _execute(run, text, bindings)


def _cursor_info(run: Run, name: str) -> Any:
    cursor = run.memory[name]
    return {
        "columnNames": list(cursor.column_names),
        "rowsRead": cursor.rows_read,
        "rowsWritten": cursor.rows_written,
    }


async def _bookmark(run: Run) -> Any:
    bookmark = await run.ctx.storage.get_current_bookmark()
    taken: list[str] = run.memory.setdefault("bookmarks", [])
    taken.append(bookmark)
    return {
        "length": len(bookmark),
        "parts": [len(part) for part in bookmark.split("-")],
        "later": None if len(taken) < 2 else bookmark > taken[-2],
    }


async def _bookmark_for_time(run: Run, ago: Any) -> Any:
    return await run.ctx.storage.get_bookmark_for_time(run.ctx.now() - run.value(ago) / 1000)


async def _restore(run: Run) -> Any:
    return await run.ctx.storage.on_next_session_restore_bookmark(run.memory["bookmarks"][-1])


STORAGE: dict[str, Callable[..., Any]] = {
    "get": _get,
    "put": _put,
    "delete": _delete,
    "list": _list,
    "deleteAll": lambda run, *_: run.storage.delete_all(),
    "sync": lambda run: run.ctx.storage.sync(),
    "outer": lambda run, operation: step(operation, attrs.evolve(run, transaction=None)),
    "txn": _transaction,
    "txnSync": _transaction_sync,
    "keepTxn": _keep_transaction,
    "lateTxnPut": _late_put,
    "rollback": lambda run: run.transaction.rollback(),
    "block": _block,
    "setAlarm": _set_alarm,
    "setAlarmAt": _set_alarm_at,
    "getAlarm": lambda run: None if run.storage.get_alarm() is None else "set",
    "alarmIn": _alarm_in,
    "deleteAlarm": lambda run: run.storage.delete_alarm(),
    "kvPut": _kv_put,
    "kvGet": lambda run, key: _kv(run).get(run.value(key), Any, UNDEFINED),
    "kvDelete": lambda run, key: _kv(run).delete(run.value(key)),
    "kvList": _kv_list,
    "kvIter": _kv_iterate,
    "kvNext": _next,
    "sql": _sql,
    "cursor": _cursor,
    "next": _next,
    "cursorInfo": _cursor_info,
    "dbSize": lambda run: cast("Any", run.ctx.storage).sql.database_size,
    "maxPages": lambda run, pages: cast("Any", run.ctx.storage).sql.set_max_page_count_for_test(run.value(pages)),
    "bookmark": _bookmark,
    "bookmarkForTime": _bookmark_for_time,
    "restoreBookmark": _restore,
}
