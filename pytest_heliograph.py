"""The pytest plugin: a throw-away server and virtual time as fixtures, for the tests of any project.

It stands outside of the package `runtime` because pytest imports it in every run, and the package only where a test
asks for a server.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trio.testing import MockClock

    from runtime.testing import RunningServer


@pytest.fixture
def heliograph_server() -> Callable[..., AbstractAsyncContextManager[RunningServer]]:
    """Starts a throw-away server: it is `runtime.testing.start_server`, to be used with `async with`."""
    from runtime.testing import start_server

    return start_server


@pytest.fixture
def virtual_time() -> MockClock:
    """A trio clock that jumps to the next deadline as soon as nothing else can run.

    Request it in the test itself: pytest-trio looks for it among the test's own arguments.
    """
    from trio.testing import MockClock

    return MockClock(autojump_threshold=0)
