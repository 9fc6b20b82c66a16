"""The JavaScript client: its own tests, by Node's test runner, and what it promises about itself."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "actors" / "client" / "js"


@pytest.mark.real
def test_the_javascript_client_passes_the_vectors_and_its_own_claims() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on the PATH")
    files = sorted(str(path) for path in (ROOT / "tests" / "js").glob("*.test.mjs"))
    done = subprocess.run(
        [node, "--test", "--test-reporter=spec", *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]


def test_the_javascript_client_is_one_module_of_at_most_10_kb_compressed() -> None:
    source = (CLIENT / "client.js").read_bytes()
    assert b"\nimport " not in source
    assert len(gzip.compress(source, 9)) <= 10 * 1_024


def test_the_javascript_package_depends_on_nothing() -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    assert not {"dependencies", "peerDependencies", "optionalDependencies"} & package.keys()
