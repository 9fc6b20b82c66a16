"""A store of each kind, running."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.platform import Platform
from runtime.storage.store import Store
from runtime.testing.platform import virtual_platform
from tests.storage.harness import Disk


@pytest.fixture(params=["memory", "shared"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return Disk(request.param, tmp_path)


@pytest.fixture
def shared_disk(tmp_path: Path) -> Disk:
    return Disk("shared", tmp_path)


@pytest.fixture
async def platform() -> Platform:
    return virtual_platform()


@pytest.fixture
async def store(disk: Disk) -> AsyncIterator[Store]:
    async with disk.running() as running:
        yield running
