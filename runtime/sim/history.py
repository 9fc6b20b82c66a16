"""What clients asked one actor and were answered, and whether one order of all of it explains every answer."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

import attrs

from runtime.sim.trace import Trace

T = TypeVar("T")
S = TypeVar("S", bound=Hashable)

OPERATIONS_MAX = 400


@attrs.define(eq=False)
class Operation:
    """One request of a client.

    Attributes:
        request: what was asked. answer: what came back; nothing while `ended` is None.
        begun, ended: numbers of events; None: no answer came, so it may have happened at any time since, or never.
    """

    request: Any
    begun: int
    answer: Any = None
    ended: int | None = None


@attrs.define(eq=False)
class History:
    """The operations on one actor by any number of clients."""

    trace: Trace
    name: str
    operations: list[Operation] = attrs.field(factory=list)

    async def record(self, request: Any, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call and record it. Raises what the call raises, which counts as no answer."""
        operation = Operation(request, self.trace.note("ask", self.name, repr(request)))
        self.operations.append(operation)
        value = await call()
        operation.answer = value
        operation.ended = self.trace.note("told", self.name, f"{request!r} -> {value!r}")
        return value


def linearizable(
    history: History, initial: S, apply: Callable[[S, Any], tuple[S, Any]]
) -> tuple[Operation, Operation | None] | None:
    """Find an order of the operations, each within its time, that gives every answer (Wing and Gong).

    Args:
        initial: the state at the beginning; states are hashable.
        apply: the state after a request, and the answer to it.

    Returns:
        None when there is one; else the first operation whose answer nothing explains, and the one answered before it.

    Raises:
        ValueError: more than 400 operations.
    """
    operations = history.operations
    if len(operations) > OPERATIONS_MAX:
        raise ValueError(f"{len(operations)} operations; at most {OPERATIONS_MAX}: split the history by actor")
    answered = sum(1 << at for at, operation in enumerate(operations) if operation.ended is not None)
    seen: set[tuple[int, S]] = set()
    furthest = 0
    stack: list[tuple[int, S]] = [(0, initial)]
    while stack:
        done, state = stack.pop()
        if done & answered == answered:
            return None
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if (done & answered).bit_count() > (furthest & answered).bit_count():
            furthest = done
        for at, operation in reversed(_next(operations, done)):
            after, answer = apply(state, operation.request)
            if operation.ended is None:
                if after != state:  # else nobody can tell whether it happened
                    stack.append((done | 1 << at, after))
            elif answer == operation.answer:
                stack.append((done | 1 << at, after))
    return _unexplained(operations, furthest)


def _next(operations: list[Operation], done: int) -> list[tuple[int, Operation]]:
    """What may come next: not an operation that was asked after another one had been answered. They are in order."""
    first_end = math.inf
    found: list[tuple[int, Operation]] = []
    for at in range((~done & (done + 1)).bit_length() - 1, len(operations)):
        operation = operations[at]
        if operation.begun > first_end:
            break
        if not done >> at & 1:
            found.append((at, operation))
            if operation.ended is not None and operation.ended < first_end:
                first_end = operation.ended
    return [(at, operation) for at, operation in found if operation.begun <= first_end]


def _unexplained(operations: list[Operation], furthest: int) -> tuple[Operation, Operation | None]:
    unexplained = [
        operation for at, operation in enumerate(operations) if operation.ended is not None and not furthest >> at & 1
    ]
    culprit = min(unexplained, key=lambda operation: operation.ended or 0)
    before = [one for one in operations if one.ended is not None and one.ended < (culprit.ended or 0)]
    return culprit, max(before, key=lambda one: one.ended or 0, default=None)
