"""The configuration for a public API makes each of its items a signal once, over a kill of the server."""

from __future__ import annotations

import re
import shutil

import pytest

from actors.client import SyncSignalClient
from tests.crash.load import free_port
from tests.examples.serving import EXAMPLES, process
from tests.examples.waiting import PATIENCE_S

EXAMPLE = EXAMPLES / "public-api"


@pytest.mark.real
def test_every_trade_becomes_a_signal_once_and_in_order(tmp_path):
    api, port = free_port(), free_port()
    config = (EXAMPLE / "heliograph.toml").read_text()
    (tmp_path / "heliograph.toml").write_text(config.replace(":9000/", f":{api}/"))
    shutil.copy(EXAMPLE / "exchange.py", tmp_path)
    serve = ("-m", "runtime", "serve", "--config", "heliograph.toml", "--port", str(port))
    seen: list[int] = []
    with process("exchange.py", str(api), cwd=tmp_path):
        for wanted in (6, 10):
            with process(*serve, cwd=tmp_path) as server:
                assert server.stdout is not None
                assert "listening on" in server.stdout.readline()
                with SyncSignalClient(f"http://127.0.0.1:{port}") as client:
                    sub = client.subscribe(types=["trade.>"], since="earliest")
                    seen = []
                    while len(seen) < wanted:
                        signal = sub.take(timeout_s=PATIENCE_S)
                        assert re.fullmatch(r"(BTC|ETH|XMR)-USD", signal.entity)
                        seen.append(signal.data["tid"])
    assert seen == list(range(seen[0], seen[0] + len(seen)))
