"""How a program runs: one operation after another, each at once or with a wait.

`step` does what an operation does at once and returns its value, or an awaitable for the rest, as the recorded
interpreter does: what is awaited, and when, is part of what a scenario shows.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs

from runtime import ActorEvent, Context
from tests.conformance.values import UNDEFINED, Error, encode, evaluate
from tests.conformance.world import World

Operation = Sequence[Any]
Program = Sequence[Operation]


@attrs.define(eq=False)
class Run:
    """What the operations of one event share.

    Attributes:
        who: names the events it logs. namespaces: the env of the scripted actors. operations: name to function.
        memory, latches: of this instance. variables, tasks, stubs: of this event.
        transaction: the handle inside a transaction.
        actor_class: what a facet is started as. socket: whose event it is. result: what `return` said.
    """

    who: str
    ctx: Context
    world: World
    namespaces: Any
    operations: Mapping[str, Callable[..., Any]]
    memory: dict[str, Any]
    latches: dict[str, ActorEvent]
    variables: dict[str, Any] = attrs.field(factory=dict)
    actor_class: Any = None
    transaction: Any = None
    socket: Any = None
    result: Any = UNDEFINED
    tasks: dict[str, Awaitable[Any]] = attrs.field(factory=dict)
    stubs: dict[str, Any] = attrs.field(factory=dict)

    def part(self, **changes: Any) -> Run:
        """The same event, with a result of its own."""
        return attrs.evolve(self, result=UNDEFINED, **changes)

    @property
    def storage(self) -> Any:
        """The transaction's handle, or the plain storage."""
        return self.transaction if self.transaction is not None else self.ctx.storage

    def value(self, expression: Any) -> Any:
        """The value of an expression."""
        return evaluate(expression, self.variables, self.memory)

    def log(self, label: str, *value: Any) -> None:
        """Add an event to the trace."""
        self.world.log(self.who, label, *(encode(item) for item in value))

    def stub(self, actor: str) -> Any:
        """A new stub of an actor of the scenario."""
        return self.world.namespace(self.namespaces, actor).get_by_name(actor)


def begin(program: Program | None, run: Run) -> Awaitable[Any] | None:
    """Run up to the first wait; what is left is returned."""
    operations = list(program or ())
    for index, operation in enumerate(operations):
        outcome = step(operation, run)
        if inspect.isawaitable(outcome):
            return _finish(outcome, operations[index + 1 :], run)
    return None


async def _finish(first: Awaitable[Any], rest: Program, run: Run) -> None:
    await first
    for operation in rest:
        outcome = step(operation, run)
        if inspect.isawaitable(outcome):
            await outcome


async def perform(program: Program | None, run: Run) -> Any:
    """Run a program and give its result."""
    rest = begin(program, run)
    if rest is not None:
        await rest
    return run.result


def perform_now(program: Program | None, run: Run) -> Any:
    """Run a program where nothing can be awaited (constructors, synchronous transactions)."""
    for operation in program or ():
        outcome = step(operation, run)
        if inspect.iscoroutine(outcome):
            outcome.close()
    return run.result


def step(operation: Operation, run: Run) -> Any:
    """Do one operation; an awaitable when it has to wait."""
    name, *operands = operation
    do = run.operations.get(name)
    if do is None:
        raise Error(f"unknown operation {name}")
    return do(run, *operands)


async def after_commits(run: Run, rounds: int) -> None:
    """Keep the turn for some rounds of the loop, in which what is sealed becomes durable."""
    for _ in range(rounds):
        await run.ctx.checkpoint()


def then(outcome: Any, convert: Callable[[Any], Any]) -> Any:
    """What `convert` makes of a value, now or when it is there."""

    async def later() -> Any:
        return convert(await outcome)

    return later() if inspect.isawaitable(outcome) else convert(outcome)
