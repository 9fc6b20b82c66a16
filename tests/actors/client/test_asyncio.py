"""Everything that the client does under Trio it does under asyncio, in virtual time as well."""

import inspect

import pytest

from tests.actors.client import test_buffer_policies, test_client, test_cursors, test_faults, test_flow, test_history
from tests.actors.client.jumping_loop import run_jumping

MODULES = (test_client, test_faults, test_flow, test_buffer_policies, test_cursors, test_history)
TRIO_ONLY = {"autojump_clock"}


def claims():
    for module in MODULES:
        for name, claim in vars(module).items():
            is_claim = name.startswith("test_") and inspect.iscoroutinefunction(claim)
            if is_claim and "server" in inspect.signature(claim).parameters:
                yield from with_parameters(name, claim)


def with_parameters(name, claim):
    """One case for each of its parametrisations."""
    [marks] = [[mark.args for mark in getattr(claim, "pytestmark", ()) if mark.name == "parametrize"]]
    if not marks:
        yield pytest.param(claim, {}, id=name)
    for parameter, values in marks:
        for value in values:
            yield pytest.param(claim, {parameter: value}, id=f"{name}-{value}")


@pytest.mark.parametrize(("claim", "given"), list(claims()))
def test_under_asyncio(claim, given, request):
    needed = [name for name in inspect.signature(claim).parameters if name not in given]
    fixtures = {name: None if name in TRIO_ONLY else request.getfixturevalue(name) for name in needed}
    run_jumping(lambda: claim(**fixtures, **given))
