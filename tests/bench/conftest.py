"""What the tests of the clients in C have in common."""

import os

import pytest

from bench.measure import Setting


@pytest.fixture
def setting(tmp_path):
    core = min(os.sched_getaffinity(0))
    return Setting(quick=True, server_core=core, load_core=core, build=tmp_path)
