"""The server passes the Autobahn test suite, compression included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.autobahn.suite import CASES, NoKosoku, kosoku, summary, try_server
from tests.browser.serving import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    try:
        kosoku()
    except NoKosoku as missing:
        pytest.skip(str(missing))
    running = Server(tmp_path / "data", "--test-routes")
    running.start()
    yield running
    running.kill()


@pytest.mark.real
def test_every_case_passes_and_none_is_unimplemented(server: Server, tmp_path: Path) -> None:
    verdicts = try_server(f"ws://127.0.0.1:{server.port}/_test/echo", tmp_path / "reports")
    assert len(verdicts) == CASES
    assert [verdict for verdict in verdicts if not verdict.passed] == [], summary(verdicts)
