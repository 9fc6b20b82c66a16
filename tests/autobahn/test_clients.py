"""The connections of our clients pass the suite's cases, but for compression.

The Python client does not offer it. Node's WebSocket does, but sends its own messages as they are, which kosoku cannot
compare.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.autobahn.suite import (
    CASES,
    COMPRESSION_CASES,
    ROOT,
    WITHOUT_COMPRESSION,
    NoKosoku,
    Verdict,
    kosoku,
    summary,
    try_client,
)

MODULES = ROOT / "build" / "foreign" / "node_modules"

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def _suite() -> None:
    try:
        kosoku()
    except NoKosoku as missing:
        pytest.skip(str(missing))


def check(verdicts: list[Verdict]) -> None:
    assert len(verdicts) == CASES - COMPRESSION_CASES
    assert [verdict for verdict in verdicts if not verdict.passed] == [], summary(verdicts)


def test_the_connection_of_the_python_client_passes_every_case(tmp_path: Path) -> None:
    client = [sys.executable, "-m", "tests.autobahn.echo"]
    check(try_client(client, tmp_path / "reports", *WITHOUT_COMPRESSION))


def test_the_websocket_of_node_passes_every_case(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (MODULES / "undici").is_dir():
        pytest.skip("no undici for Node: `make foreign` installs it")
    client = [node, str(Path(__file__).parent / "echo.mjs"), str(MODULES)]
    check(try_client(client, tmp_path / "reports", *WITHOUT_COMPRESSION))
