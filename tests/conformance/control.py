"""Operations that need no runtime service but time: control flow, tasks, latches, instance memory."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from runtime import ActorEvent
from tests.conformance.run import Operation, Program, Run, begin, perform, step, then
from tests.conformance.values import UNDEFINED, Thrown, encode_error, is_undefined, make_error, truthy


def _log(run: Run, label: str, *expression: Any) -> None:
    run.log(label, *(run.value(item) for item in expression))


def _show(run: Run, label: str, operation: Operation) -> Any:
    def shown(value: Any) -> Any:
        run.log(label, None if is_undefined(value) else value)
        return value

    async def later(outcome: Awaitable[Any]) -> Any:
        try:
            value = await outcome
        except Exception as error:  # noqa: BLE001 -- the scenario shows it
            return run.log(label, error)
        return shown(value)

    try:
        outcome = step(operation, run)
    except Exception as error:  # noqa: BLE001 -- the scenario shows it
        return run.log(label, error)
    return later(outcome) if inspect.isawaitable(outcome) else shown(outcome)


def _set(run: Run, variable: str, operation: Operation) -> Any:
    def assign(value: Any) -> Any:
        run.variables[variable] = value
        return value

    return then(step(operation, run), assign)


def _return(run: Run, expression: Any) -> None:
    run.result = run.value(expression)


def _throw(run: Run, text: Any, kind: str | None = None, properties: Any = None) -> None:
    raise make_error(kind, run.value(text), run.value(properties or {}))


def _throw_value(run: Run, expression: Any) -> None:
    raise Thrown(run.value(expression))


def _if(run: Run, condition: Any, program: Program, otherwise: Program = ()) -> Any:
    return begin(program if truthy(run.value(condition)) else otherwise, run)


def _try(run: Run, program: Program, label: str = "caught") -> Any:
    def caught(error: Exception) -> None:
        run.variables["err"] = encode_error(error)
        run.log(label, error)

    async def later(rest: Awaitable[Any]) -> None:
        try:
            await rest
        except Exception as error:  # noqa: BLE001 -- the scenario shows it
            caught(error)

    try:
        rest = begin(program, run)
    except Exception as error:  # noqa: BLE001 -- the scenario shows it
        return caught(error)
    return None if rest is None else later(rest)


async def _microtasks(run: Run, count: Any) -> None:
    for _ in range(run.value(count)):
        await run.ctx.checkpoint()


def _latch(run: Run, name: str) -> ActorEvent:
    return run.latches.setdefault(name, run.ctx.event())


class _Slept:
    """A task that began with a wait for the time: its rest ran as the timer's event."""

    def __init__(self, run: Run, delay: Any, rest: Program) -> None:
        self._run, self._rest = run, rest
        self._done = run.ctx.event()
        self._error: Exception | None = None
        run.ctx.set_timeout(run.world.wait_s(run.value(delay)), self._go_on)

    async def _go_on(self) -> None:
        try:
            await perform(self._rest, self._run)
        except Exception as error:  # noqa: BLE001 -- whoever joins gets it
            self._error = error
        self._done.set()

    async def _join(self) -> Any:
        if not self._done.is_set():
            await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._run.result

    def __await__(self) -> Any:
        return self._join().__await__()


def _spawn(run: Run, name: str, program: Program) -> None:
    # There a task begins at once, and with it the timer of its first wait. One of `start_soon` first gets its turn.
    part = run.part()
    waits = next((index for index, operation in enumerate(program) if operation[0] != "log"), len(program))

    async def work(rest: Awaitable[Any] | None, error: Exception | None) -> Any:
        if error is not None:
            raise error
        if rest is not None:
            await rest
        return part.result

    if waits < len(program) and program[waits][0] == "sleep":
        begin(program[:waits], part)
        run.tasks[name] = _Slept(part, program[waits][1], program[waits + 1 :])
        return
    try:
        rest = begin(program, part)
    except Exception as error:  # noqa: BLE001 -- whoever joins gets it
        run.tasks[name] = run.ctx.start_soon(work, None, error)
    else:
        run.tasks[name] = run.ctx.start_soon(work, rest, None)


def _nowait(run: Run, operation: Operation) -> None:
    async def later(outcome: Awaitable[Any]) -> None:
        try:
            await outcome
        except Exception as error:  # noqa: BLE001 -- the scenario shows it
            run.log("unawaited-error", error)

    outcome = step(operation, run)
    if inspect.isawaitable(outcome):
        run.ctx.start_soon(later, outcome)


def _sleep(run: Run, delay: Any) -> Awaitable[None]:
    end = trio.current_time() + run.world.wait_s(run.value(delay))  # there it begins now, whoever awaits it and when
    return _sleep_until(run, end)


async def _sleep_until(run: Run, end: float) -> None:
    await run.ctx.sleep(max(end - trio.current_time(), 0.0))


def _timer(run: Run, delay: Any, program: Program) -> None:
    async def fire() -> None:
        try:
            await perform(program, run)
        except Exception as error:  # noqa: BLE001 -- the scenario shows it
            run.log("timer-error", error)

    run.ctx.set_timeout(run.world.wait_s(run.value(delay)), fire)


def _wait_until(run: Run, program: Program) -> None:
    rest = begin(program, run.part())
    if rest is not None:
        run.ctx.wait_until(rest)


def _mem_set(run: Run, key: str, expression: Any) -> None:
    run.memory[key] = run.value(expression)


def _mem_increment(run: Run, key: str) -> Any:
    run.memory[key] = run.memory.get(key, 0) + 1
    return run.memory[key]


CONTROL: dict[str, Callable[..., Any]] = {
    "log": _log,
    "show": _show,
    "set": _set,
    "value": lambda run, expression: run.value(expression),
    "return": _return,
    "throw": _throw,
    "throwValue": _throw_value,
    "if": _if,
    "try": _try,
    "sleep": _sleep,
    "turn": lambda run: run.ctx.sleep(run.world.turn_s),
    "microtasks": _microtasks,
    "wait": lambda run, name: _latch(run, name).wait(),
    "signal": lambda run, name: _latch(run, name).set(),
    "spawn": _spawn,
    "join": lambda run, name: run.tasks[name],
    "nowait": _nowait,
    "timer": _timer,
    "waitUntil": _wait_until,
    "now": lambda run: round(run.ctx.now() * 1000),
    "memSet": _mem_set,
    "memGet": lambda run, key: run.memory.get(key, UNDEFINED),
    "memIncr": _mem_increment,
}
