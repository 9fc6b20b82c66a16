"""The built wheel, installed into an empty environment, is a working server and client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SET_UP_S = 300
ANSWER_S = 30


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=SET_UP_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.real
def test_the_wheel_serves_and_publishes(tmp_path):
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("heliograph-*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    bin_ = tmp_path / "venv" / "bin"
    run(bin_ / "python", *pip[1:], "install", wheel, cwd=tmp_path)

    command = [bin_ / "heliograph", "serve", "--port", "0", "--no-sources"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            ready = re.fullmatch(r"listening on (http://\S+)\n", server.stdout.readline())
            assert ready is not None
            url = ready[1]
            for path in ("/healthz", "/", "/client.js"):
                with urllib.request.urlopen(url + path, timeout=ANSWER_S) as answer:
                    assert answer.status == 200, path
            published = run(
                *(bin_ / "heliograph", "publish", url, "--type", "alert.high", "--entity", "btc-usd"),
                *("--data", '{"p":1}'),
                cwd=tmp_path,
            )
            assert re.search(r"\b1\b", published)
        finally:
            server.terminate()
            try:
                assert server.wait(ANSWER_S) == 0
            finally:
                server.kill()
